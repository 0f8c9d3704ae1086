"""Taking a fault back: the document as it was, read back, and the flags answering as before.

What somebody else changed meanwhile is not overwritten. When the document differs from the one before in
nothing but the flags that were changed here, it becomes that one again, byte for byte. Otherwise only those
flags get their old definitions in the document that is there now, and the result says so.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import Awaitable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any, TypeVar

from pytest_otel_diag.errors import FlagError, LostUpdate, RestoreFailed
from pytest_otel_diag.flags import flagd_text
from pytest_otel_diag.flags.controller import SurfaceFlags
from pytest_otel_diag.model.flags import FlagDocument
from pytest_otel_diag.ports import FlagController
from pytest_otel_diag.undo.journal import Answer, Entry

T = TypeVar("T")


@dataclass(frozen=True)
class Patience:
    """How long taking back may take. ``reads`` answers in a row prove that a flag is served as before.

    A write may have to wait until a cluster has rolled out what reads it.
    """

    reads: int = 3
    poll_s: float = 0.1
    served_timeout_s: float = 30.0
    read_timeout_s: float = 30.0
    write_timeout_s: float = 400.0
    attempts: int = 3


@dataclass(frozen=True)
class TakenBack:
    """How it went.

    ``foreign`` are the edits of somebody else that were kept, ``overwritten`` those that could not be,
    ``unproven`` is what could not be asked (only where that was allowed).
    """

    foreign: tuple[str, ...] = ()
    overwritten: tuple[str, ...] = ()
    unproven: str = ""

    @property
    def loud(self) -> bool:
        """Whether a person has to hear of it."""
        return bool(self.foreign or self.overwritten or self.unproven)

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
                "SOMEBODY ELSE CHANGED THE DOCUMENT MEANWHILE in a way that flagd could not have read with "
                f"the fault taken back; that was overwritten: {', '.join(self.overwritten)}"
            )
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
        return Plan(previous, overwritten=("the whole document, which flagd could not read",))
    old, body = json.loads(previous), json.loads(current)
    flags: dict[str, Any] = body["flags"]
    for key in keys:
        flags.pop(key, None)
        if key in old["flags"]:
            flags[key] = old["flags"][key]
    foreign = tuple(_differences(old, body))
    if not foreign:
        return Plan(previous)
    merged = flagd_text.write(body, current)
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

    With *unproven*, flags that cannot be asked (flagd is not running) do not fail it. May be repeated.
    Raises RestoreFailed: then a fault may still be on.
    """
    patience = patience or Patience()
    check_document(entry.previous)
    done = await _written(entry, flags, patience)
    try:
        await _answering(entry, flags, patience)
    except RestoreFailed as error:
        if not unproven:
            raise
        return TakenBack(done.foreign, done.overwritten, unproven=str(error))
    return TakenBack(done.foreign, done.overwritten)


def check_document(raw: bytes) -> None:
    """Raise RestoreFailed for a document that flagd would refuse."""
    try:
        flagd_text.parse(raw, "the document to restore")
    except FlagError as error:
        raise RestoreFailed(
            f"{error}; it is not put back: restore the document from before the first change"
        ) from error


async def _written(entry: Entry, flags: FlagController, patience: Patience) -> Plan:
    """Write what the plan says and read it back."""
    problem = "no attempt was made"
    for turn in range(patience.attempts):
        if turn:
            await asyncio.sleep(patience.poll_s)
        try:
            current = await _current(flags, patience)
            wanted = plan(entry.previous, current, entry.keys)
            await _bounded(_put(flags, wanted.raw, current), patience.write_timeout_s)
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
            return await _bounded(flags.surface.read(), patience.read_timeout_s)
        except FlagError:
            return b""  # gone or out of reach: putting it back tells
    return (await _bounded(flags.document(), patience.read_timeout_s)).raw


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
        flagd_text.parse(raw)
    except FlagError:
        return False
    return True


async def _answering(entry: Entry, flags: FlagController, patience: Patience) -> None:
    loop = asyncio.get_running_loop()
    deadline = loop.time() + patience.served_timeout_s
    wanted = [(change.key, answer) for change in entry.changes for answer in change.before]
    row, wrong = 0, ""
    while row < patience.reads:
        wrong = await _unlike_before(wanted, flags, patience)
        row = 0 if wrong else row + 1
        if wrong and loop.time() > deadline:
            raise RestoreFailed(
                f"the document of {entry.identity} is back, but is not served so after "
                f"{patience.served_timeout_s:g} s: {wrong}"
            )
        if row < patience.reads:
            await asyncio.sleep(patience.poll_s)


async def _unlike_before(
    wanted: Sequence[tuple[str, Answer]], flags: FlagController, patience: Patience
) -> str:
    for key, before in wanted:
        try:
            variant = (await _bounded(flags.served(key, before.context), patience.read_timeout_s)).variant
        except Exception as error:  # as above
            return f"{key}: {str(error) or type(error).__name__}"
        if variant != before.variant:
            asked = f" for {dict(before.context)}" if before.context else ""
            return f"{key} answers {variant!r}{asked} in place of {before.variant!r}"
    return ""


async def _bounded(work: Awaitable[T], timeout_s: float) -> T:
    async with asyncio.timeout(timeout_s):
        return await work
