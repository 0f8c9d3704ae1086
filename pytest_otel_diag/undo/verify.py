"""Verifies that flags are served as before a fault; a wrong answer and no answer at all are kept apart."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import Self, TypeVar

from pytest_otel_diag.errors import RestoreFailed
from pytest_otel_diag.flags.controller import SurfaceFlags
from pytest_otel_diag.flags.readers.answers import NotEvaluated
from pytest_otel_diag.flags.surface import Surface
from pytest_otel_diag.undo.journal import Answer, Entry

T = TypeVar("T")


@dataclass(frozen=True)
class RestoreLimits:
    """Limits of one restore, in seconds. ``reads`` correct answers in a row prove what is served.

    The answers must span at least ``settle_s``: flagd may still be about to load the fault, or load two
    writes in the wrong order, and would then serve the fault later and for good. For the same reason a
    document that is not served is written again every ``rewrite_s``. ``write_timeout_s`` allows for a
    cluster that rolls out flagd.
    """

    reads: int = 3
    settle_s: float = 1.0
    rewrite_s: float = 2.0
    poll_s: float = 0.1
    served_timeout_s: float = 30.0
    read_timeout_s: float = 30.0
    write_timeout_s: float = 400.0
    attempts: int = 3

    @classmethod
    def of(cls, surface: Surface) -> Self:
        """Return the defaults, with more time to write where the surface needs it."""
        return cls(write_timeout_s=max(cls.write_timeout_s, surface.write_timeout_s))


class NotServed(RestoreFailed):
    """The document was restored but is not served; ``silent`` when flagd gave no answer in all that time."""

    def __init__(self, text: str, *, silent: bool = False) -> None:
        super().__init__(text)
        self.silent = silent


@dataclass(frozen=True)
class _Check:
    """One check of all flags: ``problem`` is empty when all are as before, ``answered`` if any answered."""

    problem: str = ""
    answered: bool = True


async def served_as_before(
    entry: Entry, flags: SurfaceFlags, limits: RestoreLimits, rewrite: Callable[[], Awaitable[object]]
) -> None:
    """Return once all changed flags repeatedly answer as before the fault; raises NotServed.

    *rewrite* writes the document once more.
    """
    now = asyncio.get_running_loop().time
    deadline_s, written_s = now() + limits.served_timeout_s, now()
    expected = [(change.key, answer) for change in entry.changes for answer in change.before]
    in_a_row, since_s, answered = 0, now(), False
    while in_a_row < limits.reads or now() - since_s < limits.settle_s:
        check = await _check(expected, flags, limits)
        answered = answered or check.answered
        since_s = now() if check.problem or not in_a_row else since_s
        in_a_row = 0 if check.problem else in_a_row + 1
        if check.problem and now() > deadline_s:
            raise NotServed(
                f"the document of {entry.identity} was restored, but flagd does not serve it after "
                f"{limits.served_timeout_s:g} s: {check.problem}. If the file was moved or deleted, flagd no "
                "longer watches it: restart flagd",
                silent=not answered,
            )
        if check.problem and check.answered and now() - written_s > limits.rewrite_s:
            with suppress(RestoreFailed):  # what is served decides, and the next round writes again
                await rewrite()
            written_s = now()
        await asyncio.sleep(limits.poll_s)


async def _check(
    expected: Sequence[tuple[str, Answer]], flags: SurfaceFlags, limits: RestoreLimits
) -> _Check:
    answered = False
    for key, before in expected:
        try:
            variant = (await bounded(flags.served(key, before.context), limits.read_timeout_s)).variant
        except NotEvaluated as error:
            return _Check(f"{key}: {error}")
        except Exception as error:  # readers may raise anything, and giving up would leave the fault on
            return _Check(f"{key}: {str(error) or type(error).__name__}", answered)
        answered = True
        if variant != before.variant:
            asked = f" for {dict(before.context)}" if before.context else ""
            return _Check(f"{key} answers {variant!r}{asked} instead of {before.variant!r}")
    return _Check()


async def bounded(work: Awaitable[T], timeout_s: float) -> T:
    """Return the result of *work*; raises TimeoutError after *timeout_s* seconds."""
    async with asyncio.timeout(timeout_s):
        return await work


async def shielded(work: Awaitable[T]) -> T:
    """Return the result of *work*; a cancellation waits until it has ended, so *work* must be bounded."""
    task = asyncio.ensure_future(work)
    try:
        return await asyncio.shield(task)
    except asyncio.CancelledError:
        await asyncio.wait([task])
        if not task.cancelled():
            task.exception()  # retrieved, so that asyncio does not log it: the cancellation goes on
        raise
