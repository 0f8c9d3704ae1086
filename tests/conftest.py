"""Settings of all tests: Hypothesis without deadlines, and the order in which tests start."""

from __future__ import annotations

import pytest
from hypothesis import HealthCheck, settings

# Machines are shared, so the time that an example takes is never a failure.
settings.register_profile("shared", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("shared")

_WHOLE_RUNS = ("undo", "project", "scenarios", "plugin", "cli", "targets")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Start long tests first: one that starts last leaves the other workers of pytest-xdist idle.

    First come groups that share a worker, then folders whose tests start whole runs.
    """
    items.sort(
        key=lambda item: (
            item.get_closest_marker("xdist_group") is None,
            item.path.parent.name not in _WHOLE_RUNS,
        )
    )
