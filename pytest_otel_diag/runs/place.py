"""Names where a run is kept before anything of it exists. Imports the standard library only."""

from __future__ import annotations

import random
import tempfile
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path


@dataclass(frozen=True)
class RunPlace:
    """The folder of a run, ``reports/<run-id>``, and when the run began (UTC nanoseconds).

    All processes of a run share one place. The folder is created by the first session.
    """

    directory: Path
    started_ns: int

    @classmethod
    def new(cls, reports: Path, now_ns: int) -> RunPlace:
        """Return a place below *reports* that no other run has."""
        return cls(reports / new_run_id(now_ns, random.SystemRandom()), now_ns)

    @property
    def run_id(self) -> str:
        """The id of the run, which names its folder."""
        return self.directory.name


def new_run_id(now_ns: int, rng: random.Random) -> str:
    """Return a run id that sorts by time: ``20261123T120529Z-4f2a9c``."""
    moment = datetime.fromtimestamp(now_ns // 1_000_000_000, tz=UTC)
    return f"{moment:%Y%m%dT%H%M%SZ}-{rng.getrandbits(24):06x}"


def from_here(path: Path) -> Path:
    """Return the path as one would type it in the current folder: relative to it where it is below it."""
    try:
        return path.relative_to(Path.cwd())
    except (ValueError, OSError):  # elsewhere, or the current folder is gone
        return path


def why_unwritable(folder: Path) -> str:
    """Return why nothing can be written to *folder*, which may not exist yet; empty if something can."""
    existing = folder
    try:
        existing = next(path for path in (folder, *folder.parents) if path.exists())
        if not existing.is_dir():
            return f"{existing} is not a folder"
        # Permissions alone do not show what a file system refuses, as /proc does.
        tempfile.TemporaryDirectory(prefix=".otel-diag-", dir=existing).cleanup()
    except OSError as error:
        return f"nothing can be created in {existing} ({error.strerror})"
    return ""
