"""Coroutines on the loop's thread can be awaited from any loop, and finish their cleanup when cancelled."""

import asyncio
import ctypes
import threading
from contextlib import suppress

import pytest

from pytest_otel_diag.errors import OtelDiagError
from pytest_otel_diag.plugin.loop_thread import LoopThread
from tests.support.deadlines import deadline_s


@pytest.fixture
def background():
    background = LoopThread()
    yield background
    background.close()


async def double(value: int) -> int:
    await asyncio.sleep(0)
    return 2 * value


def test_result_waits_in_a_sync_caller(background: LoopThread) -> None:
    assert background.run(double(21)) == 42


async def test_it_can_be_awaited_in_another_loop(background: LoopThread) -> None:
    pending = background.submit(double(4))
    assert await pending == 8
    assert await pending == 8


def test_exceptions_reach_the_caller(background: LoopThread) -> None:
    async def fail() -> None:
        raise LookupError("gone")

    with pytest.raises(LookupError, match="gone"):
        background.run(fail())


def test_a_keyboard_interrupt_inside_does_not_kill_the_thread(background: LoopThread) -> None:
    async def interrupt() -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        background.run(interrupt())
    assert background.run(double(1)) == 2


async def test_a_cancelled_waiter_leaves_only_after_the_cleanup(background: LoopThread) -> None:
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
    await asyncio.to_thread(started.wait, deadline_s(5))
    waiter.cancel()
    with pytest.raises(asyncio.CancelledError):
        await waiter
    assert cleaned.is_set()


def test_cancel_is_harmless_after_the_end(background: LoopThread) -> None:
    pending = background.submit(double(3))
    assert pending.result() == 6
    pending.cancel()
    assert pending.result() == 6


def _raise_in(background: LoopThread, kind: type[BaseException]) -> None:
    """Raise in the thread of the loop, and wake the loop so that the exception is raised."""
    ident = ctypes.c_ulong(background._thread.ident or 0)
    assert ctypes.pythonapi.PyThreadState_SetAsyncExc(ident, ctypes.py_object(kind)) == 1
    background._loop.call_soon_threadsafe(lambda: None)


def test_an_exit_raised_in_the_thread_does_not_end_its_coroutines(background: LoopThread) -> None:
    async def work() -> str:
        await asyncio.sleep(0.5)
        return "done"

    pending = background.submit(work())
    _raise_in(background, SystemExit)
    assert pending.result() == "done"


@pytest.mark.filterwarnings("ignore::pytest.PytestUnhandledThreadExceptionWarning")
@pytest.mark.parametrize("sync", [True, False])
def test_waiting_for_a_loop_that_is_gone_fails(background: LoopThread, sync: bool) -> None:
    pending = background.submit(asyncio.sleep(60))
    while background._thread.is_alive():  # one that is raised inside a callback does not end the loop
        with suppress(AssertionError, RuntimeError):  # the thread ended in between
            _raise_in(background, OSError)
        background._thread.join(0.1)

    async def awaited() -> None:
        await pending

    with pytest.raises(OtelDiagError, match="the event loop that runs sessions is gone"):
        pending.result() if sync else asyncio.run(awaited())
    pending.cancel()
