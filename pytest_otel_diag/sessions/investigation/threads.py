"""Runs third-party code in daemon threads, and several awaitables side by side."""

from __future__ import annotations

import asyncio
import contextvars
from collections.abc import Callable, Coroutine
from concurrent.futures import Future, InvalidStateError
from contextlib import suppress
from typing import Any, TypeVar

from pytest_otel_diag.daemon import start_thread
from pytest_otel_diag.errors import OtelDiagError

T = TypeVar("T")
U = TypeVar("U")


class ForeignExit(OtelDiagError):
    """Third-party code raised SystemExit or the like; in its thread that is an ordinary failure."""


def start_daemon(call: Callable[[], T], name: str) -> Future[T]:
    """Run *call* in a new daemon thread and return its future.

    Not in a pool: the interpreter joins the threads of pools when it exits, so a busy loop would keep the
    whole test run from ending. *call* sees the context variables of the caller.
    """
    future: Future[T] = Future()
    context = contextvars.copy_context()

    def work() -> None:
        try:
            result = context.run(call)
        except Exception as error:
            _settle(future.set_exception, error)
        except BaseException as error:  # SystemExit of third-party code must not end this process
            exit_ = ForeignExit(f"{type(error).__name__}: {error}").with_traceback(error.__traceback__)
            _settle(future.set_exception, exit_)
        else:
            _settle(future.set_result, result)

    start_thread(work, name)
    return future


def _settle(setter: Callable[[T], None], value: T) -> None:
    with suppress(InvalidStateError):  # cancelled meanwhile: the value is not needed
        setter(value)


class _Interrupted(Exception):
    """Carries KeyboardInterrupt or SystemExit out of a task: asyncio would tear down its loop at once."""

    def __init__(self, interrupt: BaseException) -> None:
        super().__init__(str(interrupt))
        self.interrupt = interrupt


async def together(*calls: Callable[[], Coroutine[Any, Any, T]]) -> list[T]:
    """Return the results in order; the first error cancels the other calls and is raised."""
    tasks = [asyncio.ensure_future(_carrying(call)) for call in calls]
    try:
        return await asyncio.gather(*tasks)
    except _Interrupted as carrier:
        raise carrier.interrupt from None
    finally:  # no call outlives this function
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


async def both(
    one: Callable[[], Coroutine[Any, Any, T]], other: Callable[[], Coroutine[Any, Any, U]]
) -> tuple[T, U]:
    """Return both results; :func:`together` for results of two types."""
    calls: tuple[Callable[[], Coroutine[Any, Any, Any]], ...] = (one, other)
    first, second = await together(*calls)
    return first, second


async def _carrying(call: Callable[[], Coroutine[Any, Any, T]]) -> T:
    try:
        return await call()
    except (KeyboardInterrupt, SystemExit) as interrupt:
        raise _Interrupted(interrupt) from None


async def in_daemon(call: Callable[[], T], name: str) -> T:
    """Await *call* in a daemon thread; cancelling the wait leaves the thread behind."""
    return await asyncio.wrap_future(start_daemon(call, name))
