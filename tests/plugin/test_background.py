"""Work in the background is awaitable from any loop, and gives its cleanup time when given up."""

import asyncio
import threading

import pytest

from pytest_otel_diag.plugin.background import Background


@pytest.fixture
def background():
    background = Background()
    yield background
    background.close()


async def double(value: int) -> int:
    await asyncio.sleep(0)
    return 2 * value


def test_result_waits_in_a_sync_caller(background: Background) -> None:
    assert background.run(double(21)) == 42


async def test_it_can_be_awaited_in_another_loop(background: Background) -> None:
    pending = background.submit(double(4))
    assert await pending == 8
    assert await pending == 8


def test_exceptions_reach_the_caller(background: Background) -> None:
    async def fail() -> None:
        raise LookupError("gone")

    with pytest.raises(LookupError, match="gone"):
        background.run(fail())


def test_a_keyboard_interrupt_inside_does_not_kill_the_thread(background: Background) -> None:
    async def interrupt() -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        background.run(interrupt())
    assert background.run(double(1)) == 2


async def test_a_cancelled_waiter_leaves_only_after_the_cleanup(background: Background) -> None:
    started, cleaned = threading.Event(), threading.Event()

    async def work() -> None:
        started.set()
        try:
            await asyncio.sleep(60)
        finally:
            await asyncio.sleep(0.05)
            cleaned.set()

    pending = background.submit(work())

    async def wait() -> None:
        await pending

    waiter = asyncio.create_task(wait())
    await asyncio.to_thread(started.wait, 5)
    waiter.cancel()
    with pytest.raises(asyncio.CancelledError):
        await waiter
    assert cleaned.is_set()


def test_cancel_is_harmless_after_the_end(background: Background) -> None:
    pending = background.submit(double(3))
    assert pending.result() == 6
    pending.cancel()
    assert pending.result() == 6
