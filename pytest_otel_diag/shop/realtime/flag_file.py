"""The flags of a document on disk, read again whenever the file changes."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from pathlib import Path

from pytest_otel_diag.errors import ConfigurationError, FlagError
from pytest_otel_diag.shop.flag_provider import Evaluation, FlagProvider, FlagScalar


class FlagFile:
    """Answers from the file at *path*, which *parse* makes flags of.

    A change is seen at the next question, by the file's modification time, size or identity: a rename over
    it and a write in place both count. What cannot be read, or what *parse* refuses with a FlagError,
    leaves the flags as they were, as flagd does; *tell* gets the reason once. Raises ConfigurationError
    when the file cannot be used at the start.
    """

    def __init__(
        self, path: Path, parse: Callable[[bytes], FlagProvider], *, tell: Callable[[str], object]
    ) -> None:
        self._path = path
        self._parse = parse
        self._tell = tell
        self._seen: tuple[int, int, int] | None = None
        try:
            self._seen = self._signature()
            self._flags = parse(path.read_bytes())
        except (OSError, FlagError) as error:
            raise ConfigurationError(f"flag file {path} cannot be used: {error}") from error

    def evaluate(self, key: str, default: FlagScalar, context: Mapping[str, FlagScalar]) -> Evaluation:
        """Return what the file says now; an unknown flag answers *default* with reason ERROR."""
        self._refresh()
        return self._flags.evaluate(key, default, context)

    def _refresh(self) -> None:
        signature = self._signature_or_none()
        if signature == self._seen:
            return
        self._seen = signature
        try:
            self._flags = self._parse(self._path.read_bytes())
        except (OSError, FlagError) as error:
            self._tell(f"flag file {self._path}: {error}; flags stay as they were")
        else:
            self._tell(f"flag file {self._path} read again")

    def _signature(self) -> tuple[int, int, int]:
        status = os.stat(self._path)  # noqa: PTH116 - on every question, and Path.stat costs twice as much
        return status.st_mtime_ns, status.st_size, status.st_ino

    def _signature_or_none(self) -> tuple[int, int, int] | None:
        try:
            return self._signature()
        except OSError:
            return None
