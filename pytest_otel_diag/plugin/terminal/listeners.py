"""Who wants to know of sessions beside the run directory: the screen, and Allure where it is asked for."""

from __future__ import annotations

from typing import Protocol

import pytest

from pytest_otel_diag.model.session import SessionResult
from pytest_otel_diag.plugin.terminal.screen import screen_of


class Listener(Protocol):
    """Is told of ended sessions, in the process that reports."""

    def ended(self, session: SessionResult) -> None:
        """Take note of one session."""
        ...


def of(config: pytest.Config) -> tuple[Listener, ...]:
    """Return the listeners of this process, made and registered by the first call."""
    found: list[Listener | None] = [screen_of(config)]
    if getattr(config.option, "allure_report_dir", None):
        from pytest_otel_diag.plugin.integrations.allure import allure_of  # noqa: PLC0415  # only where it is installed

        found.append(allure_of(config))
    return tuple(listener for listener in found if listener is not None)
