"""What the guardian does when it has to act: restore one entry and write down that it did."""

from __future__ import annotations

import asyncio
import importlib
from collections.abc import Callable, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

from pytest_otel_diag.errors import OtelDiagError
from pytest_otel_diag.flags.controller import SurfaceFlags
from pytest_otel_diag.flags.surface import FlagAddress
from pytest_otel_diag.undo.guardian.log import log
from pytest_otel_diag.undo.heal import Opener, with_flags
from pytest_otel_diag.undo.journal import Damaged, Entry, Journal, State, decoded
from pytest_otel_diag.undo.remote_lease import release_left
from pytest_otel_diag.undo.restore import Restored, restore_entry


def restore_watched(
    state_dir: Path,
    entry_id: str,
    *,
    opener: str,
    gone: bool,
    copy: bytes = b"",
    access: Mapping[str, str] | None = None,
) -> str:
    """Restore the entry; return what went wrong, empty once the fault is off.

    With its owner *gone* the entry is closed; otherwise it stays, marked, until the owner has read it.
    *copy* is the text of the entry when the watch began: it is used when the file was damaged, or deleted
    without being closed. *access* is the address of the flags with its credentials, which no file has.
    """
    journal = Journal(state_dir)
    try:
        entry, remark = _entry(journal, entry_id, copy)
        if remark:
            with suppress(OSError):
                log(state_dir, remark)
        if entry is None or (entry.state is State.KEPT and gone):
            return ""
        work = _restore_and_release if gone else restore_entry
        known = FlagAddress.model_validate(access) if access else None
        outcome = asyncio.run(with_flags(entry, load(opener), work, known)).sentence
    except Exception as error:  # the guardian logs it and tries again
        return f"{entry_id}: {type(error).__name__}: {error}"
    why = "whose run has ended" if gone else "whose run exceeded its deadline"
    sentence = f"restored {entry.faults} of {entry.owner.sentence}, {why}: {outcome}"
    with suppress(OSError):
        log(state_dir, sentence)
    return _close(journal, entry) if gone else _mark(journal, entry, sentence)


async def _restore_and_release(entry: Entry, flags: SurfaceFlags) -> Restored:
    done = await restore_entry(entry, flags)
    await release_left(flags.surface.lease(), entry.owner)
    return done


def _entry(journal: Journal, entry_id: str, copy: bytes) -> tuple[Entry | None, str]:
    """Return the entry, None when it was closed, and a remark for the log when the copy is used."""
    kept = decoded(copy, journal.path(entry_id)) if copy else None
    own = None if isinstance(kept, Damaged) else kept
    try:
        entry = journal.read(entry_id)
    except (OtelDiagError, OSError) as error:
        if own is None:
            raise
        return own, f"{error}; the guardian's own copy of the entry is used"
    if entry is not None or own is None or journal.closed(entry_id):
        return entry, ""
    return own, f"the entry {entry_id} is gone, and nobody closed it; the guardian's own copy is used"


def _close(journal: Journal, entry: Entry) -> str:
    try:
        journal.close(entry, watched=False)  # this guardian was the only watcher
    except OtelDiagError as error:
        return str(error)
    return ""


def _mark(journal: Journal, entry: Entry, sentence: str) -> str:
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
