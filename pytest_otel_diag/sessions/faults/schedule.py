"""The schedule of a session: pure functions of the seconds since the injection.

A fault is on from ``at_s`` to ``until_s`` (for good without), and again each ``every_s``. Its ``steps`` count
from the moment it comes on, each time it does: a fault that flaps starts its ramp anew. Where several things
happen at one instant the last one wins, so a step at or after ``until_s`` never happens.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

from pytest_otel_diag.model.base import Nanos
from pytest_otel_diag.model.flags import FlagChange
from pytest_otel_diag.model.scenario import Disturbance, Fault, Scenario
from pytest_otel_diag.model.windows import seconds_to_ns


@dataclass(frozen=True, slots=True)
class Course:
    """The variants of one flag over time, in nanoseconds since the injection.

    ``rest`` is the variant while the fault is off. ``stages`` are the variants while it is on, as
    (nanoseconds since it came on, variant), the first one at 0.
    """

    key: str
    rest: str
    stages: tuple[tuple[Nanos, str], ...]
    at_ns: Nanos = 0
    until_ns: Nanos | None = None
    every_ns: Nanos | None = None

    def at(self, offset_ns: Nanos) -> str:
        """Return the variant at the instant."""
        if offset_ns < self.at_ns:
            return self.rest
        since_ns = offset_ns - self._begin(offset_ns)
        if self.until_ns is not None and since_ns >= self.until_ns - self.at_ns:
            return self.rest
        return next(variant for when, variant in reversed(self.stages) if when <= since_ns)

    def next(self, offset_ns: Nanos) -> Nanos | None:
        """Return the first instant after *offset_ns* at which the variant changes, None for never."""
        before = self.at(offset_ns)
        for instant in self._instants(offset_ns):
            if self.at(instant) != before:
                return instant
        return None

    def _begin(self, offset_ns: Nanos) -> Nanos:
        """Return when the fault last came on, at or before *offset_ns*."""
        if self.every_ns is None:
            return self.at_ns
        return self.at_ns + (offset_ns - self.at_ns) // self.every_ns * self.every_ns

    def _instants(self, offset_ns: Nanos) -> Iterator[Nanos]:
        """Yield in order the instants after *offset_ns* where the variant may change, over two periods."""
        first = self._begin(max(offset_ns, self.at_ns))
        begins = [first] if self.every_ns is None else [first, first + self.every_ns]
        lasts_ns = None if self.until_ns is None else self.until_ns - self.at_ns
        for begin in begins:
            yield from (begin + when for when, _ in self.stages if begin + when > offset_ns)
            if lasts_ns is not None and begin + lasts_ns > offset_ns:
                yield begin + lasts_ns


def course(fault: Fault, change: FlagChange, rest: str) -> Course:
    """Return the course of a fault with the first variant *change*, of a flag that was found at *rest*."""
    lasts_s = None if fault.until_s is None else fault.until_s - fault.at_s
    steps = [step for step in fault.steps if lasts_s is None or step.at_s < lasts_s]
    return Course(
        key=change.key,
        rest=rest,
        stages=((0, change.variant), *((seconds_to_ns(step.at_s), step.variant) for step in steps)),
        at_ns=seconds_to_ns(fault.at_s),
        until_ns=None if fault.until_s is None else seconds_to_ns(fault.until_s),
        every_ns=None if fault.every_s is None else seconds_to_ns(fault.every_s),
    )


@dataclass(frozen=True, slots=True)
class Schedule:
    """Everything that the schedule of a session makes happen, in nanoseconds since the injection."""

    courses: tuple[Course, ...] = ()
    disturbances: tuple[Disturbance, ...] = ()

    def at(self, offset_ns: Nanos) -> dict[str, str]:
        """Return the variant that each flag must answer at the instant."""
        return {course.key: course.at(offset_ns) for course in self.courses}

    def next(self, offset_ns: Nanos) -> Nanos | None:
        """Return the first instant after *offset_ns* at which something happens, None for never."""
        instants = [course.next(offset_ns) for course in self.courses]
        instants += [due for due in map(_due, self.disturbances) if due > offset_ns]
        return min((instant for instant in instants if instant is not None), default=None)

    def disturbances_in(self, after_ns: Nanos, until_ns: Nanos) -> list[Disturbance]:
        """Return the disturbances with ``after_ns < at <= until_ns``, in order of time."""
        due = [one for one in self.disturbances if after_ns < _due(one) <= until_ns]
        return sorted(due, key=_due)

    @property
    def first_fault_ns(self) -> Nanos | None:
        """When the first fault comes on, None without faults."""
        return min((course.at_ns for course in self.courses), default=None)


def schedule_of(scenario: Scenario, changes: Sequence[FlagChange], rest: Mapping[str, str]) -> Schedule:
    """Return the schedule of a scenario with the resolved *changes*; *rest* is how flags were found."""
    pairs = zip(scenario.faults, changes, strict=True)
    return Schedule(
        courses=tuple(course(fault, change, rest[change.key]) for fault, change in pairs),
        disturbances=scenario.disturbances,
    )


def _due(disturbance: Disturbance) -> Nanos:
    return seconds_to_ns(disturbance.at_s)
