"""What the guardian does once it has to: take one entry back, and write down that it did."""

from __future__ import annotations

import asyncio
import importlib
import os
import time
from collections.abc import Callable
from contextlib import suppress
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from pytest_otel_diag.errors import OtelDiagError
from pytest_otel_diag.undo.disk import FILE_MODE
from pytest_otel_diag.undo.heal import Opener, with_flags
from pytest_otel_diag.undo.journal import Entry, Journal, State
from pytest_otel_diag.undo.taking_back import take_back

LOG = "guardian.log"


def rescue(state_dir: Path, entry_id: str, *, opener: str, gone: bool) -> str:
    """Take the entry back; return what went wrong, empty when the fault is gone.

    With its owner *gone* the entry is closed; otherwise it stays, marked, until the owner has read it.
    """
    journal = Journal(state_dir)
    try:
        entry = journal.read(entry_id)
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


def _closed(journal: Journal, entry: Entry) -> str:
    try:
        journal.close(entry)
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


def log(state_dir: Path, text: str) -> None:
    """Append a dated line to the guardian's log."""
    now = datetime.fromtimestamp(time.time(), tz=UTC).isoformat(timespec="milliseconds")
    flags = os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC
    with os.fdopen(os.open(state_dir / LOG, flags, FILE_MODE), "a") as file:
        file.write(f"{now} [{os.getpid()}] {text}\n")
