"""Events of a session, for progress output and for the record that survives a crash."""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import Any, Protocol

from pytest_otel_diag.model.session import Impact, Phase, PhaseRecord, SessionResult
from pytest_otel_diag.ports import Clock
from pytest_otel_diag.sessions.settings import SessionPlan

_LOG = logging.getLogger(__name__)


class Observer(Protocol):
    """Is told what happens while it happens, on the engine's event loop; must not block."""

    def target_opened(self, plan: SessionPlan, clock: Clock) -> None:
        """Note the target's clock; it may be read from any thread until the session has ended."""
        ...

    def waiting(self, plan: SessionPlan, text: str) -> None:
        """Note what the session waits for before it can begin; empty once it waits no more."""
        ...

    def phase_started(self, plan: SessionPlan, phase: Phase) -> None:
        """Note that a phase begins."""
        ...

    def phase_ended(self, plan: SessionPlan, record: PhaseRecord) -> None:
        """Note that a phase ended, however it ended."""
        ...

    def impact_progress(self, plan: SessionPlan, impact: Impact) -> None:
        """Note what telemetry shows of the fault so far."""
        ...

    def session_ended(self, result: SessionResult) -> None:
        """Keep the finished result; called exactly once a session, cancelled sessions included."""
        ...


class NullObserver:
    """Looks away."""

    def target_opened(self, plan: SessionPlan, clock: Clock) -> None:
        """Ignore it."""

    def waiting(self, plan: SessionPlan, text: str) -> None:
        """Ignore it."""

    def phase_started(self, plan: SessionPlan, phase: Phase) -> None:
        """Ignore it."""

    def phase_ended(self, plan: SessionPlan, record: PhaseRecord) -> None:
        """Ignore it."""

    def impact_progress(self, plan: SessionPlan, impact: Impact) -> None:
        """Ignore it."""

    def session_ended(self, result: SessionResult) -> None:
        """Ignore it."""


def tell(event: Callable[..., None], *arguments: Any) -> None:
    """Send a progress event; one that fails is logged, since progress output must not end a session."""
    try:
        event(*arguments)
    except Exception:
        _LOG.exception("an observer failed in %s", getattr(event, "__qualname__", event))
