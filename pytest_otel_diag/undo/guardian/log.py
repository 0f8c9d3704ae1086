"""The guardian's log; standard library only, since it must work when nothing else can be imported."""

from __future__ import annotations

import os
import time
from datetime import UTC, datetime
from pathlib import Path

from pytest_otel_diag.files import open_regular
from pytest_otel_diag.undo.disk import FILE_MODE, FOLDER_MODE

LOG = "guardian.log"


def log(state_dir: Path, text: str) -> None:
    """Append a dated line to the guardian's log; raises OSError."""
    now = datetime.fromtimestamp(time.time(), tz=UTC).isoformat(timespec="milliseconds")
    state_dir.mkdir(mode=FOLDER_MODE, parents=True, exist_ok=True)
    with os.fdopen(open_log(state_dir), "a") as file:
        file.write(f"{now} [{os.getpid()}] {text}\n")


def open_log(state_dir: Path) -> int:
    """Return a descriptor that appends to the log; raises UnfitFile for a link, a pipe and the like."""
    flags = os.O_WRONLY | os.O_CREAT | os.O_APPEND
    return open_regular(state_dir / LOG, flags, follow=False, mode=FILE_MODE)
