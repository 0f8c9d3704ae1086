"""Keeps code under test from ending this process as if the run had passed."""

from __future__ import annotations

import os
import sys
import threading
from collections.abc import Callable
from typing import Any

_ENDS_WITHOUT_CLEANUP = ("_exit", "execv", "execve")


def refuse_silent_exits() -> None:
    """Replace the functions of ``os`` that end this process without its exit handlers.

    From a thread other than the main one, ``os._exit(0)`` and the ``os.exec`` functions then raise
    SystemExit, which ends that thread alone: pytest and CI would take exit code 0 for a passed run.
    Everything else is passed on, so watchdogs that exit with an error and forked children work. Code that
    calls the C library itself is out of reach.
    """
    for name in _ENDS_WITHOUT_CLEANUP:
        real = getattr(os, name)
        if not isinstance(real, _Guarded):
            guarded = _Guarded(name, real, os.getpid())
            for module in (os, sys.modules[os.name]):
                setattr(module, name, guarded)


class _Guarded:
    """One of the functions, which acts as the real one wherever it may."""

    def __init__(self, name: str, real: Callable[..., Any], process: int) -> None:
        self.__name__ = name
        self.__doc__ = real.__doc__
        self._real = real
        self._process = process

    def __call__(self, *arguments: Any, **named: Any) -> Any:
        if self._may(*arguments, **named):
            return self._real(*arguments, **named)
        raise SystemExit(f"os.{self.__name__} would have ended the run without a result")

    def _may(self, *arguments: Any, **named: Any) -> bool:
        if os.getpid() != self._process or threading.current_thread() is threading.main_thread():
            return True
        status = [*arguments, *named.values()]
        return self.__name__ == "_exit" and status != [0]
