"""Taking a fault back: the document as it was, read back, and the flags answering as before.

What somebody else changed meanwhile is not overwritten. When the document differs from the one before in
nothing but the flags that were changed here, it becomes that one again, byte for byte. Otherwise only those
flags get their old definitions in the document that is there now, and the result says so.

What is written is believed only once it is served. When flagd answers otherwise although the document is
back, the next way is tried: the old document as a whole, over the edits of others, since one of them may be
what flagd refuses; then its content as new text. Both are told.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import Iterable
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

from pytest_otel_diag.errors import FlagError, LostUpdate, RestoreFailed
from pytest_otel_diag.flags import document_text
from pytest_otel_diag.flags.controller import SurfaceFlags
from pytest_otel_diag.model.flags import FlagDocument
from pytest_otel_diag.ports import FlagController
from pytest_otel_diag.undo.journal import Entry
from pytest_otel_diag.undo.moved import put_back_where_it_was
from pytest_otel_diag.undo.verify import NotServed, Patience, answering, bounded

__all__ = [
    "NotServed",
    "Patience",
    "Plan",
    "TakenBack",
    "check_document",
    "plan",
    "same_document",
    "take_back",
]

ANEW_S = 10.0
"""How long the document may take to be served, at most, once it was written as new text."""


@dataclass(frozen=True)
class TakenBack:
    """How it went.

    ``foreign`` are the edits of somebody else that were kept, ``overwritten`` those that could not be,
    ``unproven`` is what could not be asked (only where that was allowed), ``rewritten`` that flagd took the
    old document only as new text, ``moved`` what is to be told of a place that is not the one of the fault.
    """

    foreign: tuple[str, ...] = ()
    overwritten: tuple[str, ...] = ()
    unproven: str = ""
    rewritten: bool = False
    moved: str = ""

    @property
    def loud(self) -> bool:
        """Whether a person has to hear of it."""
        return bool(self.foreign or self.overwritten or self.unproven or self.rewritten or self.moved)

    @property
    def sentence(self) -> str:
        """What a person should know of it."""
        parts = ["the flags are as before"]
        if self.foreign:
            parts = [
                "the flags changed here are as before; SOMEBODY ELSE CHANGED THE DOCUMENT MEANWHILE, which "
                f"was kept: {', '.join(self.foreign)}"
            ]
        if self.overwritten:
            parts.append(
                "SOMEBODY ELSE CHANGED THE DOCUMENT MEANWHILE, and with that edit the fault could not be "
                f"taken back, so it was overwritten: {', '.join(self.overwritten)}"
            )
        if self.rewritten:
            parts.append(
                "flagd did not take the old document as it was written; its content is back as NEW TEXT, "
                "which is left, since flagd would refuse the old one again when it starts"
            )
        if self.moved:
            parts.append(self.moved)
        if self.unproven:
            parts.append(f"NOT PROVEN as served: {self.unproven}")
        return "; ".join(parts)


@dataclass(frozen=True)
class Plan:
    """The document to write, what of somebody else is in it, and what of somebody else is not."""

    raw: bytes
    foreign: tuple[str, ...] = ()
    overwritten: tuple[str, ...] = ()


def plan(previous: bytes, current: bytes, keys: Iterable[str]) -> Plan:
    """Return what *current* has to become so that the flags *keys* are as in *previous*.

    A current document that flagd could not read is replaced as a whole, as is one that it could not read
    with these flags put back: a fault must not stay for the sake of an edit that is broken already.
    """
    if not _readable(current):
        return Plan(previous, overwritten=("the whole document, which cannot be used as it is",))
    try:
        return _merged(previous, current, keys)
    except (ValueError, TypeError, LookupError, AttributeError, RecursionError) as error:
        what = f"the whole document, which cannot be merged ({type(error).__name__}: {error})"
        return Plan(previous, overwritten=(what,))


def _merged(previous: bytes, current: bytes, keys: Iterable[str]) -> Plan:
    old, body = json.loads(previous), json.loads(current)
    flags: dict[str, Any] = body["flags"]
    for key in keys:
        flags.pop(key, None)
        if key in old["flags"]:
            flags[key] = old["flags"][key]
    foreign = tuple(_differences(old, body))
    if not foreign:
        return Plan(previous)
    merged = document_text.write(body, current)
    return Plan(merged, foreign) if _readable(merged) else Plan(previous, overwritten=foreign)


def same_document(one: bytes, other: bytes) -> bool:
    """Whether two documents say the same, however they are written."""
    if one == other:
        return True
    try:
        return _canonical(json.loads(one)) == _canonical(json.loads(other))
    except ValueError:
        return False


def _differences(old: dict[str, Any], new: dict[str, Any]) -> list[str]:
    found = [f"flag {name}" for name in _unlike(old["flags"], new["flags"])]
    rest = [name for name in _unlike(old, new) if name != "flags"]
    return [*found, *rest]


def _unlike(old: dict[str, Any], new: dict[str, Any]) -> list[str]:
    names = dict.fromkeys([*old, *new])
    missing = object()
    return [
        name
        for name in names
        if old.get(name, missing) is not new.get(name, missing)
        and (name not in old or name not in new or _canonical(old[name]) != _canonical(new[name]))
    ]


def _canonical(value: Any) -> str:
    """Return JSON that tells ``true`` from ``1``, but not ``1`` from ``1.0``: places rewrite numbers so."""
    return json.dumps(_numbers(value), sort_keys=True)


def _numbers(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _numbers(item) for key, item in value.items()}
    if isinstance(value, list):
        return [_numbers(item) for item in value]
    return int(value) if isinstance(value, float) and value.is_integer() else value


async def take_back(
    entry: Entry, flags: FlagController, *, patience: Patience | None = None, unproven: bool = False
) -> TakenBack:
    """Put the document back, read it back, and wait until every changed flag answers as before.

    With *unproven*, flags that cannot be asked (flagd is not running) do not fail it; flags that answer
    otherwise always do. May be repeated. Raises RestoreFailed: then a fault may still be on.
    """
    patience = patience or Patience()
    moved = await put_back_where_it_was(entry, flags, plan)
    done: Plan | None = None
    lost: tuple[str, ...] = ()
    wrong = NotServed("no attempt was made")
    for step in _steps(entry, flags):
        if done is not None and not step.needed(done):
            continue
        done = await _written(entry, flags, patience, step)
        lost = tuple(dict.fromkeys((*lost, *done.overwritten)))
        try:
            again = partial(_written, entry, flags, patience, step)
            await answering(entry, flags, step.of(patience), again)
        except NotServed as error:
            wrong = error
            if error.silent:  # who does not answer has refused nothing: edits of others are not touched
                break
            continue
        return TakenBack(done.foreign, lost, rewritten=step.anew, moved=moved)
    assert done is not None
    if unproven and wrong.silent:
        return TakenBack(done.foreign, lost, unproven=str(wrong), moved=moved)
    if done.raw != entry.previous and not done.foreign:
        await _written(entry, flags, patience, Step())  # it did not help: the very bytes are left
    if lost:
        raise RestoreFailed(f"{wrong}; edits of somebody else were overwritten: {', '.join(lost)}") from wrong
    raise wrong


@dataclass(frozen=True)
class Step:
    """One way to put the document back, the mildest first.

    ``whole`` keeps no edit of somebody else, since flagd may have refused the document for one. ``anew``
    writes the old document's content as new text, since flagd may refuse these very bytes.
    """

    whole: bool = False
    anew: bool = False

    def needed(self, done: Plan) -> bool:
        """Whether this writes something else than what was written before."""
        return self.anew or bool(done.foreign)

    def of(self, patience: Patience) -> Patience:
        """Return how long to wait for it to be served."""
        if not self.anew:
            return patience
        return replace(patience, served_timeout_s=min(patience.served_timeout_s, ANEW_S))

    def plan(self, previous: bytes, current: bytes, keys: Iterable[str]) -> Plan:
        """Return what to write in the place of *current*."""
        mild = plan(previous, current, keys)
        if not (self.whole or self.anew):
            return mild
        raw = document_text.write(json.loads(previous), previous) if self.anew else previous
        return Plan(raw, overwritten=(*mild.overwritten, *mild.foreign))


def _steps(entry: Entry, flags: FlagController) -> list[Step]:
    """Return what may be tried; raises RestoreFailed when flagd would refuse all of it."""
    try:
        anew = document_text.write(json.loads(entry.previous), entry.previous)
    except (ValueError, RecursionError):
        anew = b""
    exact = _readable(entry.previous)
    other = _readable(anew) and not _same(flags, anew, entry.previous)
    if not exact and not other:
        check_document(entry.previous)
    return [Step(), Step(whole=True)] * exact + [Step(anew=True)] * other


def check_document(raw: bytes) -> None:
    """Raise RestoreFailed for a document that flagd would refuse."""
    try:
        document_text.parse(raw, "the document to restore")
    except FlagError as error:
        raise RestoreFailed(
            f"{error}; it is not put back: restore the document from before the first change"
        ) from error


async def _written(entry: Entry, flags: FlagController, patience: Patience, step: Step) -> Plan:
    """Write what the step's plan says and read it back."""
    problem = "no attempt was made"
    for turn in range(patience.attempts):
        if turn:
            await asyncio.sleep(patience.poll_s)
        try:
            current = await _current(flags, patience)
            wanted = step.plan(entry.previous, current, entry.keys)
            await bounded(_put(flags, wanted.raw, current), patience.write_timeout_s)
            found = await _current(flags, patience)
        except Exception as error:  # whatever a place raises: giving up here would leave the fault on
            problem = str(error) or type(error).__name__
            continue
        if _same(flags, found, wanted.raw):
            return wanted
        problem = "somebody else writes the document again and again"
    raise RestoreFailed(f"the flags of {entry.identity} cannot be put back: {problem}")


def _same(flags: FlagController, one: bytes, other: bytes) -> bool:
    if isinstance(flags, SurfaceFlags):
        return flags.surface.same(one, other)  # bytes, where the place keeps them
    return same_document(one, other)


async def _current(flags: FlagController, patience: Patience) -> bytes:
    """Return the document as it is, also one that flagd would refuse."""
    if isinstance(flags, SurfaceFlags):
        try:
            return await bounded(flags.surface.read(), patience.read_timeout_s)
        except FlagError:
            return b""  # gone or out of reach: putting it back tells
    return (await bounded(flags.document(), patience.read_timeout_s)).raw


async def _put(flags: FlagController, raw: bytes, current: bytes) -> None:
    """Write, but not over an edit made since *current* was read, where the place can tell."""
    document = FlagDocument(raw=raw, flags={})
    if not isinstance(flags, SurfaceFlags) or not _readable(current):
        await flags.restore(document)
        return
    try:
        # Also when nothing changes: a flagd that missed the last write takes the document up now.
        await flags.surface.write(raw, expected=current)
    except LostUpdate as error:
        raise RestoreFailed(f"somebody else wrote meanwhile: {error}") from error


def _readable(raw: bytes) -> bool:
    try:
        document_text.parse(raw)
    except FlagError:
        return False
    return True
