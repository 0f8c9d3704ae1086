"""The stream of events of a session: complete, in order, and readable after a round trip through JSON."""

from __future__ import annotations

import asyncio
import itertools
import json
import typing
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import replace
from enum import StrEnum
from types import NoneType, UnionType

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pytest_otel_diag.model.base import Ratio
from pytest_otel_diag.model.events import (
    EVENT,
    BaselineMeasured,
    DiagnosisReceived,
    DisturbanceMade,
    FaultsUndone,
    FlagServed,
    ImpactMeasured,
    PhaseEnded,
    PhaseStarted,
    ServiceSample,
    SessionEnded,
    SessionEvent,
    SessionStarted,
    TargetOpened,
    VerdictReached,
)
from pytest_otel_diag.model.scenario import Disturbance, Scenario
from pytest_otel_diag.model.session import Phase, Status
from pytest_otel_diag.model.telemetry import ServiceHealth
from pytest_otel_diag.model.windows import Window, seconds_to_ns
from pytest_otel_diag.ports import TargetSession
from pytest_otel_diag.sessions.impact.samples import Changes, idle, samples
from tests.sessions.session_fakes import START_NS, Behaviour, FakeTarget, Watcher, engine, plan, scenario

KINDS = typing.get_args(typing.get_args(SessionEvent)[0])
DISTURBANCES = [
    Disturbance(kind="load", factor=1.5, at_s=2.0),
    Disturbance(kind="restart", service="ad"),
]


SIMPLE = {
    str: st.text(),
    int: st.integers(),
    float: st.floats(allow_nan=False, allow_infinity=False),
    bool: st.booleans(),
    NoneType: st.none(),
    Disturbance: st.sampled_from(DISTURBANCES),
}


def values(annotation: typing.Any) -> st.SearchStrategy[typing.Any]:
    """Return a strategy for what a field of a model may hold."""
    if annotation == Ratio:
        return st.floats(0, 1)
    if annotation in SIMPLE:
        return SIMPLE[annotation]
    if (origin := typing.get_origin(annotation)) is not None:
        return parts(origin, typing.get_args(annotation))
    if issubclass(annotation, StrEnum):
        return st.sampled_from(list(annotation))
    hints = typing.get_type_hints(annotation, include_extras=True)
    return st.builds(annotation, **{name: values(hints[name]) for name in annotation.model_fields})


def parts(origin: typing.Any, arguments: tuple[typing.Any, ...]) -> st.SearchStrategy[typing.Any]:
    """Return a strategy for an annotation that is made of others."""
    if origin is typing.Literal:
        return st.sampled_from(arguments)
    if origin in (typing.Union, UnionType):
        return st.one_of(*map(values, arguments))
    one = values(arguments[0])
    return st.lists(one, max_size=2).map(tuple) if origin is tuple else one


@given(st.one_of(*map(values, KINDS)))
def test_every_event_survives_a_round_trip_through_json(event: SessionEvent) -> None:
    line = event.model_dump_json()

    assert EVENT.validate_json(line) == event
    assert json.loads(line)["kind"] == event.kind
    assert "\n" not in line


def kinds(watcher: Watcher) -> list[type]:
    return [type(event) for event in watcher.events]


async def test_a_session_emits_what_happens_in_order() -> None:
    target, watcher = FakeTarget(), Watcher()

    result = await engine(target, watcher=watcher).run(plan())

    assert result.status is Status.SCORED
    seen = kinds(watcher)
    milestones = [
        SessionStarted,
        TargetOpened,
        BaselineMeasured,
        FlagServed,
        ImpactMeasured,
        DiagnosisReceived,
        VerdictReached,
        FaultsUndone,
        SessionEnded,
    ]
    assert (seen[0], seen[-1]) == (SessionStarted, SessionEnded)
    assert [kind for kind in dict.fromkeys(seen) if kind in milestones] == [
        SessionStarted,
        TargetOpened,
        FlagServed,  # how the flag was found
        *(kind for kind in milestones if kind not in (SessionStarted, TargetOpened, FlagServed)),
    ]
    phases = [event.phase for event in watcher.events if isinstance(event, PhaseStarted)]
    ends = [event.record for event in watcher.events if isinstance(event, PhaseEnded)]
    assert phases == list(Phase) and tuple(ends) == result.phases
    served = [event.moment for event in watcher.events if isinstance(event, FlagServed)]
    assert tuple(served) == result.flag_timeline
    last = watcher.events[-1]
    assert isinstance(last, SessionEnded)
    assert (last.status, last.outcome, last.wall_s) == (result.status, result.summary, result.wall_s)


async def test_events_carry_the_time_of_the_target_once_it_is_open() -> None:
    target, watcher = FakeTarget(), Watcher()

    await engine(target, watcher=watcher).run(plan())

    opened = next(event for event in watcher.events if isinstance(event, TargetOpened))
    later = watcher.events[watcher.events.index(opened) :]
    assert opened.virtual and opened.at_ns == START_NS
    assert all(START_NS <= one.at_ns <= two.at_ns for one, two in itertools.pairwise(later))


class Disturbable(FakeTarget):
    """A fake that makes harmless changes."""

    def __init__(self) -> None:
        super().__init__()
        self.made: list[Disturbance] = []

    @asynccontextmanager
    async def open(self, scenario: Scenario, session_id: str) -> AsyncIterator[TargetSession]:
        async def disturb(one: Disturbance) -> None:
            self.made.append(one)

        async with super().open(scenario, session_id) as session:
            yield replace(session, disturb=disturb)


async def test_disturbances_are_emitted_as_they_are_made() -> None:
    target, watcher = Disturbable(), Watcher()
    case = scenario("paymentFailure=50%", disturbances=(DISTURBANCES[0],))
    result = await engine(target, watcher=watcher).run(plan(case))

    seen = [event.moment for event in watcher.events if isinstance(event, DisturbanceMade)]
    assert target.made == [DISTURBANCES[0]] and tuple(seen) == result.disturbances


async def test_a_cancelled_session_ends_its_stream() -> None:
    target, watcher = FakeTarget(), Watcher()
    task = asyncio.ensure_future(engine(target, watcher=watcher).run(plan()))
    watcher.when[Phase.IMPACT] = lambda: task.cancel() and None

    with pytest.raises(asyncio.CancelledError):
        await task

    assert kinds(watcher)[-1] is SessionEnded
    assert FaultsUndone in kinds(watcher)


def measured(watcher: Watcher, service: str) -> list[ServiceSample]:
    """Return the series of the service after the fault, the newest sample of each bucket."""
    series = {}
    for event in watcher.events:
        if isinstance(event, ImpactMeasured):
            series |= {one.bucket_start_ns: one for one in event.samples if one.service == service}
    return [series[start] for start in sorted(series)]


async def test_the_series_of_a_failing_service_is_emitted_as_measured() -> None:
    target, watcher = FakeTarget(), Watcher()

    await engine(target, watcher=watcher).run(plan())

    before = next(event for event in watcher.events if isinstance(event, BaselineMeasured))
    quiet = [one for one in before.samples if one.service == "payment"]
    assert {one.state for one in quiet} == {"ok"} and all(one.rate_per_s > 7 for one in quiet)
    series = measured(watcher, "payment")
    assert series[-1].state == "failing" and series[-1].error_ratio > 0.3
    assert {one.state for one in measured(watcher, "frontend")} == {"ok"}


async def test_a_service_without_calls_is_silent_in_each_bucket() -> None:
    services = {
        "frontend": Behaviour(rate=20),
        "checkout": Behaviour(rate=8),
        "payment": Behaviour(rate=8, flag="paymentFailure", rate_on=0.0),
    }
    target, watcher = FakeTarget(services=services), Watcher()

    result = await engine(target, watcher=watcher).run(plan())

    assert result.impact is not None and result.impact.signal == "request_rate"
    series = measured(watcher, "payment")
    assert series and series[-1].state == "silent"
    assert series[-1].rate_per_s == 0 and series[-1].p95_ms is None


def row(start_s: float, requests: int, errors: int = 0) -> ServiceHealth:
    start_ns = seconds_to_ns(start_s)
    return ServiceHealth(
        service="a", bucket_start_ns=start_ns, requests=requests, errors=errors, p50_ms=1, p95_ms=2, p99_ms=3
    )


WINDOW = Window(start_ns=0, end_ns=seconds_to_ns(12))


def test_a_bucket_that_the_window_cuts_short_has_the_rate_of_its_part() -> None:
    first, last = samples([row(0, 10, 5), row(10, 10)], WINDOW, 5.0)

    assert (first.bucket_s, first.rate_per_s, first.error_ratio) == (5.0, 2.0, 0.5)
    assert (last.bucket_s, last.rate_per_s) == (2.0, 5.0)


def test_only_samples_with_new_numbers_are_sent_again() -> None:
    changes = Changes()

    assert len(changes.since_last([row(0, 10), row(5, 3)], WINDOW, 5.0, states={})) == 2
    (filled,) = changes.since_last([row(0, 10), row(5, 8)], WINDOW, 5.0, states={"a": "degraded"})
    assert (filled.bucket_start_ns, filled.state) == (seconds_to_ns(5), "degraded")


def test_a_silent_bucket_is_sent_once_and_replaced_when_calls_arrive_late() -> None:
    changes, silent = Changes(), {"a": "silent"}

    first = changes.since_last([row(0, 10)], WINDOW, 5.0, states=silent)
    assert [(one.bucket_start_ns, one.rate_per_s) for one in first][1:] == [
        (seconds_to_ns(5), 0.0),
        (seconds_to_ns(10), 0.0),
    ]
    assert changes.since_last([row(0, 10)], WINDOW, 5.0, states=silent) == ()
    (late,) = changes.since_last([row(0, 10), row(5, 2)], WINDOW, 5.0, states={})
    assert late.rate_per_s == 0.4


def test_buckets_with_calls_are_not_idle() -> None:
    starts = [one.bucket_start_ns for one in idle([row(0, 3)], WINDOW, 5.0, services={"a"})]

    assert starts == [seconds_to_ns(5), seconds_to_ns(10)]
