"""A flagd document in a file, for example in the folder that the demo's compose project mounts.

flagd must never see a partial file: it refuses it and keeps its current flags, faults included, and a flagd
that starts on one has no flags, so that every service uses its defaults. So the whole document is written to
a temporary file in the same folder, flushed to disk, and renamed over the real file. The file always exists,
since a flagd whose file was deleted no longer watches it and must be restarted. flagd polls the modification
time and reloads only for a newer one, so the new time is always later than the old one, even if that lies in
the future. Symlinks are followed: the file that they lead to is replaced.

A single file that is mounted into a container (``docker run -v FILE:FILE``) keeps its old content there after
a rename outside, which cannot be seen from outside: mount its folder. The witness reports such a fault as not
served. Inside that container the file is a mount point, which is refused with this explanation.

YAML documents are refused: writing one would lose its comments and anchors.
"""

from __future__ import annotations

import asyncio
import contextlib
import errno
import json
import os
import stat
import threading
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import TypeVar

from pytest_otel_diag.daemon import in_daemon
from pytest_otel_diag.errors import ConfigurationError, FlagError, LostUpdate
from pytest_otel_diag.files import open_regular, read_descriptor
from pytest_otel_diag.flags import document_json, document_text
from pytest_otel_diag.flags.document_text import LONGEST_BYTES
from pytest_otel_diag.flags.surface import Moved
from pytest_otel_diag.flags.surfaces.file_lease import LOCK_WAIT_S, FileLease, folder_locked
from pytest_otel_diag.flags.surfaces.file_replacement import (
    Metadata,
    flush_folder,
    is_mount_point,
    make_newer,
    metadata_of,
    opened_if_exists,
    owned_as,
    remove_stale,
    still_named,
    temporary_file,
)

SETTLE_S = 1.0
_RETRY_S = 0.05
_GRACE_S = 2 * LOCK_WAIT_S
_SHOWN_BYTES = 60
_THREAD = "otel-diag flag file"
_T = TypeVar("_T")


def open_surface(rest: str) -> FileSurface:
    """Return the surface of the file at the path *rest*; raises ConfigurationError for a YAML document."""
    return FileSurface(Path(rest))


class FileSurface:
    """The file at *path*. ``settle_s`` bounds the wait for a client that is writing it, in seconds.

    Raises ConfigurationError for a YAML document.
    """

    def __init__(self, path: Path, *, settle_s: float = SETTLE_S) -> None:
        self.path = Path(os.path.abspath(path.expanduser()))  # noqa: PTH100 - resolve() would follow links
        if self.path.suffix.lower() in {".yaml", ".yml"}:
            raise ConfigurationError(
                f"{self.path} is a YAML document, which would lose its comments when it is rewritten; "
                "configure flagd with a JSON document of the same flags"
            )
        self._settle_s = settle_s
        self._seen: Metadata | None = None

    @property
    def name(self) -> str:
        """The path."""
        return str(self.path)

    @property
    def control(self) -> str:
        """``file:`` and the absolute path."""
        return f"file:{self.path}"

    @property
    def write_timeout_s(self) -> float:
        """The wait for other writers on this host; the write itself takes milliseconds."""
        return LOCK_WAIT_S + self._settle_s

    @property
    def identity(self) -> str:
        """The path of the real file, symlinks resolved."""
        return str(self._real())

    def same(self, one: bytes, other: bytes) -> bool:
        """Return whether the bytes are equal."""
        return one == other

    def lease(self) -> FileLease:
        """Return the lease, a file in the folder of the real file."""
        return FileLease(self._real())

    def moved_from(self, identity: str) -> Moved | None:
        """Return where a symlink leads now, when it led to the file *identity* before."""
        now, former = self.identity, Path(identity)
        if not former.is_absolute() or now == identity:
            return None
        gone = not former.exists() or former.is_symlink()  # it was no link, so a link is another file
        return Moved(now, None if gone else FileSurface(former))

    async def describe(self) -> str:
        """Return the path."""
        return self.name

    async def aclose(self) -> None:
        """Do nothing: no file is held open."""

    async def read(self) -> bytes:
        """Return the bytes of the file; raises FlagError when it is not JSON or cannot be read.

        An empty or truncated file is read again for a bounded time, since a client may be writing it.
        """
        give_up_s = asyncio.get_running_loop().time() + self._settle_s
        while True:
            raw, metadata = await in_daemon(self._read_once, _THREAD)
            problem = _problem(raw)
            if not problem:
                self._seen = metadata
                return raw
            if asyncio.get_running_loop().time() >= give_up_s:
                raise FlagError(
                    f"{self.path} is {problem}, and still was after {self._settle_s:g} s: a running flagd "
                    "keeps its flags, and a restarted one has none. Restore the document (otel-diag heal, or "
                    "a copy of the demo's), or stop the program that writes it"
                )
            await asyncio.sleep(_RETRY_S)

    async def write(self, raw: bytes, *, expected: bytes) -> None:
        """Replace the file if it still holds *expected*; raises LostUpdate otherwise.

        Returns once the new file is on disk. Raises FlagError, and changes nothing, when flagd would refuse
        *raw*, or the file cannot be replaced or is no flagd document. A cancellation waits for a write that
        has begun, but not for a disk that hangs: such a write is abandoned before it replaces the file.
        """
        await _finished(partial(self._replace, raw, expected))

    async def overwrite(self, raw: bytes) -> None:
        """Replace the file, or create it; raises FlagError, also for a file that is no flagd document."""
        await _finished(partial(self._replace, raw, None))

    def _real(self) -> Path:
        return Path(os.path.realpath(self.path))

    def _read_once(self) -> tuple[bytes, Metadata]:
        """Return the bytes of one state of the file; empty when it changed during the read."""
        try:
            descriptor = open_regular(self._real(), follow=True)
            try:
                before = os.fstat(descriptor)
                raw = read_descriptor(descriptor, limit_bytes=LONGEST_BYTES, path=self.path)
                after = os.fstat(descriptor)
                metadata = metadata_of(descriptor, after)
            finally:
                os.close(descriptor)
        except OSError as error:
            raise self._unusable(error, "read") from error
        unchanged = (
            (before.st_mtime_ns, before.st_size)
            == (after.st_mtime_ns, after.st_size)
            == (
                after.st_mtime_ns,
                len(raw),
            )
        )
        return (raw if unchanged else b""), metadata

    def _replace(self, raw: bytes, expected: bytes | None, abandoned: threading.Event) -> None:
        document_text.parse(raw, self.name)  # a single mistake would make flagd refuse the whole file
        real = self._real()
        self._refuse_unusable(real)
        try:
            with folder_locked(real.parent):
                remove_stale(real)
                with temporary_file(real, raw) as temporary, opened_if_exists(real) as old:
                    self._copy_metadata(temporary, self._current_metadata(old))
                    self._check(old, expected, "before our write; nothing has changed")
                    self._refuse_other_content(old, raw)
                    if not still_named(old, real):
                        raise self._lost("before our write; nothing has changed")
                    if abandoned.is_set():
                        return
                    temporary.rename(real)
                    # Again after the rename, since a client may still have the old file open.
                    self._check(old, expected, "during our write; ours was stored, theirs is lost")
                    flush_folder(real.parent)
        except OSError as error:
            raise self._unusable(error, "replaced") from error
        self._seen = None

    def _current_metadata(self, old: int | None) -> Metadata:
        if old is None:
            return self._seen or Metadata(0o644, os.geteuid(), os.getegid(), 0)
        return metadata_of(old, os.fstat(old))

    def _check(self, old: int | None, expected: bytes | None, when: str) -> None:
        """Raise LostUpdate unless the old file holds the expected bytes."""
        if expected is None:
            return
        found = b"" if old is None else read_descriptor(old, limit_bytes=LONGEST_BYTES, path=self.path)
        if found != expected:
            raise self._lost(when)

    def _refuse_other_content(self, old: int | None, raw: bytes) -> None:
        """Raise FlagError for a file that does not hold a flagd document, whole or damaged."""
        found = b"" if old is None else read_descriptor(old, limit_bytes=LONGEST_BYTES, path=self.path)
        if not document_json.resembles(found, like=raw):
            raise FlagError(
                f"{self.path} does not hold a flagd document any more, so it was not replaced: it begins "
                f"with {found[:_SHOWN_BYTES]!r}. Put the document back (otel-diag heal writes the previous "
                "one once the path is free), or name the file that flagd reads"
            )

    def _lost(self, when: str) -> LostUpdate:
        return LostUpdate(
            f"{self.path} was written by another client {when}. Stop the other writer (an editor, a script, "
            "flagd-ui, which writes back what it holds in memory) and start again"
        )

    def _copy_metadata(self, temporary: Path, metadata: Metadata) -> None:
        """Give the new file the old owner and permissions and a later modification time; raises FlagError."""
        new = temporary.stat()
        kept = (new.st_uid, new.st_gid) == (metadata.uid, metadata.gid) or owned_as(temporary, metadata)
        if not kept and not metadata.mode & stat.S_IROTH:
            raise FlagError(
                f"{self.path} belongs to user {metadata.uid} and group {metadata.gid}, which this user "
                f"cannot set, and others may not read it (mode {stat.filemode(metadata.mode)}), so flagd "
                f"might lose access. Allow others to read it (chmod o+r {self.path}), or run as its owner"
            )
        for name, value in metadata.extended:
            with contextlib.suppress(OSError):  # attributes that only the system may set
                os.setxattr(temporary, name, value)
        temporary.chmod(stat.S_IMODE(metadata.mode))
        make_newer(temporary, metadata.mtime_ns)

    def _refuse_unusable(self, real: Path) -> None:
        if is_mount_point(real):
            raise FlagError(
                f"{self.path} is a mount point of its own, so it cannot be replaced atomically, and flagd "
                "could read a partial file. Mount its folder instead, or write the file outside of the mount"
            )
        try:
            read_only = os.statvfs(real.parent).f_flag & os.ST_RDONLY
        except OSError as error:
            raise self._unusable(error, "replaced") from error
        if read_only:
            raise FlagError(
                f"{real.parent} is mounted read-only, like a ConfigMap or a volume with :ro; write the "
                "ConfigMap itself (configmap:NAMESPACE/NAME), or the folder on the host"
            )

    def _unusable(self, error: OSError, what: str) -> FlagError:
        remedies = {
            errno.ENOENT: "check that it is the path on this machine, not the one in the container",
            errno.EACCES: f"give user {os.geteuid()} permission, or run as its owner (a container may "
            "have written it as root)",
            errno.EPERM: f"give user {os.geteuid()} permission, or run as its owner",
            errno.EROFS: "the file system is read-only; write the flags at their source",
            errno.ENOSPC: "the disk is full; the old document is unchanged",
            errno.EISDIR: "name the document, not its folder",
        }
        remedy = remedies.get(error.errno or 0, "the old document is unchanged")
        return FlagError(f"{self.path} cannot be {what} ({error.strerror or error}): {remedy}")


def _problem(raw: bytes) -> str:
    """Return what is wrong with a document that a client may be writing, empty for valid JSON."""
    if not raw.strip():
        return "empty"
    try:
        json.loads(raw)
    except (ValueError, RecursionError) as error:
        return f"not JSON ({error})"
    return ""


async def _finished(call: Callable[[threading.Event], _T]) -> _T:
    """Return the result of *call*, run in a thread; a cancellation waits until the thread has ended.

    Not for a thread that does not end within the time for a write: that one gets the event set.
    """
    abandoned = threading.Event()
    loop = asyncio.get_running_loop()
    task = asyncio.ensure_future(in_daemon(partial(call, abandoned), _THREAD))
    try:
        return await asyncio.shield(task)
    except asyncio.CancelledError:
        give_up_s = loop.time() + _GRACE_S
        while not task.done() and (left_s := give_up_s - loop.time()) > 0:
            with contextlib.suppress(asyncio.CancelledError):  # raised below, once
                await asyncio.wait({task}, timeout=left_s)
        if task.done():
            task.exception()  # retrieved, so that asyncio does not log it: the cancellation goes on
        abandoned.set()
        task.cancel()
        raise
