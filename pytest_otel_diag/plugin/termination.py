"""SIGTERM and SIGHUP end a run as Ctrl-C does: faults are taken back and what ended is kept.

Signals belong to the process, so there is one state for it. A signal that is ignored (``nohup``) stays so. A
handler of somebody else's (coverage's, which ends the process at once) is put back after the run: until then
a fault may be on, and taking it back comes first. Standard library only.
"""

from __future__ import annotations

import signal
import threading
from types import FrameType
from typing import Any

EXIT_BASE = 128
"""A process that a signal ended exits with this and the signal's number, as shells have it."""


class Terminated(KeyboardInterrupt):
    """The process was asked to end; pytest ends as orderly as for Ctrl-C."""

    def __init__(self, signum: int) -> None:
        super().__init__(f"terminated by {signal.Signals(signum).name}")
        self.signum = signum


class Signals:
    """The handlers of this process while a run of ours lasts.

    A second signal is raised as well, which breaks off the cleanup that the first one began. Not so in
    workers of pytest-xdist (*patient*): there the controller decides how long to wait.
    """

    def __init__(self) -> None:
        self._before: dict[int, Any] = {}
        self._patient = False
        self._ending = False
        self.signum: int | None = None

    def install(self, *, patient: bool = False) -> None:
        """Take over the signals that are not ignored; does nothing in other threads than the main one."""
        if self._before or threading.current_thread() is not threading.main_thread():
            return
        self._patient, self._ending, self.signum = patient, False, None
        for name in ("SIGTERM", "SIGHUP"):
            number = getattr(signal, name, None)
            # None: a handler that C code installed, which could not be put back.
            if number is not None and signal.getsignal(number) not in (signal.SIG_IGN, None):
                self._before[number] = signal.signal(number, self._handle)

    def restore(self) -> None:
        """Put back the handlers that were there."""
        for number, handler in self._before.items():
            signal.signal(number, handler)
        self._before.clear()

    def ending(self) -> None:
        """Note that the run is ending already, by whatever cause."""
        self._ending = True

    @property
    def reason(self) -> str:
        """Why sessions are cancelled, empty where no signal says so."""
        return "" if self.signum is None else str(Terminated(self.signum))

    @property
    def exit_code(self) -> int | None:
        """Exit code of the process, None where no signal ends it."""
        return None if self.signum is None else EXIT_BASE + self.signum

    def _handle(self, signum: int, _frame: FrameType | None) -> None:
        if self._patient and self._ending:
            return
        self._ending = True
        self.signum = self.signum or signum
        raise Terminated(signum)


SIGNALS = Signals()
"""The one of this process."""
