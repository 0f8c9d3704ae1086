"""Reads and writes the JSON files of a run: whole files atomically, lines by appending."""

from __future__ import annotations

import json
import os
from pathlib import Path

from pydantic import BaseModel
from pydantic_core import PydanticSerializationError

from pytest_otel_diag.errors import OtelDiagError


class RunUnreadable(OtelDiagError):
    """A run directory cannot be read or written; the message names file and line."""


def to_json(value: BaseModel) -> str:
    """Return one line of JSON. Lone surrogates (broken text in telemetry) are kept as escapes.

    Read it back with ``Model.model_validate(json.loads(text))``: pydantic's own JSON parser refuses
    such escapes.
    """
    try:
        return value.model_dump_json()
    except PydanticSerializationError:
        return json.dumps(value.model_dump(mode="python"))


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
