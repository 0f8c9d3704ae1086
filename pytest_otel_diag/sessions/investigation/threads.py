"""Runs several awaitables side by side."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from typing import Any, TypeVar

T = TypeVar("T")
U = TypeVar("U")


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
