"""Restores the flags of one journal entry and verifies that they are served.

External changes are kept: see :mod:`merge`. A restore counts only once the flags are served as before. When
flagd still answers otherwise although the document was written, stronger strategies follow: the previous
document as a whole, in case flagd refuses an external change, then the same content as newly formatted text.
The result says which of them was needed.
"""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, replace
from functools import partial

from pytest_otel_diag.errors import FlagError, LostUpdate, RestoreFailed
from pytest_otel_diag.flags.controller import SurfaceFlags
from pytest_otel_diag.flags.surface import Surface
from pytest_otel_diag.model.flags import FlagDocument
from pytest_otel_diag.undo.journal import Entry
from pytest_otel_diag.undo.merge import Merge, check_document, merge, readable, rewritten
from pytest_otel_diag.undo.verify import NotServed, RestoreLimits, bounded, served_as_before

REFORMATTED_S = 10.0
"""How long the reformatted document may take to be served, at most."""


@dataclass(frozen=True)
class Restored:
    """How a restore went.

    ``external`` are external changes that were kept, ``overwritten`` those that had to go, ``unproven`` says
    why nobody could be asked what is served (only where that was allowed), ``reformatted`` that flagd loaded
    the previous content only as new text, ``moved`` what a person should know of a retargeted symlink.
    """

    external: tuple[str, ...] = ()
    overwritten: tuple[str, ...] = ()
    unproven: str = ""
    reformatted: bool = False
    moved: str = ""

    @property
    def notable(self) -> bool:
        """Whether a person should hear of it."""
        return bool(self.external or self.overwritten or self.unproven or self.reformatted or self.moved)

    @property
    def sentence(self) -> str:
        """The result for a person."""
        parts = ["the flags are as before"]
        if self.external:
            parts = [
                "the flags changed here are as before; EXTERNAL CHANGES to the document were kept: "
                f"{', '.join(self.external)}"
            ]
        if self.overwritten:
            parts.append(
                "EXTERNAL CHANGES to the document kept the fault from being restored and were overwritten: "
                f"{', '.join(self.overwritten)}"
            )
        if self.reformatted:
            parts.append(
                "flagd refused the previous document as it was written, so its content was written as NEW "
                "TEXT, which stays, since flagd would refuse the previous text again when it starts"
            )
        if self.moved:
            parts.append(self.moved)
        if self.unproven:
            parts.append(f"NOT PROVEN as served: {self.unproven}")
        return "; ".join(parts)


@dataclass(frozen=True)
class Strategy:
    """One way to write the previous document; the mildest is tried first.

    ``whole`` drops external changes, since flagd may have refused the document for one of them.
    ``reformat`` writes the content as new text, since flagd may refuse the very bytes.
    """

    whole: bool = False
    reformat: bool = False

    def adds_to(self, done: Merge) -> bool:
        """Return whether this writes another document than *done*."""
        return self.reformat or bool(done.external)

    def within(self, limits: RestoreLimits) -> RestoreLimits:
        """Return the limits for it."""
        if not self.reformat:
            return limits
        return replace(limits, served_timeout_s=min(limits.served_timeout_s, REFORMATTED_S))

    def document(self, entry: Entry, current: bytes) -> Merge:
        """Return what replaces the *current* document."""
        mild = merge(entry.previous, current, entry.keys)
        if not (self.whole or self.reformat):
            return mild
        raw = rewritten(entry.previous) if self.reformat else entry.previous
        return Merge(raw, overwritten=(*mild.overwritten, *mild.external))


async def restore_entry(
    entry: Entry, flags: SurfaceFlags, *, limits: RestoreLimits | None = None, allow_unproven: bool = False
) -> Restored:
    """Write the previous document, read it back, and wait until every changed flag answers as before.

    With *allow_unproven* it also succeeds when flagd does not answer at all; wrong answers always fail it.
    May be repeated. Raises RestoreFailed: then the fault may still be on.
    """
    limits = limits or RestoreLimits.of(flags.surface)
    moved = await _restore_former_place(entry, flags.surface, limits)
    done: Merge | None = None
    overwritten: tuple[str, ...] = ()
    failure = NotServed("no attempt was made")
    for strategy in _strategies(entry, flags.surface):
        if done is not None and not strategy.adds_to(done):
            continue
        done = await _write(entry, flags, limits, strategy)
        overwritten = tuple(dict.fromkeys((*overwritten, *done.overwritten)))
        try:
            again = partial(_write, entry, flags, limits, strategy)
            await served_as_before(entry, flags, strategy.within(limits), again)
        except NotServed as error:
            failure = error
            if error.silent:  # without an answer nothing was refused, so external changes stay
                break
            continue
        return Restored(done.external, overwritten, reformatted=strategy.reformat, moved=moved)
    assert done is not None
    if allow_unproven and failure.silent:
        return Restored(done.external, overwritten, unproven=str(failure), moved=moved)
    if done.raw != entry.previous and not done.external:
        await _write(entry, flags, limits, Strategy())  # reformatting did not help: leave the original bytes
    if overwritten:
        raise RestoreFailed(
            f"{failure}; external changes were overwritten: {', '.join(overwritten)}"
        ) from failure
    raise failure


def _strategies(entry: Entry, surface: Surface) -> list[Strategy]:
    """Return the strategies to try; raises RestoreFailed when flagd would refuse all of them."""
    try:
        new_text = rewritten(entry.previous)
    except (ValueError, RecursionError):
        new_text = b""
    exact = readable(entry.previous)
    reformatted = readable(new_text) and not surface.same(new_text, entry.previous)
    if not exact and not reformatted:
        check_document(entry.previous)
    return [Strategy(), Strategy(whole=True)] * exact + [Strategy(reformat=True)] * reformatted


async def _write(entry: Entry, flags: SurfaceFlags, limits: RestoreLimits, strategy: Strategy) -> Merge:
    """Write the strategy's document and read it back; raises RestoreFailed."""
    problem = "no attempt was made"
    for attempt in range(limits.attempts):
        if attempt:
            await asyncio.sleep(limits.poll_s)
        try:
            current = await _current(flags.surface, limits)
            wanted = strategy.document(entry, current)
            await bounded(_put(flags, wanted.raw, current), limits.write_timeout_s)
            found = await _current(flags.surface, limits)
        except Exception as error:  # surfaces may raise anything, and giving up would leave the fault on
            problem = str(error) or type(error).__name__
            continue
        if flags.surface.same(found, wanted.raw):
            return wanted
        problem = "another client overwrites the document again and again"
    raise RestoreFailed(f"the flags of {entry.identity} cannot be restored: {problem}")


async def _current(surface: Surface, limits: RestoreLimits) -> bytes:
    """Return the document as it is, even one that flagd would refuse; empty when it cannot be read."""
    try:
        return await bounded(surface.read(), limits.read_timeout_s)
    except FlagError:
        return b""


async def _put(flags: SurfaceFlags, raw: bytes, current: bytes) -> None:
    """Write *raw*, but not over a change made since *current* was read."""
    if not readable(current):
        await flags.restore(FlagDocument(raw=raw, flags={}))
        return
    try:
        # Also without a change: a flagd that missed the last write loads the document now.
        await flags.surface.write(raw, expected=current)
    except LostUpdate as error:
        raise RestoreFailed(f"another client wrote at the same time: {error}") from error


async def _restore_former_place(entry: Entry, surface: Surface, limits: RestoreLimits) -> str:
    """Restore the document where the fault was written, when the surface resolves elsewhere by now.

    The former document still holds the fault, and flagd may still read it, or will once a symlink is back.
    Returns what a person should know, empty for a surface that has not moved. Raises RestoreFailed, also when
    the place where the surface is now does not hold a flagd document: then it is left alone.
    """
    moved = surface.moved_from(entry.identity)
    if moved is None:
        return ""
    event = f"THE FLAG FILE MOVED: it is {moved.identity}, the fault was written to {entry.identity}"
    if moved.former is not None:
        await _restore_at(moved.former, entry, limits, event)
    try:
        current = await _current(surface, limits)
    except TimeoutError:
        current = b""
    if not readable(current):
        done = "was restored" if moved.former else "no longer exists"
        raise RestoreFailed(
            f"{event}, which {done}; {moved.identity} is no flagd document and was left alone. Put the flag "
            "file back"
        )
    if moved.former is None:
        return f"{event}, which no longer exists"
    return f"{event}; both were restored. Restart flagd unless it follows the symlink"


async def _restore_at(former: Surface, entry: Entry, limits: RestoreLimits, event: str) -> None:
    try:
        current = await _current(former, limits)
        wanted = merge(entry.previous, current, entry.keys)
        write = former.write(wanted.raw, expected=current) if current else former.overwrite(wanted.raw)
        await bounded(write, limits.write_timeout_s)
    except (FlagError, TimeoutError) as error:
        problem = str(error) or "it does not answer"
        raise RestoreFailed(f"{event} and cannot be restored there: {problem}") from error
