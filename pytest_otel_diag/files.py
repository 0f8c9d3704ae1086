"""Opens files that other programs and users may have replaced: regular files only, never blocking, bounded.

Opening a named pipe waits for a writer, opening a device may have effects, and a sparse file may claim any
size. Every file that a person, another program or an earlier run may have left is read through this module.
Standard library only, since the guardian imports it when it starts.
"""

from __future__ import annotations

import errno
import os
import stat
from pathlib import Path

_KINDS = {
    stat.S_IFIFO: "a named pipe",
    stat.S_IFSOCK: "a socket",
    stat.S_IFCHR: "a character device",
    stat.S_IFBLK: "a block device",
    stat.S_IFDIR: "a folder",
    stat.S_IFLNK: "a symbolic link, which is not followed here",
}
_CHUNK_BYTES = 1 << 20


class UnfitFile(OSError):
    """The path names something other than a regular file of a supported size; ``strerror`` says what."""


def open_regular(path: Path, flags: int = os.O_RDONLY, *, follow: bool, mode: int = 0o600) -> int:
    """Return a descriptor of the regular file; never waits for another process.

    *follow* says whether the last part of the path may be a symbolic link. *flags* must not contain O_TRUNC,
    since the file is checked after it was opened. Raises UnfitFile for anything else than a regular file,
    OSError when it cannot be opened.
    """
    try:
        _check(path.stat(follow_symlinks=follow), path)  # opening a device may have effects
    except FileNotFoundError:
        if not flags & os.O_CREAT:
            raise
    extra = os.O_CLOEXEC | os.O_NONBLOCK | os.O_NOCTTY | (0 if follow else os.O_NOFOLLOW)
    descriptor = os.open(path, flags | extra, mode)
    try:
        _check(os.fstat(descriptor), path)  # it may have been replaced in between
    except UnfitFile:
        os.close(descriptor)
        raise
    return descriptor


def read_descriptor(descriptor: int, *, limit_bytes: int, path: Path) -> bytes:
    """Return the whole content from the start; raises UnfitFile for more than *limit_bytes*."""
    size = os.fstat(descriptor).st_size
    content, position = bytearray(), 0
    while size <= limit_bytes and position <= limit_bytes:
        part = os.pread(descriptor, min(_CHUNK_BYTES, limit_bytes + 1 - position), position)
        if not part:
            return bytes(content)
        content += part
        position += len(part)
    found = f"{max(size, position):,} bytes"
    raise UnfitFile(errno.EFBIG, f"it has {found}, more than the supported {limit_bytes:,}", str(path))


def read_regular(path: Path, *, limit_bytes: int, follow: bool) -> bytes:
    """Return the content of the regular file; raises UnfitFile, OSError as :func:`open_regular`."""
    descriptor = open_regular(path, follow=follow)
    try:
        return read_descriptor(descriptor, limit_bytes=limit_bytes, path=path)
    finally:
        os.close(descriptor)


def _check(found: os.stat_result, path: Path) -> None:
    if not stat.S_ISREG(found.st_mode):
        kind = _KINDS.get(stat.S_IFMT(found.st_mode), "no regular file")
        number = errno.EISDIR if stat.S_ISDIR(found.st_mode) else errno.EINVAL
        raise UnfitFile(number, f"it is {kind}; only a regular file can be used", str(path))
