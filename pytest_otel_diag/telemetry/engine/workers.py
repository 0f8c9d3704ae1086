"""Blocking calls on threads, so that the event loop never waits for the engine."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from concurrent.futures import Future
from functools import partial
from typing import TypeVar
from weakref import WeakKeyDictionary

from pytest_otel_diag.daemon import start_thread
from pytest_otel_diag.errors import QueryLimitExceeded, TelemetryError
from pytest_otel_diag.telemetry.engine.abandoned import abandon

T = TypeVar("T")

GRACE_S = 5.0


class Workers:
    """Runs functions on daemon threads, at most *concurrency* at a time per event loop.

    The engine cannot be interrupted, so a call that outlives its deadline, or whose awaiting task is
    cancelled, is left to end by itself: its place becomes free at once, its client returns to the
    pool when the engine lets go of it, and it never keeps the process alive; see :mod:`.abandoned`.
    """

    def __init__(self, concurrency: int = 4) -> None:
        self._concurrency = concurrency
        self._places: WeakKeyDictionary[asyncio.AbstractEventLoop, asyncio.Semaphore] = WeakKeyDictionary()

    async def run(self, function: Callable[[], T], *, time_s: float) -> T:
        """Return what *function* returns; raises QueryLimitExceeded *time_s* (plus grace) after its start.

        A TelemetryError of the function comes without the driver's exceptions behind it.
        """
        loop = asyncio.get_running_loop()
        place = self._places.setdefault(loop, asyncio.Semaphore(self._concurrency))
        async with place:
            outcome: Future[T] = Future()
            start_thread(partial(_work, function, outcome), "otel-diag-query")
            try:
                return await asyncio.wait_for(asyncio.wrap_future(outcome), time_s + GRACE_S)
            except TelemetryError as error:
                raise error from None  # the message holds what the engine said
            except TimeoutError:
                raise QueryLimitExceeded(
                    f"the store did not answer within {time_s:g} s (and {GRACE_S:g} s of grace); the call "
                    "was abandoned: narrow the window, aggregate earlier, or raise QueryLimits.time_s"
                ) from None
            finally:
                if not outcome.done():
                    abandon(outcome)


def _work(function: Callable[[], T], outcome: Future[T]) -> None:
    if not outcome.set_running_or_notify_cancel():
        return
    try:
        result = function()
    except BaseException as error:  # everything travels to the waiting task
        outcome.set_exception(error)
    else:
        outcome.set_result(result)
