"""Work that must be finished although the task that asks for it is being cancelled."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from typing import Any, TypeVar

T = TypeVar("T")


async def protected(
    work: Coroutine[Any, Any, T], *, timeout_s: float, give_up: Callable[[], None]
) -> tuple[T | None, asyncio.CancelledError | None]:
    """Run *work* to its end, cancelled or not, for at most *timeout_s* wall seconds.

    Returns what it returned (None when it ran out of time; it is then told to *give_up* and
    cancelled) and the cancellation that arrived meanwhile, which the caller must raise once it has tidied up.
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
