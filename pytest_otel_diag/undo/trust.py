"""Which files of the state folder may be acted on: those that only this user, or root, can have written.

A journal entry names commands to run, modules to import and files to replace, and a lease names processes to
signal. A file that another user could have written would let that user act as this one. Standard library
only, since the guardian imports it when it starts.
"""

from __future__ import annotations

import errno
import os
import stat
from pathlib import Path

from pytest_otel_diag.files import open_regular, read_descriptor

ENTRY_BYTES = 64 * 1024 * 1024
"""The longest journal entry; flag documents are limited to a quarter of it."""

_ROOT = 0
_WRITABLE_BY_OTHERS = stat.S_IWGRP | stat.S_IWOTH


class Untrusted(OSError):
    """Another user could have written the file or folder; ``strerror`` says why and what to do."""


def check_state_folder(state_dir: Path, *parts: str) -> None:
    """Raise Untrusted unless only this user can write in the folder, and in the folders *parts* below it.

    Folders that do not exist pass. *state_dir* itself may be a symbolic link, the others may not.
    """
    _check_folder(state_dir, follow=True)
    folder = state_dir
    for part in parts:
        folder = folder / part
        _check_folder(folder, follow=False)


def _check_folder(folder: Path, *, follow: bool) -> None:
    try:
        found = folder.stat(follow_symlinks=follow)
    except FileNotFoundError:
        return
    if stat.S_ISLNK(found.st_mode):
        raise Untrusted(errno.EACCES, "it is a symbolic link; remove it", str(folder))
    if not stat.S_ISDIR(found.st_mode):
        raise Untrusted(errno.ENOTDIR, "it is not a folder; remove it", str(folder))
    _check(found, folder, remedy="name a folder of your own")


def read_trusted(path: Path, *, limit_bytes: int) -> bytes:
    """Return the content of a regular file that only this user can write.

    Raises Untrusted for a file of another user, UnfitFile for a link, a pipe and the like, OSError.
    """
    descriptor = open_regular(path, follow=False)
    try:
        _check(os.fstat(descriptor), path, remedy="let that user run the command")
        return read_descriptor(descriptor, limit_bytes=limit_bytes, path=path)
    finally:
        os.close(descriptor)


def _check(found: os.stat_result, path: Path, *, remedy: str) -> None:
    user = os.geteuid()
    if found.st_uid not in {user, _ROOT}:
        reason = f"it belongs to user {found.st_uid}, and this is user {user}; {remedy}"
        raise Untrusted(errno.EACCES, reason, str(path))
    if found.st_mode & _WRITABLE_BY_OTHERS:
        reason = f"other users can write it (mode {stat.filemode(found.st_mode)}); run chmod go-w {path}"
        raise Untrusted(errno.EACCES, reason, str(path))
