"""Settings of all tests: Hypothesis without deadlines, and how pytest-xdist distributes the tests."""

from __future__ import annotations

import pytest
from hypothesis import HealthCheck, settings

# Machines are shared, so the time that an example takes is never a failure.
settings.register_profile("shared", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("shared")

_WHOLE_RUNS = ("undo", "project", "scenarios", "plugin", "cli", "targets")


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Order and group tests for ``--dist loadgroup --no-loadscope-reorder``.

    The tests of a file run in one worker, so that its fixtures are set up once. Folders whose tests start
    whole runs come first: a long one that starts last would leave the other workers idle.
    """
    for item in items:
        if item.get_closest_marker("xdist_group") is None:
            item.add_marker(pytest.mark.xdist_group(item.nodeid.partition("::")[0]))
    items.sort(key=lambda item: item.path.parent.name not in _WHOLE_RUNS)
