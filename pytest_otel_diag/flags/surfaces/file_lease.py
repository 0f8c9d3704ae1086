"""A lease file beside a flagd document, which keeps out runs on other hosts that share the folder.

The file names its holder. It is created by a hard link, which is atomic and fails when the file exists, on
local disks and on NFS. Its age is judged by the clock of the file system, never by those of the hosts.

It separates runs on one host (there also by a lock) and on hosts that share the folder (NFS, a mounted
volume). The lease of a dead holder expires after the time that it was taken for. It cannot keep out programs
that write the document without a lease (editors, flagd-ui), or hosts that reach the same flagd through
another folder. On a file system without hard links, taking it fails with an error that says so. Two hosts
that take over an expired lease within a few milliseconds are separated by reading it back, which a caching
network file system may defeat; the check for lost updates remains.
"""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from pytest_otel_diag.daemon import in_daemon
from pytest_otel_diag.errors import FlagError
from pytest_otel_diag.files import UnfitFile, open_regular, read_descriptor

LOCK_WAIT_S = 5.0
_LONGEST_BYTES = 65_536
_LONGEST_S = 24 * 3600.0
"""The longest time that a lease is believed to be taken for; runs renew theirs several times a minute."""
_THREAD = "otel-diag file lease"


@contextlib.contextmanager
def folder_locked(folder: Path, wait_s: float = LOCK_WAIT_S) -> Iterator[None]:
    """Lock the folder against other processes of this package on this host; creates no file.

    Continues without the lock where locks do not work (some network file systems), or when a stopped process
    holds it for longer than *wait_s* seconds: what it protects is checked by other means as well.
    """
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        give_up_s = time.monotonic() + wait_s
        while time.monotonic() < give_up_s:
            try:
                fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                time.sleep(0.005)
            except OSError:
                break
            else:
                break
        yield
    finally:
        os.close(descriptor)


@dataclass(frozen=True)
class _Held:
    owner: str
    seconds: float
    token: str
    since_s: float
    """Modification time, by the clock of the file system."""


class FileLease:
    """The lease of the document at *real*; acquiring it again renews it."""

    def __init__(self, real: Path) -> None:
        self.path = real.parent / f".{real.name}.otel-diag-lease"

    async def acquire(self, owner: str, *, seconds: float) -> str | None:
        """Take or renew the lease for *seconds*; return None on success, else the current holder.

        Raises FlagError when the folder cannot be written.
        """
        return await in_daemon(partial(self._acquire, owner, seconds), _THREAD)

    async def release(self, owner: str) -> None:
        """Release the lease; does nothing unless *owner* holds it. Raises FlagError."""
        await in_daemon(partial(self._release, owner), _THREAD)

    def _acquire(self, owner: str, seconds: float) -> str | None:
        try:
            # A run that is killed here leaves the folder; the next write of the document removes it.
            with tempfile.TemporaryDirectory(dir=self.path.parent, prefix=f"{self.path.name}-") as folder:
                ours = Path(folder) / "lease"
                body = {"owner": owner, "seconds": seconds, "token": Path(folder).name}
                ours.write_text(json.dumps(body), encoding="utf-8")
                with folder_locked(self.path.parent):
                    return self._take(owner, ours)
        except OSError as error:
            raise FlagError(
                f"the lease {self.path} cannot be used ({error.strerror or error}), so runs on other hosts "
                "cannot be kept out; delete what is no regular file, and make the folder writable, on a file "
                "system with hard links"
            ) from error

    def _take(self, owner: str, ours: Path) -> str | None:
        held = self._held()
        if held is not None and held.owner == owner:
            ours.replace(self.path)
            return None
        if held is not None and abs(ours.stat().st_mtime - held.since_s) < held.seconds:
            return held.owner  # a time far in the future comes from a clock that was set back since
        if held is not None:
            self._set_aside(held, ours.with_name("old"))
        with contextlib.suppress(FileExistsError):
            os.link(ours, self.path)
        found = self._held()
        return None if found is None or found.owner == owner else found.owner

    def _set_aside(self, held: _Held, aside: Path) -> None:
        """Remove an expired lease; a new one that replaced it in between is put back."""
        try:
            self.path.rename(aside)
        except FileNotFoundError:
            return
        moved = _read(aside)
        if moved is not None and moved.token != held.token:
            with contextlib.suppress(FileExistsError):
                os.link(aside, self.path)

    def _release(self, owner: str) -> None:
        try:
            held = self._held()
            if held is not None and held.owner == owner:
                self.path.unlink(missing_ok=True)
        except OSError as error:
            raise FlagError(
                f"the lease {self.path} cannot be released ({error.strerror or error}); delete it"
            ) from error

    def _held(self) -> _Held | None:
        return _read(self.path)


def _read(path: Path) -> _Held | None:
    """Return the holder, None without one; an illegible file counts as held for a minute.

    Raises OSError, UnfitFile for a pipe and the like.
    """
    try:
        descriptor = open_regular(path, follow=False)
    except FileNotFoundError:
        return None
    try:
        since_s = os.fstat(descriptor).st_mtime
        body = json.loads(read_descriptor(descriptor, limit_bytes=_LONGEST_BYTES, path=path))
        seconds = min(float(body["seconds"]), _LONGEST_S)
        return _Held(str(body["owner"]), seconds, str(body["token"]), since_s)
    except (UnfitFile, ValueError, TypeError, KeyError, RecursionError):
        return _Held(f"an unknown holder (see {path})", 60.0, "", since_s)
    finally:
        os.close(descriptor)
