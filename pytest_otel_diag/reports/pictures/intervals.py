"""When the faults of a session were on: from witnesses, phases, and the schedule of the scenario."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from pytest_otel_diag.model.base import Nanos
from pytest_otel_diag.model.scenario import Disturbance, Fault
from pytest_otel_diag.model.session import Phase, SessionResult
from pytest_otel_diag.model.windows import seconds_to_ns
from pytest_otel_diag.reports.session_tables import fault_start_ns

REPEATS_SHOWN = 50

__all__ = ["Bar", "bars", "fault_start_ns"]


@dataclass(frozen=True)
class Bar:
    """A stretch of time in which a variant was served."""

    start_ns: Nanos
    end_ns: Nanos
    words: str


def bars(session: SessionResult, end_ns: Nanos) -> tuple[tuple[str, tuple[Bar, ...]], ...]:
    """Return a lane a fault or disturbance: its name and when it was on, none of it after *end_ns*."""
    start = fault_start_ns(session)
    if start is None:
        return ()
    off_ns = next((p.end_ns for p in session.phases if p.phase is Phase.UNDO), end_ns)
    stop_ns = max(start, min(off_ns, end_ns))
    variants = {witness.flag: witness.variant for witness in session.witnesses}
    lanes = [
        (fault.flag, tuple(_stretches(fault, variants.get(fault.flag, ""), start, stop_ns)))
        for fault in session.scenario.faults
    ]
    lanes += [_disturbance(one, start, stop_ns) for one in session.scenario.disturbances]
    return tuple((name, pieces) for name, pieces in lanes if pieces)


def _stretches(fault: Fault, witnessed: str, start_ns: Nanos, stop_ns: Nanos) -> Iterator[Bar]:
    begin = start_ns + seconds_to_ns(fault.at_s)
    if fault.until_s is None:
        yield from _steps(fault, witnessed, begin, stop_ns)
        return
    length = seconds_to_ns(fault.until_s - fault.at_s)
    for _ in range(REPEATS_SHOWN):
        yield from _steps(fault, witnessed, begin, min(begin + length, stop_ns))
        if fault.every_s is None or begin >= stop_ns:
            return
        begin += seconds_to_ns(fault.every_s)


def _steps(fault: Fault, witnessed: str, begin: Nanos, end: Nanos) -> Iterator[Bar]:
    """Yield one bar a variant between the two instants; none where they are the wrong way round."""
    cuts = [(begin, fault.variant or witnessed)]
    cuts += [(begin + seconds_to_ns(step.at_s), step.variant) for step in fault.steps]
    ends = [at for at, _ in cuts[1:]] + [end]
    pieces = (Bar(at, min(until, end), words) for (at, words), until in zip(cuts, ends, strict=True))
    yield from (piece for piece in pieces if piece.end_ns > piece.start_ns)


def _disturbance(one: Disturbance, start_ns: Nanos, stop_ns: Nanos) -> tuple[str, tuple[Bar, ...]]:
    begin = start_ns + seconds_to_ns(one.at_s)
    if begin >= stop_ns:
        return one.kind, ()
    if one.kind == "load":
        return "load", (Bar(begin, stop_ns, f"× {one.factor:g}"),)
    return f"{one.kind} of {one.service}", (Bar(begin, begin, ""),)
