"""Ends a run in order on SIGTERM and SIGHUP, as on Ctrl-C: faults are undone and ended sessions are kept.

Signals belong to the process, so this module holds one state for it. A signal that is ignored (``nohup``)
stays ignored. The handler of another library (coverage's ends the process at once) is replaced while the run
lasts, since a fault may be on and its undo comes first. Imports the standard library only.
"""

from __future__ import annotations

import signal
import sys
import threading
from types import FrameType, TracebackType
from typing import Any

EXIT_BASE = 128
"""Added to the number of the signal that ended a process, this is its exit code, as in shells."""


ABORTED = "otel-diag: interrupted during the cleanup; if a fault is still on, turn it off: otel-diag heal"


class Terminated(KeyboardInterrupt):
    """A signal asked the process to end; pytest handles it like Ctrl-C."""

    def __init__(self, signum: int) -> None:
        super().__init__(f"terminated by {signal.Signals(signum).name}")
        self.signum = signum


class Termination:
    """Signal handlers of this process, installed while a run lasts.

    A second signal aborts the cleanup that the first one began. In workers of pytest-xdist (*patient*) it
    does not: there the controller decides how long to wait.
    """

    def __init__(self) -> None:
        self._before: dict[int, Any] = {}
        self._patient = False
        self._ending = False
        self._shows: Any = None
        self.signum: int | None = None

    def install(self, *, patient: bool = False) -> None:
        """Handle the signals that are not ignored; outside of the main thread do nothing."""
        if self._before or threading.current_thread() is not threading.main_thread():
            return
        self._patient, self._ending, self.signum = patient, False, None
        for name in ("SIGTERM", "SIGHUP"):
            number = getattr(signal, name, None)
            # None: a handler that C code installed, which Python cannot restore.
            if number is not None and signal.getsignal(number) not in (signal.SIG_IGN, None):
                self._before[number] = signal.signal(number, self._handle)

    def restore(self) -> None:
        """Restore the previous handlers; an interrupt that ends the process now is still to be shown."""
        if sys.excepthook is self._shows and not isinstance(sys.exc_info()[1], KeyboardInterrupt):
            sys.excepthook = sys.__excepthook__
        for number, handler in self._before.items():
            signal.signal(number, handler)
        self._before.clear()

    def ending(self) -> None:
        """Note that the run is ending already, for whatever reason."""
        self._ending = True
        self._expect_another()

    def _expect_another(self) -> None:
        """Let another interrupt, which ends the process in the midst of its cleanup, say so in one line."""
        if sys.excepthook is not sys.__excepthook__:
            return  # another library shows what ends the process

        def show(kind: type[BaseException], error: BaseException, trace: TracebackType | None) -> None:
            if issubclass(kind, KeyboardInterrupt):
                sys.stderr.write(f"\n{ABORTED}\n")
            else:
                sys.__excepthook__(kind, error, trace)

        self._shows = sys.excepthook = show

    @property
    def reason(self) -> str:
        """Reason of a cancellation by a signal; empty without one."""
        return "" if self.signum is None else str(Terminated(self.signum))

    @property
    def exit_code(self) -> int | None:
        """Exit code of a process that a signal ends; None without one."""
        return None if self.signum is None else EXIT_BASE + self.signum

    def _handle(self, signum: int, _frame: FrameType | None) -> None:
        if self._patient and self._ending:
            return
        self.ending()
        self.signum = self.signum or signum
        raise Terminated(signum)


TERMINATION = Termination()
"""The handlers of this process."""
