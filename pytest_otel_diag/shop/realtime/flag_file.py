"""Flags of a document on disk, reloaded whenever the file changes."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from pathlib import Path

from pytest_otel_diag.errors import ConfigurationError, FlagError
from pytest_otel_diag.files import read_regular
from pytest_otel_diag.shop.flag_provider import Evaluation, FlagProvider, FlagScalar

_LONGEST_BYTES = 16 * 1024 * 1024


class FlagFileProvider:
    """Evaluates the flags of the file at *path*, which *parse* converts to a provider.

    Each evaluation checks the file's modification time, size and identity, so it detects a rename over the
    file and a write in place. When the file cannot be read or *parse* raises FlagError, the flags stay
    unchanged, as in flagd, and *notify* gets the reason once. Raises ConfigurationError when the file cannot
    be used at the start.
    """

    def __init__(
        self, path: Path, parse: Callable[[bytes], FlagProvider], *, notify: Callable[[str], object]
    ) -> None:
        self._path = path
        self._parse = parse
        self._notify = notify
        self._seen: tuple[int, int, int] | None = None
        try:
            self._seen = self._signature()
            self._flags = parse(_content(path))
        except (OSError, FlagError) as error:
            raise ConfigurationError(f"flag file {path} cannot be used: {error}") from error

    def evaluate(self, key: str, default: FlagScalar, context: Mapping[str, FlagScalar]) -> Evaluation:
        """Evaluate a flag of the current file; an unknown flag returns *default* with reason ERROR."""
        self._refresh()
        return self._flags.evaluate(key, default, context)

    def _refresh(self) -> None:
        signature = self._signature_or_none()
        if signature == self._seen:
            return
        self._seen = signature
        try:
            self._flags = self._parse(_content(self._path))
        except (OSError, FlagError) as error:
            self._notify(f"flag file {self._path}: {error}; flags are unchanged")
        else:
            self._notify(f"flag file {self._path} reloaded")

    def _signature(self) -> tuple[int, int, int]:
        status = os.stat(self._path)  # noqa: PTH116 - runs at every evaluation, and Path.stat costs twice as much
        return status.st_mtime_ns, status.st_size, status.st_ino

    def _signature_or_none(self) -> tuple[int, int, int] | None:
        try:
            return self._signature()
        except OSError:
            return None


def _content(path: Path) -> bytes:
    return read_regular(path, limit_bytes=_LONGEST_BYTES, follow=True)
