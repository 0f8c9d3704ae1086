"""The steps of replacing a file by a new one that inherits its owner, permissions and attributes."""

from __future__ import annotations

import contextlib
import os
import shutil
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from pytest_otel_diag.files import open_regular

_NEWER_STEPS_NS = (1_000_000, 1_000_000_000, 2_000_000_000, 4_000_000_000)
"""Steps for the new modification time, which file systems round to 1 ns, 1 s or 2 s."""
_STALE_S = 60.0
_MOUNTS = Path("/proc/self/mountinfo")


@dataclass(frozen=True)
class Metadata:
    """What a new file inherits from the one it replaces."""

    mode: int
    uid: int
    gid: int
    mtime_ns: int
    extended: tuple[tuple[str, bytes], ...] = ()


def metadata_of(descriptor: int, found: os.stat_result) -> Metadata:
    """Return what a file that replaces the opened one inherits."""
    extended: list[tuple[str, bytes]] = []
    if hasattr(os, "listxattr"):  # Linux alone
        with contextlib.suppress(OSError):
            extended = [(name, os.getxattr(descriptor, name)) for name in os.listxattr(descriptor)]
    return Metadata(found.st_mode, found.st_uid, found.st_gid, found.st_mtime_ns, tuple(extended))


@contextlib.contextmanager
def opened_if_exists(path: Path) -> Iterator[int | None]:
    """Yield a descriptor of the file, None when it does not exist; raises UnfitFile, OSError."""
    try:
        descriptor = open_regular(path, follow=True)
    except FileNotFoundError:
        yield None
        return
    try:
        yield descriptor
    finally:
        os.close(descriptor)


def still_named(old: int | None, path: Path) -> bool:
    """Return whether *path* still names the opened file, or still names none."""
    try:
        now = path.stat()
    except FileNotFoundError:
        return old is None
    return old is not None and os.path.samestat(now, os.fstat(old))


@contextlib.contextmanager
def temporary_file(real: Path, raw: bytes) -> Iterator[Path]:
    """Yield a new file in the folder of *real* with *raw* on disk; deleted unless it was renamed."""
    descriptor, name = tempfile.mkstemp(dir=real.parent, prefix=_prefix(real), suffix=".tmp")
    temporary = Path(name)
    try:
        with os.fdopen(descriptor, "wb") as file:
            file.write(raw)
            file.flush()
            os.fsync(file.fileno())
        yield temporary
    finally:
        temporary.unlink(missing_ok=True)


def _prefix(real: Path) -> str:
    return f".{real.name}.otel-diag-"


def lease_prefix(real: Path) -> str:
    """Return how the names of folders begin in which a lease of the document is prepared."""
    return f"{_prefix(real)}lease-"


def remove_stale(real: Path, stale_s: float = _STALE_S) -> None:
    """Delete temporary files and folders, *stale_s* seconds old or more, that killed processes left.

    Their age is judged by the clock of the file system.
    """
    for path in real.parent.iterdir():
        temporary = path.name.startswith(_prefix(real)) and path.suffix == ".tmp"
        if not temporary and not path.name.startswith(lease_prefix(real)):
            continue
        with contextlib.suppress(OSError):
            if real.parent.stat().st_mtime - path.lstat().st_ctime > stale_s:
                if path.is_dir() and not path.is_symlink():
                    shutil.rmtree(path)
                else:
                    path.unlink()


def owned_as(path: Path, metadata: Metadata) -> bool:
    """Give the file its owner and group, as far as this user may; return whether both were set."""
    try:
        os.chown(path, metadata.uid, metadata.gid)
    except PermissionError:
        with contextlib.suppress(PermissionError):
            os.chown(path, -1, metadata.gid)
        return False
    return True


def make_newer(path: Path, than_ns: int) -> None:
    """Make the modification time later than *than_ns*, by as little as the file system allows."""
    for step_ns in _NEWER_STEPS_NS:
        if path.stat().st_mtime_ns > than_ns:
            return
        os.utime(path, ns=(than_ns + step_ns, than_ns + step_ns))


def flush_folder(folder: Path) -> None:
    """Flush the names in the folder to disk, where the file system can."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        with contextlib.suppress(OSError):  # not supported by every file system; the rename is done anyway
            os.fsync(descriptor)
    finally:
        os.close(descriptor)


def is_mount_point(path: Path) -> bool:
    """Return whether the path itself is a mount point, where the system says so."""
    try:
        lines = _MOUNTS.read_text(encoding="utf-8", errors="surrogateescape").splitlines()
    except OSError:
        return False
    mounted = (line.split()[4] for line in lines)
    return str(path) in {_unescaped(place) for place in mounted}


def _unescaped(place: str) -> str:
    for code, character in (("\\040", " "), ("\\011", "\t"), ("\\012", "\n"), ("\\134", "\\")):
        place = place.replace(code, character)
    return place
