"""Whatever interrupts a session: the flags are back, and exactly one result is kept."""

from __future__ import annotations

import asyncio
import signal
from dataclasses import replace

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from pytest_otel_diag.errors import (
    BudgetExceeded,
    ConfigurationError,
    FlagError,
    RestoreFailed,
    SchemaError,
    TelemetryUnavailable,
)
from pytest_otel_diag.model.session import Blame, Phase, Status
from tests.sessions.session_fakes import QUICK, FakeTarget, Watcher, engine, plan
from tests.support.deadlines import eventually_async

BEFORE_RECORD = [phase for phase in Phase if phase is not Phase.RECORD]


def assert_ended_by_the_user(result, phase):
    """A diagnosis that was judged before the interrupt counts."""
    if phase in {Phase.UNDO, Phase.RECOVER}:
        assert (result.status, result.reason, result.blame) == (Status.SCORED, "", None)
        assert result.verdict is not None
        assert result.notes == (f"cancelled during {phase}, after the diagnosis had been judged",)
    else:
        assert (result.status, result.blame) == (Status.ERROR, Blame.USER)
        assert result.reason == f"cancelled during {phase}"


@pytest.mark.parametrize("phase", BEFORE_RECORD)
async def test_a_test_cancelled_in_any_phase_leaves_flags_and_record_in_order(phase):
    target, watcher = FakeTarget(), Watcher()
    task = asyncio.ensure_future(engine(target, watcher=watcher).run(plan()))
    watcher.when[phase] = lambda: task.cancel() and None

    with pytest.raises(asyncio.CancelledError):
        await task

    assert target.restored and target.opened == target.closed
    (result,) = watcher.results
    assert_ended_by_the_user(result, phase)
    assert result.phases[-1].phase is Phase.RECORD
    touched = BEFORE_RECORD.index(phase) >= BEFORE_RECORD.index(Phase.INJECT)
    assert (result.cleanup is not None and result.cleanup.verified) == touched


async def test_whoever_cancels_may_say_why_and_then_it_is_not_the_user():
    target, watcher = FakeTarget(), Watcher()
    task = asyncio.ensure_future(engine(target, watcher=watcher).run(plan()))
    watcher.when[Phase.IMPACT] = lambda: task.cancel("terminated by SIGTERM") and None

    with pytest.raises(asyncio.CancelledError):
        await task

    (result,) = watcher.results
    assert (result.status, result.blame) == (Status.ERROR, Blame.INFRASTRUCTURE)
    assert result.reason == "terminated by SIGTERM during impact" and target.restored


async def test_a_fault_found_when_the_target_closes_is_reported_as_active():
    target = FakeTarget()
    target.trouble.raising("target.close", RestoreFailed("the file system is read only"))

    result = await engine(target).run(plan())

    assert result.status is Status.ERROR and result.cleanup.failed
    assert "A FAULT MAY STILL BE ON: the file system is read only" in result.reason
    assert result.cleanup.recovery_command == "otel-diag heal"


async def test_a_leftover_that_cannot_be_healed_when_the_target_opens_is_reported_as_active():
    target = FakeTarget()
    target.trouble.raising("target.open", RestoreFailed("the leftover of pid 12 cannot be taken back"))

    result = await engine(target).run(plan())

    assert result.status is Status.ERROR and result.cleanup.failed
    assert "A FAULT MAY STILL BE ON: the leftover of pid 12" in result.reason


async def test_cancelling_again_during_the_undo_does_not_stop_it():
    target, watcher = FakeTarget(), Watcher()
    task = asyncio.ensure_future(engine(target, watcher=watcher).run(plan()))

    async def slow():
        for _ in range(5):
            task.cancel()
            await asyncio.sleep(0)

    watcher.when[Phase.INVESTIGATE] = lambda: task.cancel() and None
    target.trouble.at["flags.restore"] = slow
    with pytest.raises(asyncio.CancelledError):
        await task

    assert target.restored
    assert watcher.results[0].reason == "cancelled during investigate"


@pytest.mark.parametrize("interrupt", [KeyboardInterrupt, SystemExit])
@pytest.mark.parametrize(
    "point",
    ["target.open", "flags.document", "flags.apply", "flags.applied", "flags.served", "telemetry.query"],
)
def test_an_interrupt_is_passed_on_after_the_cleanup(point, interrupt):
    target, watcher = FakeTarget(), Watcher()
    target.trouble.raising(point, interrupt(), times=1)

    with pytest.raises(interrupt):
        asyncio.run(engine(target, watcher=watcher).run(plan()))

    assert target.restored and target.opened == target.closed
    (result,) = watcher.results
    assert (result.status, result.blame) == (Status.ERROR, Blame.USER)
    assert result.reason.startswith(f"cancelled ({interrupt.__name__}) during")


@pytest.fixture
def ctrl_c():
    """Ctrl-C as an interactive process has it: one started in the background (nohup) ignores it."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


@pytest.mark.usefixtures("ctrl_c")
@pytest.mark.parametrize("phase", BEFORE_RECORD)
def test_ctrl_c_in_any_phase_leaves_flags_and_record_in_order(phase):
    """The real signal: asyncio turns it into a cancellation, and that into KeyboardInterrupt."""
    target, watcher = FakeTarget(), Watcher()
    watcher.when[phase] = lambda: signal.raise_signal(signal.SIGINT)

    with pytest.raises(KeyboardInterrupt):
        asyncio.run(engine(target, watcher=watcher).run(plan()))

    assert target.restored and target.opened == target.closed
    (result,) = watcher.results
    assert_ended_by_the_user(result, phase)


def test_an_interrupt_in_the_middle_of_the_undo_does_not_leave_the_fault_on():
    target, watcher = FakeTarget(), Watcher()
    target.trouble.raising("flags.restore", KeyboardInterrupt(), times=1)

    with pytest.raises(KeyboardInterrupt):
        asyncio.run(engine(target, watcher=watcher).run(plan()))

    assert target.restored
    assert watcher.results[0].cleanup.verified
    assert watcher.results[0].status is Status.SCORED
    (note,) = watcher.results[0].notes
    assert note == "cancelled (KeyboardInterrupt) during undo, after the diagnosis had been judged"


def test_an_interrupt_while_reading_back_does_not_hide_the_proof():
    target, watcher = FakeTarget(), Watcher()
    watcher.when[Phase.UNDO] = lambda: target.trouble.raising("flags.served", KeyboardInterrupt(), 1) and None

    with pytest.raises(KeyboardInterrupt):
        asyncio.run(engine(target, watcher=watcher).run(plan()))

    assert watcher.results[0].cleanup.verified


async def test_reading_back_that_keeps_failing_reports_an_active_fault():
    target, watcher = FakeTarget(), Watcher()
    watcher.when[Phase.UNDO] = lambda: (
        target.trouble.raising("flags.served", ValueError("html, not json")) and None
    )

    result = await engine(target, watcher=watcher).run(plan())

    assert target.restored
    assert "reading back failed: ValueError: html, not json" in result.reason
    assert result.status is Status.ERROR


async def test_a_hanging_undo_that_was_given_up_can_be_cancelled():
    target = FakeTarget()
    target.trouble.hanging("flags.restore")

    await engine(target, settings=replace(QUICK, undo_timeout_s=0.02)).run(plan())

    assert await eventually_async(lambda: asyncio.all_tasks() == {asyncio.current_task()})


async def test_waiting_for_the_turn_can_be_cancelled():
    target, watcher = FakeTarget(exclusive=True), Watcher()
    target.trouble.hanging("flags.document")
    one = engine(target, watcher=watcher)
    first = asyncio.ensure_future(one.run(plan(session_id="a")))
    second = asyncio.ensure_future(one.run(plan(session_id="b")))
    assert await eventually_async(lambda: target.trouble.passed["flags.document"] and watcher.waits)
    for task in (second, first):
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task

    assert sorted(result.session_id for result in watcher.results) == ["a", "b"]
    assert target.opened == target.closed == 1


def test_what_is_neither_error_nor_interrupt_is_passed_on_too():
    target, watcher = FakeTarget(), Watcher()
    group = BaseExceptionGroup("both", [KeyboardInterrupt()])
    target.trouble.raising("flags.applied", group, times=1)

    with pytest.raises(BaseExceptionGroup):
        asyncio.run(engine(target, watcher=watcher).run(plan()))

    assert target.restored and len(watcher.results) == 1


POINTS = [
    "target.open",
    "target.close",
    "flags.document",
    "flags.apply",
    "flags.applied",
    "flags.restore",
    "flags.served",
    "telemetry.query",
    "telemetry.schema",
    "telemetry.latest",
    "telemetry.service_health",
    "telemetry.call_edges",
]
ERRORS = [
    ValueError,
    OSError,
    TimeoutError,
    FlagError,
    RestoreFailed,
    SchemaError,
    TelemetryUnavailable,
    BudgetExceeded,
    ConfigurationError,
    asyncio.CancelledError,
    KeyboardInterrupt,
    SystemExit,
]


@settings(max_examples=150, deadline=None, suppress_health_check=list(HealthCheck))
@given(
    point=st.sampled_from(POINTS),
    kind=st.sampled_from(ERRORS),
    skip=st.integers(0, 12),
    times=st.integers(1, 4),
    late=st.sampled_from([None, *Phase]),
)
def test_any_failure_anywhere_restores_the_flags_and_keeps_one_result(point, kind, skip, times, late):
    target, watcher = FakeTarget(), Watcher()
    left = {"skip": skip, "times": times}

    def act():
        if left["skip"]:
            left["skip"] -= 1
        elif left["times"]:
            left["times"] -= 1
            raise kind("trouble")

    if late is None:
        target.trouble.at[point] = act
    else:
        watcher.when[late] = lambda: target.trouble.at.update({point: act})
    quick = replace(QUICK, undo_attempts=2, cancel_grace_s=0.01)
    try:
        returned = asyncio.run(engine(target, watcher=watcher, settings=quick).run(plan()))
    except (asyncio.CancelledError, KeyboardInterrupt, SystemExit):
        returned = None

    (result,) = watcher.results
    assert returned is None or returned == result
    assert result.phases[-1].phase is Phase.RECORD
    proven = target.restored and (result.cleanup is None or result.cleanup.verified)
    assert proven or (result.status is Status.ERROR and "MAY STILL BE ON" in result.reason)
    # The undo is tried twice: only a restore that fails more often may leave the fault on.
    assert target.restored or (point == "flags.restore" and times >= 2)
    assert target.opened == target.closed
