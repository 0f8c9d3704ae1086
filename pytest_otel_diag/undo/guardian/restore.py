"""What the guardian does once it has to: take one entry back, and write down that it did."""

from __future__ import annotations

import asyncio
import importlib
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

from pytest_otel_diag.errors import OtelDiagError
from pytest_otel_diag.undo.guardian.log import log
from pytest_otel_diag.undo.heal import Opener, with_flags
from pytest_otel_diag.undo.journal import Damaged, Entry, Journal, State, decoded
from pytest_otel_diag.undo.restore import take_back


def rescue(state_dir: Path, entry_id: str, *, opener: str, gone: bool, copy: bytes = b"") -> str:
    """Take the entry back; return what went wrong, empty when the fault is gone.

    With its owner *gone* the entry is closed; otherwise it stays, marked, until the owner has read it.
    *copy* is the entry's text as it was when it was watched: what is used when the file was damaged, or is
    gone although nobody closed it.
    """
    journal = Journal(state_dir)
    try:
        entry, found = _entry(journal, entry_id, copy)
        if found:
            with suppress(OSError):
                log(state_dir, found)
        if entry is None or (entry.state is State.KEPT and gone):
            return ""
        outcome = asyncio.run(with_flags(entry, load(opener), take_back)).sentence
    except Exception as error:  # whatever it is: there is nobody to raise it to, and it is tried again
        return f"{entry_id}: {type(error).__name__}: {error}"
    why = "whose run has ended" if gone else "whose run did not answer by its deadline"
    sentence = f"took back {entry.faults} of {entry.owner.sentence}, {why}: {outcome}"
    with suppress(OSError):
        log(state_dir, sentence)
    return _closed(journal, entry) if gone else _marked(journal, entry, sentence)


def _entry(journal: Journal, entry_id: str, copy: bytes) -> tuple[Entry | None, str]:
    """Return the entry, None when it was closed, and what is to be told of where it came from."""
    kept = decoded(copy, journal.path(entry_id)) if copy else None
    mine = None if isinstance(kept, Damaged) else kept
    try:
        entry = journal.read(entry_id)
    except (OtelDiagError, OSError) as error:
        if mine is None:
            raise
        return mine, f"{error}; the guardian's own copy of the entry is used"
    if entry is not None or mine is None or journal.closed(entry_id):
        return entry, ""
    return mine, f"the entry {entry_id} is gone, and nobody closed it; the guardian's own copy is used"


def _closed(journal: Journal, entry: Entry) -> str:
    try:
        journal.close(entry, watched=False)  # there is no other guardian that would have to know
    except OSError as error:
        return f"{entry.id}: the entry cannot be removed: {error}"
    return ""


def _marked(journal: Journal, entry: Entry, sentence: str) -> str:
    try:
        if journal.holds(entry.id):
            journal.write(entry.model_copy(update={"state": State.RETURNED, "note": sentence}))
    except OtelDiagError as error:
        return str(error)
    return ""


def load(opener: str) -> Opener:
    """Return the function named ``module:attribute``."""
    module, _, name = opener.partition(":")
    found: Callable[..., Any] = getattr(importlib.import_module(module), name)
    return found
