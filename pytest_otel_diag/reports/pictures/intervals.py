"""Intervals of faults and harmless changes, which the timeline of a session marks."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

from pytest_otel_diag.model.base import Nanos
from pytest_otel_diag.model.session import FlagMoment, Phase, SessionResult
from pytest_otel_diag.reports.session_tables import disturbed, fault_start_ns

BARS_SHOWN = 60


@dataclass(frozen=True)
class Bar:
    """An interval in which a variant was served; an instantaneous change has length 0.

    A harmless one is a disturbance of the scenario, no fault.
    """

    start_ns: Nanos
    end_ns: Nanos
    words: str
    harmless: bool = False


Lane = tuple[str, tuple[Bar, ...]]


def lanes(session: SessionResult, end_ns: Nanos) -> tuple[Lane, ...]:
    """Return a lane per flag and disturbance: its name and intervals, cut at *end_ns*."""
    by_flag: dict[str, list[FlagMoment]] = {}
    for moment in session.flag_timeline:
        by_flag.setdefault(moment.flag, []).append(moment)
    found = [(flag, tuple(_served(moments, end_ns))[:BARS_SHOWN]) for flag, moments in by_flag.items()]
    found += [lane for lane in _witnessed(session, end_ns) if lane[0] not in by_flag]
    for made in session.disturbances:
        if made.at_ns < end_ns:
            until = end_ns if made.disturbance.kind in ("load", "text") else made.at_ns
            found.append((disturbed(made.disturbance), (Bar(made.at_ns, until, "", harmless=True),)))
    return tuple((name, pieces) for name, pieces in found if pieces)


def off_ns(session: SessionResult) -> Nanos | None:
    """Return when the last fault ended, by its schedule or by the undo; None while one is on."""
    by_flag: dict[str, list[FlagMoment]] = {}
    for moment in session.flag_timeline:
        by_flag.setdefault(moment.flag, []).append(moment)
    if not any(len(moments) > 1 for moments in by_flag.values()):
        undone = (p for p in session.phases if p.phase is Phase.UNDO and p.outcome == "ok")
        return next((phase.end_ns for phase in undone), None)
    ends: list[Nanos] = []
    for moments in by_flag.values():
        rest = moments[0].variant
        if moments[-1].variant != rest:
            return None
        ends += [
            later.at_ns
            for earlier, later in pairwise(moments)
            if earlier.variant != rest and later.variant == rest
        ]
    return max(ends, default=None)


def _served(moments: Sequence[FlagMoment], end_ns: Nanos) -> list[Bar]:
    rest = moments[0].variant
    ends = [moment.at_ns for moment in moments[1:]] + [end_ns]
    pieces = [
        Bar(moment.at_ns, min(until, end_ns), moment.variant)
        for moment, until in zip(moments, ends, strict=True)
    ]
    return [piece for piece in pieces if piece.words != rest and piece.end_ns > piece.start_ns]


def _witnessed(session: SessionResult, end_ns: Nanos) -> list[Lane]:
    """Return one interval per witnessed flag, from the fault to the undo, for results without a timeline."""
    start = fault_start_ns(session)
    if start is None:
        return []
    off_ns = next((p.end_ns for p in session.phases if p.phase is Phase.UNDO), end_ns)
    stop = max(start, min(off_ns, end_ns))
    return [(w.flag, (Bar(start, stop, w.variant),)) for w in session.witnesses if w.confirmed]
