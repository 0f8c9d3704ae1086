"""The part of a journal entry that is known before anything is changed."""

from __future__ import annotations

from pathlib import Path

from pytest_otel_diag.flags.surface import FlagAccess
from pytest_otel_diag.undo.journal import Entry
from pytest_otel_diag.undo.owner import Owner


def draft(access: FlagAccess, identity: str, who: Owner, target: str) -> Entry:
    """Return the entry without its document; paths are made absolute, since others stand elsewhere."""
    kind, _, rest = access.control.partition(":")
    if kind == "file":
        access = access.model_copy(update={"control": f"file:{Path(rest).expanduser().absolute()}"})
    return Entry(
        id="draft",
        identity=identity,
        access=access,
        target=target,
        owner=who,
        started_ns=0,
        deadline_ns=0,
        previous=b"",
    )
