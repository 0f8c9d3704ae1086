"""Runs an event loop in a separate thread, so that sessions work alike under sync and async tests."""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import Callable, Coroutine, Generator
from concurrent.futures import Future, wait
from contextlib import suppress
from typing import Any, Generic, TypeVar

from pytest_otel_diag.daemon import start_thread
from pytest_otel_diag.errors import OtelDiagError
from pytest_otel_diag.plugin.termination import TERMINATION

T = TypeVar("T")

_LOOK_S = 1.0
"""How often a waiting caller checks that the loop still runs."""

CLEANUP_TIMEOUT_S = 120.0
"""How long an interrupted session may take to undo its fault before the interrupt goes on."""


class Pending(Generic[T]):
    """A coroutine that runs on the loop's thread: ``await`` it in any loop, or call :meth:`result`.

    When its caller is cancelled or interrupted, the coroutine is cancelled and its cleanup runs to the end.
    """

    def __init__(
        self,
        coroutine: Coroutine[Any, Any, T],
        loop: asyncio.AbstractEventLoop,
        alive: Callable[[], bool] = lambda: True,
    ) -> None:
        self._loop = loop
        self._alive = alive
        self._outcome: Future[T] = Future()
        self._finished = threading.Event()
        self._task: asyncio.Task[None] | None = None
        self._cleanup_aborted = False
        loop.call_soon_threadsafe(self._start, coroutine)

    def _start(self, coroutine: Coroutine[Any, Any, T]) -> None:
        self._task = self._loop.create_task(self._run(coroutine))

    async def _run(self, coroutine: Coroutine[Any, Any, T]) -> None:
        try:
            value = await coroutine
        except BaseException as error:  # raised in the caller that waits, cancellation included
            if not self._outcome.cancelled():
                self._outcome.set_exception(error)
        else:
            if not self._outcome.cancelled():
                self._outcome.set_result(value)
        finally:
            self._finished.set()

    def cancel(self) -> None:
        """Cancel it unless it has ended, and wait until its cleanup is done.

        An interrupt during that wait aborts it, also for later calls.
        """
        if self._finished.is_set() or self._cleanup_aborted:
            return
        why = TERMINATION.reason or None
        self._loop.call_soon_threadsafe(lambda: self._task.cancel(why) if self._task else None)
        try:
            deadline_s = time.monotonic() + CLEANUP_TIMEOUT_S
            while not self._finished.wait(_LOOK_S) and self._alive() and time.monotonic() < deadline_s:
                pass
        except KeyboardInterrupt:
            self._cleanup_aborted = True
            raise

    def result(self) -> T:
        """Wait for the outcome; on KeyboardInterrupt cancel, wait for the cleanup and raise it again.

        Raises OtelDiagError when the loop that ran it is gone.
        """
        try:
            while not wait([self._outcome], timeout=_LOOK_S).done:
                self._require_loop()
            return self._outcome.result()
        except KeyboardInterrupt:
            TERMINATION.ending()
            self.cancel()
            raise

    def __await__(self) -> Generator[Any, None, T]:
        return self._wait().__await__()

    async def _wait(self) -> T:
        outcome = asyncio.wrap_future(self._outcome)
        try:
            while not (await asyncio.wait([outcome], timeout=_LOOK_S))[0]:
                self._require_loop()
            return outcome.result()
        except asyncio.CancelledError:
            outcome.add_done_callback(_retrieve)
            await asyncio.to_thread(self.cancel)
            raise

    def _require_loop(self) -> None:
        if not (self._alive() or self._outcome.done()):
            raise OtelDiagError(
                "the event loop that runs sessions is gone: code in this process (an analyzer?) closed its "
                "files or ended its thread; the session's guardian restores the flags"
            )


def _retrieve(outcome: asyncio.Future[Any]) -> None:
    if not outcome.cancelled():  # asyncio logs exceptions that were never retrieved
        outcome.exception()


class LoopThread:
    """A daemon thread with a running event loop."""

    def __init__(self) -> None:
        self._loop = asyncio.new_event_loop()
        self._closing = False
        self._thread = start_thread(self._serve, "otel-diag")

    def _serve(self) -> None:
        """Run the loop; an exit raised into this thread from outside does not end its sessions."""
        while not self._closing:
            with suppress(SystemExit, KeyboardInterrupt):
                self._loop.run_forever()

    def submit(self, coroutine: Coroutine[Any, Any, T]) -> Pending[T]:
        """Start the coroutine."""
        return Pending(coroutine, self._loop, self._thread.is_alive)

    def run(self, coroutine: Coroutine[Any, Any, T]) -> T:
        """Run the coroutine to its end; call this from another thread only."""
        return self.submit(coroutine).result()

    def close(self) -> None:
        """Stop the loop and the thread."""
        self._closing = True
        if not self._thread.is_alive():
            return
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join(timeout=5)
        if not self._thread.is_alive():
            self._loop.close()
