"""How commands end in order when they are asked to: by Ctrl-C, SIGTERM or SIGHUP."""

from __future__ import annotations

import asyncio
import signal
import threading
from collections.abc import Callable, Coroutine, Iterator
from contextlib import contextmanager, suppress
from types import FrameType
from typing import Any

EXIT_CTRL_C = 2
_SIGNALLED = 128
"""What shells add to the number of the signal that ended a process."""


class Stop:
    """Turns signals that ask the process to end into the cancellation that Ctrl-C is."""

    def __init__(self) -> None:
        self.signum: int | None = None

    def run(self, work: Callable[[], Coroutine[Any, Any, int]]) -> int:
        """Run *work*, cancelled when the process is asked to end; return its exit code, or the signal's."""
        try:
            return asyncio.run(self._listening(work))
        except (KeyboardInterrupt, asyncio.CancelledError):
            return EXIT_CTRL_C if self.signum is None else _SIGNALLED + self.signum

    @property
    def reason(self) -> str:
        """What interrupted the run."""
        return "Ctrl-C" if self.signum is None else f"terminated by {signal.Signals(self.signum).name}"

    async def _listening(self, work: Callable[[], Coroutine[Any, Any, int]]) -> int:
        loop, task = asyncio.get_running_loop(), asyncio.current_task()
        assert task is not None, "a coroutine runs in a task"

        def stop(number: int) -> None:
            self.signum = number
            task.cancel(self.reason)

        for name in ("SIGTERM", "SIGHUP"):
            number = getattr(signal, name, None)
            if number is not None and signal.getsignal(number) is signal.SIG_DFL:
                with suppress(ValueError, RuntimeError, NotImplementedError):  # no main thread, or Windows
                    loop.add_signal_handler(number, stop, number)
        return await work()


@contextmanager
def ended_by_signals(stop: threading.Event) -> Iterator[None]:
    """Set *stop* at the first SIGINT or SIGTERM; a second one interrupts the block."""

    def handle(_number: int, _frame: FrameType | None) -> None:
        if stop.is_set():
            raise KeyboardInterrupt
        stop.set()

    wanted = (signal.SIGINT, signal.SIGTERM)
    before = {number: signal.signal(number, handle) for number in wanted}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
