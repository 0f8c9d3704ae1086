"""Queues accepted requests until they are stored, bounded in bytes and in records."""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from pytest_otel_diag.receiver.limits import Limits
from pytest_otel_diag.receiver.packages import Signal


@dataclass(frozen=True, slots=True)
class Delivery:
    """One accepted request: its protobuf ``body``, and its ``weight``, about its bytes as rows."""

    signal: Signal
    body: bytes
    records: int
    weight: int


class Backlog:
    """A first-in, first-out queue from the threads of both servers to the writer thread.

    Bytes and records count against the limits until :meth:`done`, so also while they are being written.
    """

    def __init__(self, limits: Limits, monotonic: Callable[[], float]) -> None:
        self._limits = limits
        self._monotonic = monotonic
        self._changed = threading.Condition()
        self._waiting: deque[tuple[float, Delivery]] = deque()
        self._bytes = 0
        self._records = 0
        self._waiting_records = 0
        self._put = 0
        self._done = 0
        self._flush_until = 0
        self._closed = False
        self._held = False

    @property
    def held(self) -> bool:
        """Whether new deliveries are refused because the store is unavailable."""
        return self._held

    @property
    def closed(self) -> bool:
        """Whether new deliveries are refused."""
        return self._closed

    def put(self, delivery: Delivery) -> bool:
        """Queue a delivery; return False when the backlog is full, held or closed."""
        with self._changed:
            size, records = self._bytes + len(delivery.body), self._records + delivery.records
            over = size > self._limits.queue_bytes or records > self._limits.queue_records
            # Into an empty backlog everything fits: Limits bounds the bytes of one request.
            if self._closed or self._held or (over and self._records):
                return False
            self._bytes, self._records = size, records
            self._waiting_records += delivery.records
            self._waiting.append((self._monotonic(), delivery))
            self._put += 1
            if self._waiting_records >= self._limits.batch_rows or len(self._waiting) == 1:
                self._changed.notify_all()
            return True

    def take(self) -> Sequence[Delivery]:
        """Wait until a batch is due and return it; an empty one once the backlog is closed and empty."""
        with self._changed:
            while not self._due():
                if self._closed and not self._waiting:
                    return ()
                self._changed.wait(self._until_due())
            return self._batch()

    def _due(self) -> bool:
        if not self._waiting:
            return False
        early = self._closed or self._flush_until > self._done
        return early or self._waiting_records >= self._limits.batch_rows or self._until_due() == 0

    def _until_due(self) -> float | None:
        if not self._waiting:
            return None
        return max(0.0, self._waiting[0][0] + self._limits.batch_s - self._monotonic())

    def _batch(self) -> Sequence[Delivery]:
        batch: list[Delivery] = []
        records = weight = 0
        while self._waiting:
            delivery = self._waiting[0][1]
            records, weight = records + delivery.records, weight + delivery.weight
            if batch and (records > self._limits.insert_rows or weight > self._limits.expanded_bytes):
                break
            batch.append(self._waiting.popleft()[1])
            self._waiting_records -= delivery.records
        return batch

    def done(self, batch: Sequence[Delivery]) -> None:
        """Release the space of a batch that was stored or dropped."""
        with self._changed:
            self._bytes -= sum(len(delivery.body) for delivery in batch)
            self._records -= sum(delivery.records for delivery in batch)
            self._done += len(batch)
            self._changed.notify_all()

    def flush(self, timeout_s: float) -> bool:
        """Make everything queued so far due now; return whether it was written within *timeout_s*."""
        with self._changed:
            target = self._put
            self._flush_until = max(self._flush_until, target)
            self._changed.notify_all()
            return self._changed.wait_for(lambda: self._done >= target, timeout_s)

    def hold(self) -> None:
        """Refuse new deliveries until :meth:`release`; those already queued wait."""
        self._held = True

    def release(self) -> None:
        """Accept deliveries again."""
        self._held = False

    def close(self) -> None:
        """Refuse new deliveries; those already queued are still returned by :meth:`take`."""
        with self._changed:
            self._closed = True
            self._changed.notify_all()

    def abandon(self) -> Sequence[Delivery]:
        """Remove and return every queued delivery."""
        with self._changed:
            left = [delivery for _, delivery in self._waiting]
            self._waiting.clear()
            self._waiting_records = 0
        self.done(left)
        return left
