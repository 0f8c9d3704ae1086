"""Foreign code in threads that nobody has to wait for; waits that run side by side."""

from __future__ import annotations

import asyncio
import contextvars
import threading
from collections.abc import Callable, Coroutine
from concurrent.futures import Future, InvalidStateError
from contextlib import suppress
from typing import Any, TypeVar

from pytest_otel_diag.errors import OtelDiagError

T = TypeVar("T")
U = TypeVar("U")


class ForeignExit(OtelDiagError):
    """Foreign code raised SystemExit or the like; in its thread that is an ordinary failure."""


def start_daemon(call: Callable[[], T], name: str) -> Future[T]:
    """Run *call* in a daemon thread of its own and return its future.

    Not a pool: the interpreter joins pool threads when it exits, so one busy loop in there would
    keep the whole test run from ending.
    """
    future: Future[T] = Future()
    context = contextvars.copy_context()

    def work() -> None:
        try:
            result = context.run(call)
        except Exception as error:
            _settle(future.set_exception, error)
        except BaseException as error:  # SystemExit of foreign code must not look like ours
            exit_ = ForeignExit(f"{type(error).__name__}: {error}").with_traceback(error.__traceback__)
            _settle(future.set_exception, exit_)
        else:
            _settle(future.set_result, result)

    threading.Thread(target=work, name=name, daemon=True).start()
    return future


def _settle(setter: Callable[[T], None], value: T) -> None:
    with suppress(InvalidStateError):  # cancelled meanwhile: nobody waits for the value
        setter(value)


class _Interrupted(Exception):
    """Carries KeyboardInterrupt or SystemExit out of a task: asyncio would tear down its loop at once."""

    def __init__(self, interrupt: BaseException) -> None:
        super().__init__(str(interrupt))
        self.interrupt = interrupt


async def together(*calls: Callable[[], Coroutine[Any, Any, T]]) -> list[T]:
    """Return the results in order; the first error stops the other calls and is raised as it is."""
    tasks = [asyncio.ensure_future(_carrying(call)) for call in calls]
    try:
        return await asyncio.gather(*tasks)
    except _Interrupted as carrier:
        raise carrier.interrupt from None
    finally:  # nothing goes on behind the session's back
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


async def both(
    one: Callable[[], Coroutine[Any, Any, T]], other: Callable[[], Coroutine[Any, Any, U]]
) -> tuple[T, U]:
    """Return what the two return; :func:`together` for results of two types."""
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
