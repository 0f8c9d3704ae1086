"""States of a path that a hostile or broken environment may leave, for tests that must not hang on them."""

from __future__ import annotations

import os
import shutil
import socket
import threading
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.support.deadlines import deadline_s

SPARSE_BYTES = 1 << 40


def _fifo(path: Path) -> None:
    os.mkfifo(path)


def _socket(path: Path) -> None:
    here = Path.cwd()
    os.chdir(path.parent)  # the address of a socket is limited to about 100 bytes
    try:
        with socket.socket(socket.AF_UNIX) as made:
            made.bind(path.name)
    finally:
        os.chdir(here)


def _endless_device(path: Path) -> None:
    path.symlink_to("/dev/zero")


def _folder(path: Path) -> None:
    path.mkdir()


def _loop(path: Path) -> None:
    path.symlink_to(path.name)


def _sparse(path: Path) -> None:
    with path.open("wb") as file:
        file.truncate(SPARSE_BYTES)


STATES: dict[str, Callable[[Path], None]] = {
    "named pipe": _fifo,
    "socket": _socket,
    "endless device": _endless_device,
    "folder": _folder,
    "link to itself": _loop,
    "sparse file": _sparse,
}


def put(state: str, path: Path) -> None:
    """Replace whatever *path* is by the state."""
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)
    path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
    STATES[state](path)


def in_time(call: Callable[[], object]) -> object:
    """Return the result of *call*, or its error; fails when it does not return in a generous time."""
    outcome: list[object] = []

    def work() -> None:
        try:
            outcome.append(call())
        except Exception as error:
            outcome.append(error)

    thread = threading.Thread(target=work, daemon=True)
    thread.start()
    thread.join(deadline_s(20))
    if not outcome:
        pytest.fail("it hangs")
    return outcome[0]
