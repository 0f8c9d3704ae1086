"""Describes sessions in one line each: those in flight, those that ended, and the tally."""

from __future__ import annotations

from collections.abc import Iterable

from pytest_otel_diag.model.base import Nanos
from pytest_otel_diag.model.session import Blame, Impact, ImpactReason, Phase, Status
from pytest_otel_diag.model.windows import NANOS_PER_SECOND
from pytest_otel_diag.runs.tracker import SessionState, SessionTally
from pytest_otel_diag.scoring.text import clip, count, one_line

REASON_WIDTH = 160
"""Columns that the reason of a session without a score may take in its line."""

LABEL_WIDTH = 60


def label(scenario_id: str, faults: Iterable[object], repeat: int = 0) -> str:
    """Return a short name of a session: its scenario, or its faults if the scenario is named after a test."""
    name = scenario_id
    if "::" in name:
        name = " + ".join(map(str, faults)) or name.rpartition("::")[2]
    return clip(name, LABEL_WIDTH) + (f" (repeat {repeat})" if repeat else "")


def span(seconds: float) -> str:
    """Return a length of time: ``2.8 s`` below a minute, ``4:05`` or ``1:04:05`` above."""
    if seconds < 59.95:
        return f"{seconds:.1f} s"
    minutes, rest_s = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02d}:{rest_s:02d}" if hours else f"{minutes}:{rest_s:02d}"


def tally_text(tally: SessionTally) -> str:
    """Return the tally: ``8 scored: 6/7 detected, 0/1 alarms; 1 invalid`` (faults, controls)."""
    rates = [
        f"{part}/{whole} {noun}"
        for part, whole, noun in (
            (tally.detected, tally.faults, "detected"),
            (tally.alarms, tally.controls, "alarms"),
        )
        if whole
    ]
    statuses = tally.statuses
    scored = f"{statuses[Status.SCORED]} scored" + (f": {', '.join(rates)}" if rates else "")
    others = [
        count(statuses[status], "error") if status is Status.ERROR else f"{statuses[status]} {status.value}"
        for status in (Status.INVALID, Status.ERROR, Status.SKIPPED)
        if statuses[status]
    ]
    return "; ".join([scored, *others])


def impact_text(impact: Impact) -> str:
    """Return what telemetry shows of the fault: reason, service, signal, calls seen of those needed."""
    what = " ".join(part for part in (impact.reason.value, impact.service, impact.signal) if part)
    if not impact.calls_needed:
        return what
    if impact.calls_seen >= impact.calls_needed:
        return f"{what}, {count(impact.calls_seen, 'call')}"
    rest = f", {span(impact.eta_s)} more" if impact.eta_s else ""
    return f"{what}, {impact.calls_seen} of {count(impact.calls_needed, 'call')}{rest}"


def age_s(flight: SessionState, now_ns: Nanos) -> float:
    """Return how many wall seconds ago the session started."""
    return (now_ns - flight.started.wall_ns) / NANOS_PER_SECOND


def flight_text(flight: SessionState, now_ns: Nanos) -> str:
    """Return one session in flight on one line: phase, target's and real time, impact so far."""
    parts = [f"waiting: {flight.waiting}" if flight.waiting else flight.phase.value]
    real = span(age_s(flight, now_ns))
    parts.append(real if flight.target_s is None else f"{span(flight.target_s)} virtual in {real}")
    if flight.phase is Phase.IMPACT and flight.impact is not None:
        parts.append(impact_text(flight.impact))
    return one_line(f"{_label(flight)}: {', '.join(parts)}")


def ended_text(state: SessionState, unmet: str = "") -> str:
    """Return one ended session on one line: outcome, time to impact, and the time it took.

    *unmet* is why its test failed.
    """
    assert state.ended is not None
    verdict = clip(_verdict(state), REASON_WIDTH)
    parts = [f"{clip(unmet, REASON_WIDTH)} ({verdict})" if unmet else verdict]
    impact = state.impact
    if impact is not None and impact.reason is ImpactReason.VISIBLE and impact.time_to_impact_s is not None:
        parts.append(f"visible after {span(impact.time_to_impact_s)}")
    real = span(state.ended.wall_s)
    took = real if state.target_s is None else f"{span(state.target_s)} virtual in {real}"
    return one_line(f"{_label(state)}: {', '.join(parts)} ({took})")


def colour(state: SessionState, unmet: str = "") -> str:
    """Return green for a right answer, red for a wrong one or a failed test, yellow without a score."""
    if unmet:
        return "red"
    if state.ended is None or state.ended.status is not Status.SCORED or state.verdict is None:
        return "yellow"
    return "green" if state.verdict.solved else "red"


def _label(state: SessionState) -> str:
    return label(state.started.scenario_id, state.started.faults, state.started.repeat)


def _verdict(state: SessionState) -> str:
    assert state.ended is not None
    text = state.ended.outcome
    return text.replace(":", " (analyzer):", 1) if state.ended.blame is Blame.ANALYZER else text
