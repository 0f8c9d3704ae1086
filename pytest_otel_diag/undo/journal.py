"""The journal of open faults: one file per entry, on disk before the first write to the flags.

An entry holds what another process needs to restore the flags: the exact previous document, how to reach
the flags, and what they answered. It is written to a temporary file, synced and renamed, and the folder is
synced; so either the entry is complete, or it does not exist and no flag was written.
"""

from __future__ import annotations

import base64
import contextlib
import hashlib
import json
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from pathlib import Path
from typing import Any

from pydantic import Field, ValidationError

from pytest_otel_diag.errors import FlagError
from pytest_otel_diag.flags.surface import FlagAddress
from pytest_otel_diag.model.base import Model, Nanos
from pytest_otel_diag.model.flags import FlagValue
from pytest_otel_diag.undo.disk import Disk
from pytest_otel_diag.undo.owner import Owner
from pytest_otel_diag.undo.trust import ENTRY_BYTES, Untrusted, check_state_folder, read_trusted

SCHEMA_VERSION = 1
_SUFFIX = ".json"
_UNFINISHED = ".unfinished"
_CLOSED = ".closed"
_MARK_S = 14 * 24 * 3600.0
_TEXT = re.compile(rb'"(identity|control|served|host|user|run_id|target|started_ns|pid)": ?("[^"]*"|\d+)')
_DOCUMENT = re.compile(rb'"previous_sha256": ?"([0-9a-f]{64})", ?"previous": ?"([A-Za-z0-9+/=]*)"')


class State(StrEnum):
    """The state of a fault.

    ``OPEN``: it may be on. ``KEPT``: it is on intentionally. ``RETURNED``: the guardian restored the flags at
    the deadline, and the owner has not noticed yet.
    """

    OPEN = "open"
    KEPT = "kept"
    RETURNED = "returned"


class Answer(Model):
    """The answer of a flag in one context, before it was changed."""

    context: Mapping[str, FlagValue] = Field(default_factory=dict)
    variant: str


class Change(Model):
    """One changed flag: the variants it was set to, or is about to be, in order, and its answers before."""

    key: str
    variants: tuple[str, ...] = Field(min_length=1)
    before: tuple[Answer, ...]


class Entry(Model):
    """One open fault with everything that a restore needs. Instants are UTC nanoseconds.

    Its JSON is read by later versions: fields may be added with defaults, never renamed.
    """

    id: str = Field(pattern=r"^[\w-]+$")
    identity: str
    access: FlagAddress
    target: str = ""
    owner: Owner
    started_ns: Nanos
    deadline_ns: Nanos
    previous: bytes
    changes: tuple[Change, ...] = ()
    state: State = State.OPEN
    note: str = ""

    @property
    def keys(self) -> tuple[str, ...]:
        """The changed flags."""
        return tuple(change.key for change in self.changes)

    @property
    def faults(self) -> str:
        """The changes for a person, ``flag=variant, …``."""
        return ", ".join(f"{change.key}={change.variants[-1]}" for change in self.changes) or "no flag yet"


@dataclass(frozen=True)
class Damaged:
    """A journal file that cannot be used, with the facts still legible in it. It is never deleted.

    ``document`` is the previous document, None when it is damaged too.
    """

    path: Path
    problem: str
    facts: Mapping[str, str] = field(default_factory=dict)
    document: bytes | None = None

    @property
    def sentence(self) -> str:
        """The problem and the remedy, for a person."""
        facts = ", ".join(f"{name} {value}" for name, value in self.facts.items()) or "nothing is legible"
        document = "the previous document is intact" if self.document else "the previous document is lost"
        return (
            f"the journal entry {self.path} cannot be used: {self.problem} ({facts}; {document}). A FAULT "
            "MAY STILL BE ON there: check the flags of that system, restore them, then delete the file"
        )


class Foreign(Damaged):
    """A journal file that another user could have written, so that nothing in it is used."""

    @property
    def sentence(self) -> str:
        """The problem and the remedy, for a person."""
        return (
            f"the journal entry {self.path} is not trusted, so it was not used: {self.problem}. A FAULT MAY "
            "STILL BE ON: let its owner run otel-diag heal, or delete the file if nobody knows it"
        )


class Journal:
    """The entries below *state_dir*; any process may call any method."""

    def __init__(self, state_dir: Path, *, disk: Disk | None = None) -> None:
        self.folder = state_dir / "journal"
        self._disk = disk or Disk()

    def path(self, entry_id: str) -> Path:
        """Return the file of the entry."""
        return self.folder / f"{entry_id}{_SUFFIX}"

    def write(self, entry: Entry) -> None:
        """Write the entry, replacing its older text; it is on disk when this returns.

        Raises FlagError when that fails: then no flag may be written.
        """
        place = self.path(entry.id)
        beside = place.with_suffix(_UNFINISHED)
        try:
            self._disk.folder(self.folder)
            check_state_folder(self.folder.parent, self.folder.name)
            self._disk.write(beside, encoded(entry))
            self._disk.sync(beside)
            self._disk.rename(beside, place)
            self._disk.sync_folder(self.folder)
        except OSError as error:
            raise FlagError(
                f"the journal {place} cannot be written ({error.strerror}); without it a killed run would "
                "leave its fault on, so nothing was changed. Name a writable folder with --otel-diag-state"
            ) from error

    def read(self, entry_id: str) -> Entry | None:
        """Return the entry as stored, None when it was closed; raises FlagError for one that is no use."""
        found = self._found(self.path(entry_id))
        if isinstance(found, Damaged):
            raise FlagError(found.sentence)
        return found

    def holds(self, entry_id: str) -> bool:
        """Return whether the entry exists."""
        return self.path(entry_id).exists()

    def close(self, entry: Entry, *, watched: bool = True) -> None:
        """Delete the entry, once the flags are proven to answer as before.

        With *watched*, a marker stays for the guardian, which takes an entry without one for deleted by
        accident and restores it once more. Does nothing when the journal itself is gone. Raises FlagError
        when the entry cannot be deleted.
        """
        try:
            if watched:
                with contextlib.suppress(OSError):  # a full disk; deleting the entry may need no space
                    self._disk.write(self._mark(entry.id), b"")
            self._disk.remove(self.path(entry.id))
            self._disk.remove(self.path(entry.id).with_suffix(_UNFINISHED))
            self._disk.sync_folder(self.folder)
            self._forget_old()
        except FileNotFoundError:
            return
        except OSError as error:
            raise FlagError(
                f"the journal entry {self.path(entry.id)} cannot be deleted ({error.strerror}), so the next "
                "run restores its flags once more; delete the file"
            ) from error

    def closed(self, entry_id: str) -> bool:
        """Return whether the entry was closed and its marker not removed yet."""
        return self._mark(entry_id).exists()

    def forget(self, entry_id: str) -> None:
        """Remove the marker of a closed entry, once nobody watches it."""
        with contextlib.suppress(OSError):
            self._disk.remove(self._mark(entry_id))

    def _mark(self, entry_id: str) -> Path:
        return self.folder / f"{entry_id}{_CLOSED}"

    def _forget_old(self) -> None:
        """Remove the markers of guardians that died before they could."""
        for mark in self.folder.glob(f"*{_CLOSED}"):
            with contextlib.suppress(OSError):
                if self.folder.stat().st_mtime - mark.stat().st_mtime > _MARK_S:
                    mark.unlink()

    def entries(self) -> Iterator[Entry | Damaged]:
        """Yield all entries, damaged ones first, then the oldest first."""
        found = [self._found(path) for path in sorted(self.folder.glob(f"*{_SUFFIX}"))]
        existing = [each for each in found if each is not None]
        yield from sorted(existing, key=lambda each: each.started_ns if isinstance(each, Entry) else 0)

    def _found(self, path: Path) -> Entry | Damaged | None:
        try:
            check_state_folder(self.folder.parent, self.folder.name)
            found = decoded(read_trusted(path, limit_bytes=ENTRY_BYTES), path)
            if isinstance(found, Entry) and path != self.path(found.id):  # closing it would delete another
                return Damaged(path, f"it holds the entry of the file {found.id}{_SUFFIX}")
            return found
        except FileNotFoundError:
            return None  # closed in between
        except Untrusted as error:
            return Foreign(path, f"{error.filename}: {error.strerror}")
        except OSError as error:
            return Damaged(path, f"it cannot be opened: {error.strerror}")


def encoded(entry: Entry) -> bytes:
    """Return the entry as text; short facts come first, so that a truncated file still has them."""
    body = entry.model_dump(mode="json", exclude={"previous"})
    document = {
        "previous_sha256": hashlib.sha256(entry.previous).hexdigest(),
        "previous": base64.b64encode(entry.previous).decode(),
    }
    last = {"changes": body.pop("changes"), "state": body.pop("state"), "note": body.pop("note")}
    text = json.dumps(body | document | last)
    whole = {"schema_version": SCHEMA_VERSION, "checksum": hashlib.sha256(text.encode()).hexdigest()}
    return f'{json.dumps(whole)[:-1]}, "entry": {text}}}\n'.encode()


def decoded(raw: bytes, path: Path) -> Entry | Damaged:
    """Return the entry of a file's text, or what is legible of it."""
    try:
        whole = json.loads(raw)
        version = whole["schema_version"]
        if version != SCHEMA_VERSION:
            return _damaged(raw, path, f"schema version {version!r}, this version reads {SCHEMA_VERSION}")
        body: dict[str, Any] = whole["entry"]
        if hashlib.sha256(json.dumps(body).encode()).hexdigest() != whole["checksum"]:
            return _damaged(raw, path, "its checksum is wrong")
        previous = base64.b64decode(body.pop("previous"), validate=True)
        body.pop("previous_sha256")
        return Entry.model_validate({**body, "previous": previous})
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError, ValidationError) as error:
        reason = f"{len(raw)} bytes that are no entry ({type(error).__name__})"
        return _damaged(raw, path, reason if raw else "it is empty")


def _damaged(raw: bytes, path: Path, problem: str) -> Damaged:
    facts: dict[str, str] = {}
    for name, value in _TEXT.findall(raw):
        facts.setdefault(name.decode(), value.decode(errors="replace").strip('"'))
    document = None
    if found := _DOCUMENT.search(raw):
        try:
            text = base64.b64decode(found.group(2), validate=True)
        except ValueError:
            text = b""
        if hashlib.sha256(text).hexdigest() == found.group(1).decode():
            document = text
    return Damaged(path, problem, facts, document)
