"""Foreign code in threads that nobody has to wait for."""

from __future__ import annotations

import asyncio
import contextvars
import threading
from collections.abc import Callable
from concurrent.futures import Future, InvalidStateError
from contextlib import suppress
from typing import TypeVar

from pytest_otel_diag.errors import OtelDiagError

T = TypeVar("T")


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
            _settle(future.set_exception, ForeignExit(f"{type(error).__name__}: {error}"))
        else:
            _settle(future.set_result, result)

    threading.Thread(target=work, name=name, daemon=True).start()
    return future


def _settle(setter: Callable[[T], None], value: T) -> None:
    with suppress(InvalidStateError):  # cancelled meanwhile: nobody waits for the value
        setter(value)


async def in_daemon(call: Callable[[], T], name: str) -> T:
    """Await *call* in a daemon thread; cancelling the wait leaves the thread behind."""
    return await asyncio.wrap_future(start_daemon(call, name))
