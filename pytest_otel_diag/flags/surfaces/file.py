"""The flagd document in a file: the folder that the demo's compose project mounts, or any other.

flagd must never see half a file: it refuses an empty or broken one and keeps the flags it had, faults among
them, and when it starts on one it has no flags, so that every service uses its own defaults. So the whole
document is written beside the real file, flushed to disk, and renamed over it. The file is never gone: a
flagd that sees its file deleted watches it no more and has to be restarted. flagd polls the file's
modification time and reloads for a newer one only, so the new time is always later than the old one, even
where that lies in the future. Links are followed: what is replaced is the file at their end.

A file that was mounted by itself into a container (``docker run -v FILE:FILE``) stays the old one in there
when it is renamed over outside, and nothing on this side tells: mount its folder. The witness finds such a
fault not served. Seen from inside that container the file is a mount point, which is refused with that
explanation.

YAML documents are refused: writing one back would lose its comments and anchors.
"""

from __future__ import annotations

import asyncio
import contextlib
import errno
import json
import os
import stat
import tempfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

from pytest_otel_diag.errors import ConfigurationError, FlagError, LostUpdate
from pytest_otel_diag.flags import document_text
from pytest_otel_diag.flags.surface import Moved
from pytest_otel_diag.flags.surfaces.file_lease import LOCK_WAIT_S, FileLease, folder_locked

SETTLE_S = 1.0
_RETRY_S = 0.05
_NEWER_STEPS_NS = (1_000_000, 1_000_000_000, 2_000_000_000, 4_000_000_000)
"""How much later the new modification time is tried to be: file systems keep it to 1 ns, 1 s or 2 s."""
_STALE_S = 3600.0
_MOUNTS = Path("/proc/self/mountinfo")

_T = TypeVar("_T")


def open_surface(rest: str) -> FileSurface:
    """Return the surface of the file at *rest*; raises ConfigurationError for a file of another kind."""
    return FileSurface(Path(rest))


@dataclass(frozen=True)
class _Looks:
    """What a new file takes over from the one it replaces."""

    mode: int
    uid: int
    gid: int
    mtime_ns: int
    extended: tuple[tuple[str, bytes], ...] = ()


class FileSurface:
    """The file at *path*, absolute from now on. ``settle_s`` bounds the wait for somebody who is writing it.

    Raises ConfigurationError for a YAML document.
    """

    def __init__(self, path: Path, *, settle_s: float = SETTLE_S) -> None:
        self.path = Path(os.path.abspath(path.expanduser()))  # noqa: PTH100 - resolve() would follow links
        if self.path.suffix.lower() in {".yaml", ".yml"}:
            raise ConfigurationError(
                f"{self.path} is a YAML document, which would lose its comments when it is written back; "
                "let flagd read a JSON one, with the same flags"
            )
        self._settle_s = settle_s
        self._seen: _Looks | None = None

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
        """The path of the real file, links followed."""
        return str(self._real())

    def same(self, one: bytes, other: bytes) -> bool:
        """Whether the two are the same bytes."""
        return one == other

    def lease(self) -> FileLease:
        """Return the lease that lies beside the real file."""
        return FileLease(self._real())

    def moved_from(self, identity: str) -> Moved | None:
        """Return where a symlink leads now, when it led to the file *identity* before."""
        now, former = self.identity, Path(identity)
        if not former.is_absolute() or now == identity:
            return None
        return Moved(now, FileSurface(former) if former.exists() else None)

    async def describe(self) -> str:
        """Return the path."""
        return self.name

    async def aclose(self) -> None:
        """Nothing is held open."""

    async def read(self) -> bytes:
        """Return the file's bytes, whole; raises FlagError when it is no JSON document, or cannot be read.

        A file that is empty or breaks off is read again for a bounded time: somebody may be writing it.
        """
        give_up_s = asyncio.get_running_loop().time() + self._settle_s
        while True:
            raw, looks = await _finished(self._read_once)
            problem = _problem(raw)
            if not problem:
                self._seen = looks
                return raw
            if asyncio.get_running_loop().time() >= give_up_s:
                raise FlagError(
                    f"{self.path} is {problem}, and still was after {self._settle_s:g} s: flagd "
                    "keeps the flags it had, and has none when it starts. Put the document back "
                    "(otel-diag heal, or a copy of the demo's), or stop what writes it"
                )
            await asyncio.sleep(_RETRY_S)

    async def write(self, raw: bytes, *, expected: bytes) -> None:
        """Replace the file, if it still holds *expected*; raises LostUpdate otherwise.

        Raises FlagError and changes nothing when flagd would refuse *raw*, or the file cannot be replaced.
        Returns when the new one is on disk. Cancelling waits for the end of a write that has begun.
        """
        await _finished(lambda: self._replace(raw, expected))

    async def overwrite(self, raw: bytes) -> None:
        """Replace the file, or create it; raises FlagError."""
        await _finished(lambda: self._replace(raw, None))

    def _real(self) -> Path:
        return Path(os.path.realpath(self.path))

    def _read_once(self) -> tuple[bytes, _Looks]:
        """Return the bytes of one state of the file; empty when it changed while it was read."""
        try:
            with self._real().open("rb") as file:
                before = os.fstat(file.fileno())
                raw = file.read()
                after = os.fstat(file.fileno())
                looks = _looks(file.fileno(), after)
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
        return (raw if unchanged else b""), looks

    def _replace(self, raw: bytes, expected: bytes | None) -> None:
        document_text.parse(raw, self.name)  # one bad default variant, and flagd would refuse the whole file
        real = self._real()
        self._refuse_unusable(real)
        try:
            with folder_locked(real.parent):
                _remove_stale(real)
                with _written_beside(real, raw) as temporary, _opened(real) as old:
                    self._dress(temporary, self._current_looks(old))
                    self._check(old, expected, "before our write; nothing has changed")
                    if not _still_named(old, real):
                        raise self._lost("before our write; nothing has changed")
                    temporary.rename(real)
                    # Also once it has no name any more: somebody may have it open.
                    self._check(old, expected, "at the moment of our write; ours is in place, theirs is lost")
                    _flush_folder(real.parent)
        except OSError as error:
            raise self._unusable(error, "replaced") from error
        self._seen = None

    def _current_looks(self, old: int | None) -> _Looks:
        if old is None:
            return self._seen or _Looks(0o644, os.geteuid(), os.getegid(), 0)
        return _looks(old, os.fstat(old))

    def _check(self, old: int | None, expected: bytes | None, when: str) -> None:
        """Raise LostUpdate unless the old file holds what was expected."""
        if expected is None:
            return
        found = b"" if old is None else os.pread(old, os.fstat(old).st_size + 1, 0)
        if found != expected:
            raise self._lost(when)

    def _lost(self, when: str) -> LostUpdate:
        return LostUpdate(
            f"{self.path} was written by somebody else {when}. Close what edits it (an editor, a script, "
            "flagd-ui, which writes back what it keeps in memory) and start again"
        )

    def _dress(self, temporary: Path, looks: _Looks) -> None:
        """Give the new file owner, permissions and a later modification time; raises FlagError."""
        new = temporary.stat()
        kept = (new.st_uid, new.st_gid) == (looks.uid, looks.gid) or _owned_as(temporary, looks)
        if not kept and not looks.mode & stat.S_IROTH:
            raise FlagError(
                f"{self.path} belongs to user {looks.uid} and group {looks.gid}, which we cannot keep, and "
                f"others may not read it (mode {stat.filemode(looks.mode)}): flagd could lose it. Allow "
                f"others to read it (chmod o+r {self.path}), or run as its owner"
            )
        for name, value in looks.extended:
            with contextlib.suppress(OSError):  # labels that only the system may set
                os.setxattr(temporary, name, value)
        temporary.chmod(stat.S_IMODE(looks.mode))
        _make_newer(temporary, looks.mtime_ns)

    def _refuse_unusable(self, real: Path) -> None:
        if _is_mount_point(real):
            raise FlagError(
                f"{self.path} is mounted by itself: it cannot be replaced as a whole, and a file written in "
                "place can be read half. Mount its folder, or write the file on the other side of the mount"
            )
        try:
            read_only = os.statvfs(real.parent).f_flag & os.ST_RDONLY
        except OSError as error:
            raise self._unusable(error, "replaced") from error
        if read_only:
            raise FlagError(
                f"{real.parent} is mounted read-only, as a ConfigMap or a volume with :ro is; write the "
                "ConfigMap itself (configmap:NAMESPACE/NAME), or the folder on the host"
            )

    def _unusable(self, error: OSError, what: str) -> FlagError:
        ways = {
            errno.ENOENT: "is it the path on this machine, not the one in the container?",
            errno.EACCES: f"allow user {os.geteuid()} to, or run as its owner (containers may have "
            "written it as root)",
            errno.EPERM: f"allow user {os.geteuid()} to, or run as its owner",
            errno.EROFS: "the file system is read-only; write the flags where they come from",
            errno.ENOSPC: "the disk is full; the old document is still in place",
            errno.EISDIR: "give the document in it, not the folder",
        }
        way = ways.get(error.errno or 0, "the old document is still in place")
        return FlagError(f"{self.path} cannot be {what} ({error.strerror or error}): {way}")


def _problem(raw: bytes) -> str:
    """Return what is wrong with a document that may be written this very moment, '' when nothing is."""
    if not raw.strip():
        return "empty"
    try:
        json.loads(raw)
    except (ValueError, RecursionError) as error:
        return f"not JSON ({error})"
    return ""


async def _finished(call: Callable[[], _T]) -> _T:
    """Return what *call* does in a thread; a cancel is passed on once the thread has ended."""
    task: asyncio.Future[_T] = asyncio.ensure_future(asyncio.to_thread(call))
    try:
        return await asyncio.shield(task)
    except asyncio.CancelledError:
        while not task.done():
            with contextlib.suppress(asyncio.CancelledError):  # it is passed on below, once
                await asyncio.wait({task})
        task.exception()  # seen; the cancel says more
        raise


def _looks(descriptor: int, found: os.stat_result) -> _Looks:
    extended: list[tuple[str, bytes]] = []
    if hasattr(os, "listxattr"):  # Linux alone
        with contextlib.suppress(OSError):
            extended = [(name, os.getxattr(descriptor, name)) for name in os.listxattr(descriptor)]
    return _Looks(found.st_mode, found.st_uid, found.st_gid, found.st_mtime_ns, tuple(extended))


@contextlib.contextmanager
def _opened(path: Path) -> Iterator[int | None]:
    """Yield a descriptor of the file, None when there is none."""
    try:
        descriptor = os.open(path, os.O_RDONLY)
    except FileNotFoundError:
        yield None
        return
    try:
        yield descriptor
    finally:
        os.close(descriptor)


def _still_named(old: int | None, path: Path) -> bool:
    """Whether *path* is still the file that was opened, or still none."""
    try:
        now = path.stat()
    except FileNotFoundError:
        return old is None
    return old is not None and os.path.samestat(now, os.fstat(old))


@contextlib.contextmanager
def _written_beside(real: Path, raw: bytes) -> Iterator[Path]:
    """Yield a new file beside *real* that holds *raw* and is on disk; removed unless it was renamed."""
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


def _remove_stale(real: Path, stale_s: float = _STALE_S) -> None:
    """Remove what processes left behind that were killed in the middle of a write, *stale_s* ago or more."""
    for path in real.parent.glob(f"{_prefix(real)}*.tmp"):
        with contextlib.suppress(OSError):
            if real.parent.stat().st_mtime - path.stat().st_ctime > stale_s:
                path.unlink()


def _owned_as(path: Path, looks: _Looks) -> bool:
    try:
        os.chown(path, looks.uid, looks.gid)
    except PermissionError:
        with contextlib.suppress(PermissionError):
            os.chown(path, -1, looks.gid)
        return False
    return True


def _make_newer(path: Path, than_ns: int) -> None:
    """Make the modification time later than *than_ns*, by no more than the file system needs."""
    for step_ns in _NEWER_STEPS_NS:
        if path.stat().st_mtime_ns > than_ns:
            return
        os.utime(path, ns=(than_ns + step_ns, than_ns + step_ns))


def _flush_folder(folder: Path) -> None:
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        with contextlib.suppress(OSError):  # file systems that cannot: the rename is done all the same
            os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _is_mount_point(path: Path) -> bool:
    """Whether the path itself is mounted, as far as the system tells."""
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
