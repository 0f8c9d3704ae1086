"""A bounded resource with a FIFO queue: worker threads, connections."""

from __future__ import annotations

from collections import deque
from collections.abc import Generator
from typing import Any

from simpy import Environment, Event, Interrupt

from pytest_otel_diag.shop.kernel.resources.failures import RpcFailure


class Pool:
    """Slots that calls hold for a while; ``busy_s`` is the integral of busy slots over time."""

    __slots__ = ("_env", "_since", "_waiting", "busy", "busy_s", "name", "queue_limit", "served", "size")

    def __init__(self, env: Environment, name: str, size: int, queue_limit: int | None = None) -> None:
        self._env = env
        self.name = name
        self.size = size
        self.queue_limit = queue_limit
        self.busy = 0
        self.served = 0
        self.busy_s = 0.0
        self._since = env.now
        self._waiting: deque[Event] = deque()

    @property
    def queued(self) -> int:
        """Number of waiting calls."""
        return len(self._waiting)

    def take(self) -> bool:
        """Take a slot if one is free; returns whether it did."""
        if self.busy < self.size:
            self._count(1)
            return True
        return False

    def acquire(self) -> Generator[Event, Any, None]:
        """Take a slot, waiting for one; raises RpcFailure RESOURCE_EXHAUSTED when the queue is full."""
        if self.take():
            return
        if self.queue_limit is not None and len(self._waiting) >= self.queue_limit:
            raise RpcFailure("RESOURCE_EXHAUSTED", f"{self.name}: queue is full", kind="overload")
        turn = Event(self._env)
        self._waiting.append(turn)
        try:
            yield turn
        except Interrupt:
            if turn.triggered:
                self.release()
            else:
                self._waiting.remove(turn)
            raise

    def release(self) -> None:
        """Hand the slot to the first in the queue, or free it."""
        self.served += 1
        if self._waiting:
            self._waiting.popleft().succeed()  # the slot stays busy
        else:
            self._count(-1)

    def settle(self) -> float:
        """Return the integral of busy slots over time up to now, in seconds."""
        self._count(0)
        return self.busy_s

    def _count(self, change: int) -> None:
        now = self._env.now
        self.busy_s += self.busy * (now - self._since)
        self._since = now
        self.busy += change
