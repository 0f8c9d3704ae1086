"""File operations that durable writes consist of, so that a file survives a power loss whole."""

from __future__ import annotations

import os
from pathlib import Path

from pytest_otel_diag.files import open_regular

FOLDER_MODE = 0o700
FILE_MODE = 0o600


class Disk:
    """The steps of a durable write; tests replace it by a disk that loses power."""

    def folder(self, path: Path) -> None:
        """Create the folder and its parents, accessible to the user only; does nothing if it exists."""
        if path.is_dir():
            return
        self.folder(path.parent)
        path.mkdir(mode=FOLDER_MODE, exist_ok=True)
        self.sync_folder(path.parent)

    def write(self, path: Path, data: bytes) -> None:
        """Write a file that only the user can read; raises UnfitFile for a link, a pipe and the like."""
        descriptor = open_regular(path, os.O_WRONLY | os.O_CREAT, follow=False, mode=FILE_MODE)
        with os.fdopen(descriptor, "wb") as file:
            file.truncate()
            file.write(data)

    def sync(self, path: Path) -> None:
        """Flush the content of the file to disk."""
        self._sync(path, os.O_RDONLY)

    def rename(self, old: Path, new: Path) -> None:
        """Replace *new* by *old* atomically."""
        old.replace(new)

    def sync_folder(self, path: Path) -> None:
        """Flush the names in the folder to disk."""
        self._sync(path, os.O_RDONLY | os.O_DIRECTORY)

    def remove(self, path: Path) -> None:
        """Delete the file; does nothing if it does not exist."""
        path.unlink(missing_ok=True)

    def _sync(self, path: Path, flags: int) -> None:
        descriptor = os.open(path, flags | os.O_CLOEXEC)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)
