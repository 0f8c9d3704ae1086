"""What was taken and is not stored yet: a queue that is bounded in bytes and in records."""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from pytest_otel_diag.receiver.limits import Limits
from pytest_otel_diag.receiver.packages import Signal


@dataclass(frozen=True, slots=True)
class Delivery:
    """One request: ``body`` is its protobuf, ``weight`` its bytes as rows, roughly."""

    signal: Signal
    body: bytes
    records: int
    weight: int


class Backlog:
    """Deliveries in the order they came, from many threads to the one that writes.

    Bytes and records count until :meth:`done`, so what is being written counts too.
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

    @property
    def closed(self) -> bool:
        """Whether nothing more is taken."""
        return self._closed

    def put(self, delivery: Delivery) -> bool:
        """Take a delivery; return False when there is no room for it or the backlog is closed."""
        with self._changed:
            size, records = self._bytes + len(delivery.body), self._records + delivery.records
            over = size > self._limits.queue_bytes or records > self._limits.queue_records
            # alone it is always let in: Limits see to it that it fits in bytes
            if self._closed or (over and self._records):
                return False
            self._bytes, self._records = size, records
            self._waiting_records += delivery.records
            self._waiting.append((self._monotonic(), delivery))
            self._put += 1
            if self._waiting_records >= self._limits.batch_rows or len(self._waiting) == 1:
                self._changed.notify_all()
            return True

    def take(self) -> Sequence[Delivery]:
        """Wait until a batch is due and return it; nothing when the backlog is closed and empty."""
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
        """Give back the room of a batch that was stored or counted as lost."""
        with self._changed:
            self._bytes -= sum(len(delivery.body) for delivery in batch)
            self._records -= sum(delivery.records for delivery in batch)
            self._done += len(batch)
            self._changed.notify_all()

    def flush(self, timeout_s: float) -> bool:
        """Have everything that was taken so far written now; return whether that was done in time."""
        with self._changed:
            target = self._put
            self._flush_until = max(self._flush_until, target)
            self._changed.notify_all()
            return self._changed.wait_for(lambda: self._done >= target, timeout_s)

    def close(self) -> None:
        """Take nothing more; what is there is still handed out."""
        with self._changed:
            self._closed = True
            self._changed.notify_all()

    def abandon(self) -> Sequence[Delivery]:
        """Return what nobody will write any more, and forget it."""
        with self._changed:
            left = [delivery for _, delivery in self._waiting]
            self._waiting.clear()
            self._waiting_records = 0
        self.done(left)
        return left
