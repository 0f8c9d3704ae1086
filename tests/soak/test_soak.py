"""A thousand sessions in a row leave nothing behind: memory, files, threads, databases, flags.

In virtual time, each with another way to end. The simulated shop is heavier, so there are fewer of it.
"""

from __future__ import annotations

import asyncio
import gc
import os
import threading
from pathlib import Path

import pytest

from pytest_otel_diag import catalog
from pytest_otel_diag.errors import FlagError
from pytest_otel_diag.model.diagnosis import Diagnosis
from pytest_otel_diag.model.session import Status
from pytest_otel_diag.ports import Investigation
from pytest_otel_diag.scoring.judge import judge
from pytest_otel_diag.sessions import SessionEngine, SessionPlan, as_analyzer
from pytest_otel_diag.targets.replay.recording_store import MEMORY_DSN, shared_store
from pytest_otel_diag.targets.shop.options import ShopOptions
from pytest_otel_diag.targets.shop.target import ShopTarget
from tests.sessions.session_fakes import QUICK, FakeTarget, Watcher, engine, plan, scenario

SESSIONS = 1000
WARM = 200
COLLECTED = 100
"""Sessions between collections; otherwise the heap grows by what happens to wait for the collector."""

KIB_A_SESSION = 2.0
"""What a session may keep for good; caches fill and allocators keep pages, leaks of a record are 20 kB."""

SHORT = {"baseline_s": 30, "impact_timeout_s": 20, "observe_s": 10, "recover_timeout_s": 20}


def rss_kib() -> float:
    gc.collect()
    pages = int(Path("/proc/self/statm").read_text(encoding="ascii").split()[1])
    return pages * os.sysconf("SC_PAGESIZE") / 1024


def open_files() -> int:
    return len(list(Path("/proc/self/fd").iterdir()))


async def healthy(_investigation: Investigation) -> Diagnosis:
    return Diagnosis(detected=False)


async def breaks(_investigation: Investigation) -> Diagnosis:
    raise LookupError("no idea")


def troubled(number: int) -> FakeTarget:
    """Return a system of which every fourth has one trouble or another."""
    target = FakeTarget()
    if number % 4 == 1:
        target.flags.served_instead["paymentFailure"] = "off"
    if number % 4 == 2:
        target.trouble.raising("flags.applied", FlagError("refused"), times=1)
    return target


async def one(number: int) -> Status:
    case = scenario(*(["paymentFailure=50%"] if number % 5 else []), timing=SHORT)
    target, watcher = troubled(number), Watcher()
    analyzer = breaks if number % 4 == 3 else healthy
    task = asyncio.ensure_future(engine(target, analyzer, watcher=watcher).run(plan(case)))
    if number % 10 == 7:
        await asyncio.sleep(0)
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
    else:
        await task
    assert target.restored and target.opened == target.closed and len(watcher.results) == 1
    return watcher.results[0].status


@pytest.mark.skipif(not Path("/proc/self/statm").exists(), reason="needs /proc, which Linux has")
async def test_a_thousand_sessions_in_a_row_leave_nothing_behind():
    seen: dict[int, tuple[float, int, int]] = {}
    statuses = set()
    for number in range(1, SESSIONS + 1):
        statuses.add(await one(number))
        if number % COLLECTED == 0:
            gc.collect()
        if number in (WARM, SESSIONS):
            seen[number] = (rss_kib(), open_files(), threading.active_count())
    grown_kib = (seen[SESSIONS][0] - seen[WARM][0]) / (SESSIONS - WARM)
    assert grown_kib < KIB_A_SESSION, f"{grown_kib:.2f} KiB a session: {seen}"
    assert seen[SESSIONS][1] <= seen[WARM][1] + 2, seen
    assert seen[SESSIONS][2] <= seen[WARM][2] + 1, seen
    assert {Status.SCORED, Status.INVALID, Status.ERROR} <= statuses
    assert len(asyncio.all_tasks()) == 1


@pytest.mark.skipif(not Path("/proc/self/statm").exists(), reason="needs /proc, which Linux has")
async def test_one_system_for_a_thousand_sessions_ends_as_it_began():
    target = FakeTarget(exclusive=True)
    target.flags.history = history = Bounded(target.flags.history)
    run = engine(target, healthy)
    before = 0.0
    case = scenario("adFailure", timing={**SHORT, "recover_timeout_s": 0})
    for number in range(1, SESSIONS + 1):
        result = await run.run(plan(case, session_id=str(number)))
        assert result.status in (Status.SCORED, Status.INVALID)
        if number % COLLECTED == 0:
            gc.collect()
        if number == WARM:
            before = rss_kib()
    assert target.restored and len(history) <= Bounded.MOST
    assert (rss_kib() - before) / (SESSIONS - WARM) < KIB_A_SESSION


class Bounded(list):  # type: ignore[type-arg]  # a fake that records every change would itself grow
    """The latest entries only."""

    MOST = 50

    def append(self, item: object) -> None:
        super().append(item)
        del self[1 : max(1, len(self) - self.MOST + 1)]


async def in_the_shop(run: SessionEngine, number: int) -> None:
    known = catalog.scenarios("3.0")
    case = known[number % len(known)]
    timing = case.timing.model_copy(update={**SHORT, "observe_s": 20})
    case = case.model_copy(update={"timing": timing})
    result = await run.run(SessionPlan(scenario=case, session_id=str(number), run_id="soak"))
    assert result.cleanup is None or result.cleanup.verified, result.reason


SHOP_SESSIONS = 12
SHOP_WARM = 6


@pytest.mark.skipif(not Path("/proc/self/statm").exists(), reason="needs /proc, which Linux has")
async def test_sessions_in_the_shop_leave_no_database_no_file_and_no_flag(tmp_path):
    seen: dict[int, tuple[float, int, int]] = {}
    with shared_store((MEMORY_DSN,), tmp_path) as held:
        before = set(held.store.databases())
        target = ShopTarget(ShopOptions.parse("users=2,reference_s=20"), cache_dir=tmp_path)
        run = SessionEngine(target, as_analyzer(healthy), judge, settings=QUICK)
        for number in range(1, SHOP_SESSIONS + 1):
            await in_the_shop(run, number)
            if number in (SHOP_WARM, SHOP_SESSIONS):
                seen[number] = (rss_kib(), open_files(), threading.active_count())
        left = set(held.store.databases()) - before
        target.close()
    assert not left
    assert seen[SHOP_SESSIONS][1] <= seen[SHOP_WARM][1] + 4, seen
    assert seen[SHOP_SESSIONS][2] <= seen[SHOP_WARM][2] + 4, seen
    grown_mib = (seen[SHOP_SESSIONS][0] - seen[SHOP_WARM][0]) / 1024
    assert grown_mib < 150, f"{grown_mib:.0f} MiB over {SHOP_SESSIONS - SHOP_WARM} sessions: {seen}"
