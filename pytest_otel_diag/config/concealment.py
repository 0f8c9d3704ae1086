"""Environment and arguments of this process, concealed while an analyzer under test works.

pytest names the running test in ``PYTEST_CURRENT_TEST``, and both the command line and the options of a run
may name a test, a recording or the place of the flags. Child processes inherit what they see.
"""

from __future__ import annotations

import os
import sys
import threading
from collections.abc import Iterator, Mapping, MutableMapping, Sequence
from contextlib import contextmanager

from pytest_otel_diag.config.options import OPTIONS

CURRENT_TEST = "PYTEST_CURRENT_TEST"
CONCEALED = "otel-diag (concealed)"
"""The value of the variable meanwhile; pytest expects that it exists."""

_BLANKED = (
    "PYTEST_ADDOPTS",
    *(option.environment for option in OPTIONS),
    *(option.legacy_environment for option in OPTIONS if option.legacy_environment),
)


def without_test(environ: Mapping[str, str] | None = None) -> dict[str, str]:
    """Return the environment for a child process that lives during investigations: nothing names the test."""
    named = {CURRENT_TEST, *_BLANKED}
    return {
        name: value
        for name, value in (os.environ if environ is None else environ).items()
        if name not in named
    }


class Concealment:
    """Conceals what names a test in *environ* and *arguments* while at least one investigation runs.

    Each of *arguments* is a list such as ``sys.argv``, of which the first entry stays.
    """

    def __init__(self, environ: MutableMapping[str, str], arguments: Sequence[list[str]]) -> None:
        self._environ = environ
        self._arguments = arguments
        self._lock = threading.Lock()
        self._running = 0
        self._test: str | None = None
        self._blanked: dict[str, str] = {}
        self._cut: list[list[str]] = []

    @contextmanager
    def during_investigation(self) -> Iterator[None]:
        """Conceal them within the block; blocks may overlap."""
        with self._lock:
            self._running += 1
            if self._running == 1:
                self._blank()
            self._rename()
        try:
            yield
        finally:
            with self._lock:
                self._running -= 1
                if not self._running:
                    self._restore()

    def renew(self) -> None:
        """Conceal the test again after pytest has named its next phase, if an investigation runs."""
        with self._lock:
            if self._running:
                self._rename()

    def _rename(self) -> None:
        current = self._environ.get(CURRENT_TEST)
        if current is not None and current != CONCEALED:
            self._test = current
            self._environ[CURRENT_TEST] = CONCEALED

    def _blank(self) -> None:
        self._blanked = {name: self._environ[name] for name in _BLANKED if name in self._environ}
        for name in self._blanked:
            self._environ[name] = ""  # a deleted one would move the C library's table, which threads read
        self._cut = [arguments[1:] for arguments in self._arguments]
        for arguments in self._arguments:
            del arguments[1:]

    def _restore(self) -> None:
        if self._environ.get(CURRENT_TEST) == CONCEALED and self._test is not None:
            self._environ[CURRENT_TEST] = self._test
        self._test = None
        self._environ.update(self._blanked)
        for arguments, rest in zip(self._arguments, self._cut, strict=True):
            arguments.extend(rest)


CONCEALMENT = Concealment(os.environ, (sys.argv, sys.orig_argv))
"""That of this process."""
