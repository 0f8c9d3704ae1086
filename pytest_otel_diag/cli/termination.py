"""Lets commands that run until they are asked to end do so in order."""

from __future__ import annotations

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType


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
