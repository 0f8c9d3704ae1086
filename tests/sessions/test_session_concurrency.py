"""Sessions on a system that others use too, and that outlives them: waiting, leaving on, what stays."""

from __future__ import annotations

import asyncio
import threading
from dataclasses import replace

import pytest

from pytest_otel_diag.errors import ConfigurationError, Occupied, RestoreFailed
from pytest_otel_diag.model.session import Blame, ImpactReason, Phase, Status
from pytest_otel_diag.ports import report_waiting
from pytest_otel_diag.sessions.concurrency import state_of
from pytest_otel_diag.sessions.settings import WallTime
from tests.sessions.session_fakes import QUICK, Behaviour, FakeTarget, Watcher, engine, plan, scenario, shop
from tests.support.deadlines import LoopClock, deadline_s, eventually_async

SETUP = replace(QUICK, setup_only=True)
LEAVE = replace(QUICK, skip_cleanup=True)


class Opening(FakeTarget):
    """A target whose opening goes through *steps*, and whose session gets *fields*."""

    def __init__(self, steps=(), fields=None, **options) -> None:
        super().__init__(**options)
        self.steps = list(steps)
        self.fields = fields or {}

    def open(self, scenario, session_id):
        return _Opened(self, super().open(scenario, session_id))


class _Opened:
    def __init__(self, target, inner) -> None:
        self._target, self._inner = target, inner

    async def __aenter__(self):
        for step in self._target.steps:
            await step()
        return replace(await self._inner.__aenter__(), **self._target.fields)

    async def __aexit__(self, *error):
        return await self._inner.__aexit__(*error)


async def test_setup_only_sets_the_fault_proves_it_and_stops():
    target, watcher = FakeTarget(), Watcher()
    result = await engine(target, watcher=watcher, settings=SETUP).run(plan())
    assert (result.status, result.blame, result.diagnosis) == (Status.SKIPPED, None, None)
    assert result.reason.startswith("setup only: paymentFailure=50% is served; VISIBLE: payment fails ")
    assert target.restored and result.witnesses[0].confirmed and result.windows.incident is not None
    assert not {Phase.INVESTIGATE, Phase.JUDGE} & {record.phase for record in result.phases}


async def test_setup_only_says_what_it_found_where_nothing_is_visible():
    target = FakeTarget(services={**shop(), "payment": Behaviour(rate=8)})
    result = await engine(target, settings=SETUP).run(plan())
    assert result.status is Status.SKIPPED and "NO_EFFECT: " in result.reason
    quiet = await engine(FakeTarget(), settings=SETUP).run(plan(scenario()))
    assert quiet.reason == "setup only: no fault is served; no impact to wait for; no analysis was made"


async def test_a_fault_that_is_to_stay_on_is_left_on_and_reported():
    target = Opening(exclusive=True, fields={"recovery_command": "heal it"})
    result = await engine(target, settings=LEAVE).run(plan())
    assert result.status is Status.SCORED
    assert target.flags.state["paymentFailure"] == "50%" and not target.trouble.passed["flags.restore"]
    cleanup = result.cleanup
    assert (
        cleanup.left_on == ("paymentFailure=50%",)
        and cleanup.recovery_command == "heal it"
        and not cleanup.failed
    )
    assert "left on, as requested: paymentFailure=50%; restore it with: heal it" in cleanup.detail
    states = {record.phase: record.outcome for record in result.phases}
    assert states[Phase.UNDO] == states[Phase.RECOVER] == "skipped"

    after = await engine(target, settings=LEAVE).run(plan())
    assert (
        after.status is Status.INVALID
        and "a fault was on before the session: paymentFailure=50%" in after.reason
    )
    assert after.cleanup is None, "the next session touched nothing"


async def test_nothing_is_left_on_in_a_system_of_the_session_s_own_nor_where_nothing_is_on():
    target = FakeTarget()
    assert (await engine(target, settings=LEAVE).run(plan())).cleanup.verified and target.restored
    shared = FakeTarget(exclusive=True)
    shared.trouble.raising("flags.apply", ConfigurationError("no"))
    assert (await engine(shared, settings=LEAVE).run(plan())).cleanup.verified


async def test_a_failed_undo_names_the_command_that_mends_it():
    target = FakeTarget()
    target.trouble.raising("flags.restore", RestoreFailed("disk full"))
    result = await engine(target).run(plan())
    assert result.cleanup.failed and result.cleanup.recovery_command == "otel-diag heal"
    assert "disk full. Take it back with: otel-diag heal, or by hand" in result.reason


async def test_waiting_counts_against_no_limit_and_is_reported():
    async def held():
        report_waiting("held by alice@host, pid 12")
        await clock.skip(90)
        report_waiting("")

    clock, target, watcher = LoopClock(), Opening([held]), Watcher()
    settings = replace(QUICK, session_timeout_s=60, wall=WallTime(monotonic=lambda: clock.ahead_s))
    result = await engine(target, watcher=watcher, settings=settings).run(plan(scenario()))
    assert result.status is Status.SCORED, result.reason
    assert watcher.waits == ["held by alice@host, pid 12", ""]
    (note,) = result.notes
    assert note == "waited 90.0 s: held by alice@host, pid 12"
    preflight = next(record for record in result.phases if record.phase is Phase.PREFLIGHT)
    assert preflight.wall_s == result.wall_s == 0


async def test_the_limit_holds_again_after_the_wait():
    async def held():
        report_waiting("bob")
        report_waiting("carol")
        report_waiting("")
        await clock.hang(61)

    clock, target, watcher = LoopClock(), Opening([held]), Watcher()
    settings = replace(QUICK, session_timeout_s=60)
    result = await engine(target, watcher=watcher, settings=settings).run(plan())
    assert result.status is Status.ERROR and "took longer than 60 s" in result.reason
    assert watcher.waits == ["bob", "carol", ""]


async def test_who_holds_the_target_too_long_is_named():
    async def held():
        report_waiting("bob")
        raise Occupied("held by bob@there since 10:02")

    watcher = Watcher()
    result = await engine(Opening([held]), watcher=watcher).run(plan())
    assert (result.status, result.blame) == (Status.ERROR, Blame.INFRASTRUCTURE)
    assert "held by bob@there since 10:02" in result.reason
    assert watcher.waits == ["bob", ""]


async def test_engines_over_one_exclusive_target_take_turns_and_say_so():
    target, watcher = FakeTarget(exclusive=True), Watcher()
    both = [engine(target, watcher=watcher).run(plan(session_id=name)) for name in "ab"]
    results = await asyncio.gather(*both)
    assert [result.status for result in results] == [Status.SCORED] * 2
    assert "another session of this process" in watcher.waits
    spans = sorted((r.phases[0].start_ns, r.phases[-1].end_ns) for r in results)
    assert spans[0][1] <= spans[1][0]


async def test_as_many_sessions_side_by_side_as_allowed():
    target, watcher, running, most, both = FakeTarget(), Watcher(), [0], [0], threading.Event()

    async def analyzer(investigation):
        running[0] += 1
        most[0] = max(most[0], running[0])
        if running[0] == 2:
            both.set()
        assert await asyncio.to_thread(both.wait, deadline_s(10))
        assert await eventually_async(lambda: len([text for text in watcher.waits if text]) == 3)
        running[0] -= 1
        return {"detected": False}

    limited = replace(QUICK, max_sessions=2)
    one = engine(target, analyzer, watcher=watcher, settings=limited)
    await asyncio.gather(*(one.run(plan(scenario(), session_id=str(n))) for n in range(5)))
    assert most[0] == 2


def test_targets_of_one_identity_share_their_state():
    class Delegating(FakeTarget):
        @property
        def identity(self):
            return target.identity

    target = FakeTarget()

    assert state_of(Delegating()) is state_of(target)
    assert state_of(FakeTarget()) is not state_of(target)


async def test_what_stays_of_a_fault_is_asked_once_it_is_gone():
    asked = []

    async def residue(faults):
        asked.extend(map(str, faults))
        assert target.restored
        return ("recommendation keeps its cache, restarted",)

    target = Opening(fields={"residue": residue})
    result = await engine(target).run(plan())
    assert asked == ["paymentFailure=50%"]
    assert result.cleanup.residue == ("recommendation keeps its cache, restarted",)
    assert result.cleanup.recovered


async def test_residue_that_cannot_be_asked_costs_nothing_and_is_not_asked_after_a_failed_undo():
    async def fails(faults):
        raise OSError("no docker")

    async def hangs(faults):
        await asyncio.Event().wait()

    result = await engine(Opening(fields={"residue": fails})).run(plan())
    assert (
        result.status is Status.SCORED and "not determined: OSError: no docker" in result.cleanup.residue[0]
    )
    brisk = replace(QUICK, residue_timeout_s=0.02)
    result = await engine(Opening(fields={"residue": hangs}), settings=brisk).run(plan())
    assert "not determined within 0.02 s" in result.cleanup.residue[0]
    broken = Opening(fields={"residue": fails})
    broken.trouble.raising("flags.restore", RestoreFailed("gone"))
    assert (await engine(broken).run(plan())).cleanup.residue == ()


async def test_a_recording_is_made_while_the_target_is_open_and_the_flags_are_back():
    seen = []

    async def capture(session, result):
        assert target.restored and target.closed == 0
        assert await session.telemetry.latest()
        seen.append(result)

    target = FakeTarget()
    result = await engine(target, settings=replace(QUICK, capture=capture)).run(plan())
    (so_far,) = seen
    assert so_far.session_id == result.session_id and so_far.exhibits == result.exhibits
    assert so_far.verdict == result.verdict and so_far.verdict is not None


@pytest.mark.parametrize(
    ("trouble", "note"), [(OSError("disk full"), "recording: OSError: disk full"), (None, "not done within")]
)
async def test_a_recording_that_fails_is_noted(trouble, note):
    async def capture(session, result):
        if trouble is not None:
            raise trouble
        await asyncio.Event().wait()

    settings = replace(QUICK, capture=capture, capture_timeout_s=0.02 if trouble is None else 60)
    result = await engine(FakeTarget(), settings=settings).run(plan())
    assert result.status is Status.SCORED and note in result.notes[0]


async def test_a_target_that_stays_sick_refuses_the_next_session_until_it_is_well():
    sick = Behaviour(rate=8, flag="paymentFailure", errors_on=0.5)
    target = FakeTarget(exclusive=True, services={**shop(), "payment": sick})
    run = engine(target)
    watcher = Watcher()
    watcher.when[Phase.UNDO] = lambda: setattr(sick, "errors", 0.5)
    first = await engine(target, watcher=watcher).run(plan())
    assert first.status is Status.SCORED and first.cleanup.recovered is False

    second = await run.run(plan(session_id="next"))
    assert (second.status, second.blame) == (Status.ERROR, Blame.INFRASTRUCTURE)
    assert (
        "has not recovered from paymentFailure=50% of session paymentFailure-1: payment fails"
        in second.reason
    )
    assert second.cleanup is None, "nothing was touched"

    sick.errors = 0.0
    third = await run.run(plan(session_id="well"))
    assert third.status is Status.SCORED
    assert (await run.run(plan(session_id="again"))).status is Status.SCORED


async def test_a_system_of_the_session_s_own_leaves_nothing_to_the_next():
    sick = Behaviour(rate=8, flag="paymentFailure", errors_on=0.5)
    target, watcher = FakeTarget(services={**shop(), "payment": sick}), Watcher()
    watcher.when[Phase.UNDO] = lambda: setattr(sick, "errors", 0.15)
    assert (await engine(target, watcher=watcher).run(plan())).cleanup.recovered is False
    watcher.when.clear()
    later = await engine(target, watcher=watcher).run(plan())
    assert later.impact.reason is ImpactReason.VISIBLE


async def test_a_target_says_how_long_its_undo_may_take():
    clock, short = LoopClock(), replace(QUICK, undo_timeout_s=30)

    async def slow() -> None:
        await clock.skip(60)

    results = []
    for limit_s in (0.0, 600.0):
        target = Opening(fields={"undo_timeout_s": limit_s})
        target.trouble.at["flags.restore"] = slow
        results.append(await engine(target, settings=short).run(plan()))
    assert [result.cleanup is not None and result.cleanup.failed for result in results] == [True, False]
