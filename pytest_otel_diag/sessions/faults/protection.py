"""Runs work to its end although the task that awaits it is cancelled."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from typing import Any, TypeVar

T = TypeVar("T")


async def protected(
    work: Coroutine[Any, Any, T], *, timeout_s: float, give_up: Callable[[], None]
) -> tuple[T | None, asyncio.CancelledError | None]:
    """Run *work* for at most *timeout_s* wall seconds, whether the current task is cancelled or not.

    Returns its result and the cancellation that arrived meanwhile, which the caller must raise after its own
    cleanup. The result is None when the time was over: *give_up* is then called and the work cancelled.
    """
    loop = asyncio.get_running_loop()
    task = loop.create_task(work)
    deadline = loop.time() + timeout_s
    cancelled: asyncio.CancelledError | None = None
    while not task.done() and (left_s := deadline - loop.time()) > 0:
        try:
            await asyncio.wait({task}, timeout=left_s)
        except asyncio.CancelledError as error:
            cancelled = error
    if task.done():
        return task.result(), cancelled
    give_up()
    task.cancel()
    return None, cancelled
