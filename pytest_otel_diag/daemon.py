"""Runs calls in daemon threads, which keep no interpreter from exiting and do not lead to their work.

``threading.Thread`` keeps its target until the thread ends, so any code of the process could walk from
``threading.enumerate()`` to what a session knows, an analyzer under test included.
"""

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


def start_thread(work: Callable[[], object], name: str) -> threading.Thread:
    """Run *work* in a new daemon thread and return the thread."""
    handed = [work]
    thread = threading.Thread(target=_run, args=(handed,), name=name, daemon=True)
    thread.start()
    return thread


def _run(handed: list[Callable[[], object]]) -> None:
    handed.pop()()


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


async def in_daemon(call: Callable[[], T], name: str) -> T:
    """Await *call* in a daemon thread; cancelling the wait leaves the thread behind."""
    return await asyncio.wrap_future(start_daemon(call, name))
