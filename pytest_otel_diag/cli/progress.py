"""Lines about a running session for commands that take minutes on a live system."""

from __future__ import annotations

from collections.abc import Callable

from pytest_otel_diag.model.base import Nanos
from pytest_otel_diag.model.events import (
    ImpactMeasured,
    PhaseStarted,
    SessionEvent,
    SessionStarted,
    SessionWaiting,
)
from pytest_otel_diag.model.windows import NANOS_PER_SECOND
from pytest_otel_diag.scoring.text import one_line

LONG_S = 5.0
"""Wall time from which on a session gets lines: simulated ones are over before they could be read."""

QUIET_S = 30.0
"""How often, in wall time, a wait for the impact gets a line."""


def phase_lines(scenario_id: str, echo: Callable[[str], object]) -> Callable[[SessionEvent], None]:
    """Return what takes the events of a session and prints its phases, waits and measured impact."""
    began_ns: Nanos | None = None
    shown_ns: Nanos = 0

    def take(event: SessionEvent) -> None:
        nonlocal began_ns, shown_ns
        if isinstance(event, SessionStarted):
            began_ns = event.wall_ns
        text = _news(event)
        if not text or began_ns is None:
            return
        age_s = (event.wall_ns - began_ns) / NANOS_PER_SECOND
        often = isinstance(event, ImpactMeasured) and event.wall_ns - shown_ns < QUIET_S * NANOS_PER_SECOND
        if isinstance(event, SessionWaiting) or (age_s >= LONG_S and not often):
            shown_ns = event.wall_ns
            echo(one_line(f"{scenario_id}: {text} ({age_s:.0f} s)"))

    return take


def _news(event: SessionEvent) -> str:
    match event:
        case PhaseStarted():
            return event.phase.value
        case SessionWaiting():
            return f"waiting: {event.reason}" if event.reason else ""
        case ImpactMeasured():
            return f"impact {event.impact.reason.value} {event.impact.detail}".rstrip()
        case _:
            return ""
