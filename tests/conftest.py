"""Settings of all tests: Hypothesis without deadlines, and the order in which tests start."""

from __future__ import annotations

import signal

import pytest
from hypothesis import HealthCheck, settings

# Machines are shared, so the time that an example takes is never a failure.
settings.register_profile("shared", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("shared")

_LONGEST = (
    "test_kill_matrix.py",
    "test_docs.py",
    "test_record.py",
    "test_capture.py",
    "test_live_target.py",
    "test_runs.py",
    "test_command.py",
    "test_init.py",
    "test_progress.py",
)
_WHOLE_RUNS = ("undo", "project", "scenarios", "plugin", "cli", "targets")


def pytest_configure() -> None:
    """Take signals as a terminal would send them: behind ``nohup`` and ``&`` child processes ignore them."""
    if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
        signal.signal(signal.SIGINT, signal.default_int_handler)
    if signal.getsignal(signal.SIGHUP) is signal.SIG_IGN:
        signal.signal(signal.SIGHUP, signal.SIG_DFL)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Start the files that take longest first: one that starts last leaves the other workers idle.

    Then come folders whose tests start whole runs. The tests of a file run in one process, which opens the
    fixtures of the module once.
    """
    ranks = {name: rank for rank, name in enumerate(_LONGEST)}
    items.sort(
        key=lambda item: (
            ranks.get(item.path.name, len(ranks)),
            item.path.parent.name not in _WHOLE_RUNS,
            str(item.path),
        )
    )
