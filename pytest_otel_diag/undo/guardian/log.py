"""The guardian's log; standard library only, since it must work when nothing else can be imported."""

from __future__ import annotations

import os
import time
from datetime import UTC, datetime
from pathlib import Path

from pytest_otel_diag.undo.disk import FILE_MODE, FOLDER_MODE

LOG = "guardian.log"


def log(state_dir: Path, text: str) -> None:
    """Append a dated line to the guardian's log; raises OSError."""
    now = datetime.fromtimestamp(time.time(), tz=UTC).isoformat(timespec="milliseconds")
    state_dir.mkdir(mode=FOLDER_MODE, parents=True, exist_ok=True)
    flags = os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC
    with os.fdopen(os.open(state_dir / LOG, flags, FILE_MODE), "a") as file:
        file.write(f"{now} [{os.getpid()}] {text}\n")
