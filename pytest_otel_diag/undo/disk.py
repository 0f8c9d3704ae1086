"""Files that survive a power loss: what was kept is on the disk, whole, when the call returns."""

from __future__ import annotations

import os
from pathlib import Path

FOLDER_MODE = 0o700
FILE_MODE = 0o600


class Disk:
    """The steps that durable writing is made of; tests put a disk that loses power in its place."""

    def folder(self, path: Path) -> None:
        """Make the folder, for its owner only, with those above it; one that is there stays as it is."""
        if path.is_dir():
            return
        self.folder(path.parent)
        path.mkdir(mode=FOLDER_MODE, exist_ok=True)
        self.sync_folder(path.parent)

    def write(self, path: Path, data: bytes) -> None:
        """Write a new file, for its owner only."""
        flags = os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC
        with os.fdopen(os.open(path, flags, FILE_MODE), "wb") as file:
            file.write(data)

    def sync(self, path: Path) -> None:
        """Return when the content of the file is on the disk."""
        self._sync(path, os.O_RDONLY)

    def rename(self, old: Path, new: Path) -> None:
        """Put the file in the place of another, all at once."""
        old.replace(new)

    def sync_folder(self, path: Path) -> None:
        """Return when the names in the folder are on the disk."""
        self._sync(path, os.O_RDONLY | os.O_DIRECTORY)

    def remove(self, path: Path) -> None:
        """Remove the file; does nothing when it is gone."""
        path.unlink(missing_ok=True)

    def _sync(self, path: Path, flags: int) -> None:
        descriptor = os.open(path, flags | os.O_CLOEXEC)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)
