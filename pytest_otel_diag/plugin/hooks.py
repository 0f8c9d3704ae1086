"""Hooks that this plugin calls, for other plugins to implement."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from pytest_otel_diag.model.session import SessionResult


@pytest.hookspec
def pytest_otel_diag_session_finish(config: pytest.Config, session: SessionResult) -> None:
    """Called with each ended session, in the process that reports: not in workers of pytest-xdist.

    Sessions of a test arrive when the test is over, after they were written to the run's folder.
    """
