"""Clocks: virtual time moves only by sleeping, wall time by itself."""

import asyncio
import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pytest_otel_diag.errors import ConfigurationError
from pytest_otel_diag.model.windows import seconds_to_ns
from pytest_otel_diag.targets.clock import VirtualClock, WallClock


@given(st.lists(st.floats(0, 1e6), max_size=20))
def test_virtual_time_is_the_sum_of_the_sleeps(sleeps):
    clock = VirtualClock(17)

    async def run():
        for seconds in sleeps:
            await clock.sleep(seconds)

    asyncio.run(run())
    assert clock.now() == 17 + sum(seconds_to_ns(seconds) for seconds in sleeps)


async def test_virtual_time_never_goes_back():
    clock = VirtualClock(100)
    await clock.sleep_until(150)
    await clock.sleep_until(120)
    assert clock.now() == 150


async def test_other_tasks_run_while_one_sleeps_in_virtual_time():
    clock, seen = VirtualClock(0), []

    async def other():
        seen.append(clock.now())

    task = asyncio.create_task(other())
    await clock.sleep(5)
    assert seen == [5_000_000_000]
    await task


@pytest.mark.parametrize("seconds", [-1, float("nan"), float("inf")])
@pytest.mark.parametrize("clock", [VirtualClock(0), WallClock()])
async def test_time_can_only_pass_forward_and_by_a_number(clock, seconds):
    with pytest.raises(ConfigurationError, match="cannot sleep"):
        await clock.sleep(seconds)


async def test_wall_time_is_the_machines():
    before = time.time_ns()
    clock = WallClock()
    await clock.sleep(0.001)
    assert before + 1_000_000 <= clock.now() <= time.time_ns()
