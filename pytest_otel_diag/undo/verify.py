"""Whether the flags answer as before a fault; no answer at all is told apart from another answer."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import TypeVar

from pytest_otel_diag.errors import RestoreFailed
from pytest_otel_diag.flags.readers.answers import NotEvaluated
from pytest_otel_diag.ports import FlagController
from pytest_otel_diag.undo.journal import Answer, Entry

T = TypeVar("T")


@dataclass(frozen=True)
class Patience:
    """How long taking back may take. ``reads`` answers in a row prove that a flag is served as before.

    The row lasts ``settle_s`` at least: flagd may still be about to take up the fault, or take up two writes
    in a row in the wrong order, and would then answer the fault later and for good. For that reason a
    document that is not served so is written again every ``rewrite_s``. A write may have to wait until a
    cluster has rolled out what reads it.
    """

    reads: int = 3
    settle_s: float = 1.0
    rewrite_s: float = 2.0
    poll_s: float = 0.1
    served_timeout_s: float = 30.0
    read_timeout_s: float = 30.0
    write_timeout_s: float = 400.0
    attempts: int = 3


class NotServed(RestoreFailed):
    """The document is back, but not served so. ``silent``: in all that time, nothing answered at all."""

    def __init__(self, text: str, *, silent: bool = False) -> None:
        super().__init__(text)
        self.silent = silent


@dataclass(frozen=True)
class _Look:
    """What one look found: ``wrong`` is empty when all is as before, ``answered`` that anything was told."""

    wrong: str = ""
    answered: bool = True


async def answering(
    entry: Entry, flags: FlagController, patience: Patience, again: Callable[[], Awaitable[object]]
) -> None:
    """Return once all changed flags answer as before, several times in a row; raises NotServed.

    *again* writes the document once more.
    """
    now = asyncio.get_running_loop().time
    deadline, written_s = now() + patience.served_timeout_s, now()
    wanted = [(change.key, answer) for change in entry.changes for answer in change.before]
    row, since_s, answered = 0, now(), False
    while row < patience.reads or now() - since_s < patience.settle_s:
        look = await _look(wanted, flags, patience)
        answered = answered or look.answered
        since_s = now() if look.wrong or not row else since_s
        row = 0 if look.wrong else row + 1
        if look.wrong and now() > deadline:
            raise NotServed(
                f"the document of {entry.identity} is back, but is not served so after "
                f"{patience.served_timeout_s:g} s: {look.wrong}. If the file was moved or removed meanwhile, "
                "flagd watches it no more: restart flagd",
                silent=not answered,
            )
        if look.wrong and look.answered and now() - written_s > patience.rewrite_s:
            with suppress(RestoreFailed):  # what is served decides; the next turn tries again
                await again()
            written_s = now()
        await asyncio.sleep(patience.poll_s)


async def _look(wanted: Sequence[tuple[str, Answer]], flags: FlagController, patience: Patience) -> _Look:
    answered = False
    for key, before in wanted:
        try:
            variant = (await bounded(flags.served(key, before.context), patience.read_timeout_s)).variant
        except NotEvaluated as error:
            return _Look(f"{key}: {error}")
        except Exception as error:  # whatever a place raises: giving up here would leave the fault on
            return _Look(f"{key}: {str(error) or type(error).__name__}", answered)
        answered = True
        if variant != before.variant:
            asked = f" for {dict(before.context)}" if before.context else ""
            return _Look(f"{key} answers {variant!r}{asked} in place of {before.variant!r}")
    return _Look()


async def bounded(work: Awaitable[T], timeout_s: float) -> T:
    """Return what *work* does in that time; raises TimeoutError."""
    async with asyncio.timeout(timeout_s):
        return await work


async def unbroken(work: Awaitable[T]) -> T:
    """Let *work* end before a cancellation goes on; it is bounded by itself."""
    task = asyncio.ensure_future(work)
    try:
        return await asyncio.shield(task)
    except asyncio.CancelledError:
        await asyncio.wait([task])
        if not task.cancelled():
            task.exception()  # looked at: the cancellation is what goes on
        raise
