"""Reads and writes the JSON files of a run: whole files atomically, lines by appending."""

from __future__ import annotations

import os
from pathlib import Path

from pydantic import BaseModel

from pytest_otel_diag.errors import OtelDiagError
from pytest_otel_diag.model.base import to_json


class RunUnreadable(OtelDiagError):
    """A run directory cannot be read or written; the message names file and line."""


def write_atomically(file: Path, value: BaseModel) -> None:
    """Replace *file* by the value as JSON; readers see the old file or the new one, never a part."""
    # Not tempfile: its files are for their owner alone, and reports are read by whoever serves them.
    temporary = file.with_name(f".{file.name}.{os.getpid()}.part")
    try:
        with temporary.open("wb") as stream:
            stream.write(to_json(value).encode() + b"\n")
            stream.flush()
            os.fsync(stream.fileno())
        temporary.replace(file)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise


class LineAppender:
    """Appends lines to a file that other processes append to as well.

    Each line is one write to a file opened with ``O_APPEND``, so lines of several processes do not mix and
    readers see a line once :meth:`append` returns, even if the process is killed afterwards.
    """

    def __init__(self, file: Path) -> None:
        flags = os.O_WRONLY | os.O_APPEND | os.O_CREAT | getattr(os, "O_BINARY", 0)
        self._descriptor: int | None = os.open(file, flags, 0o666)
        self._torn = False

    def append(self, value: BaseModel) -> None:
        """Append the value as one line; raises OSError, for example on a full disk or after :meth:`close`."""
        if self._descriptor is None:
            raise OSError("the file is closed")
        line = to_json(value).encode() + b"\n"
        if self._torn:  # let readers tell the new line from the part of the last one
            line = b"\n" + line
        self._torn = True
        self._torn = os.write(self._descriptor, line) < len(line)

    def close(self) -> None:
        """Close the file; may be called twice."""
        if self._descriptor is not None:
            os.close(self._descriptor)
            self._descriptor = None
