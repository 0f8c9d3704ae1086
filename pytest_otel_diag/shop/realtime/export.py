"""A bounded queue of records and the thread that sends them to a collector.

All records that do not arrive are counted and reported: records dropped from a full queue, requests that the
collector rejected permanently or that were retried for too long, records that the collector rejected from an
accepted request, and records that were unsent when the exporter had to stop.
"""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from random import Random
from typing import NamedTuple

from pytest_otel_diag.shop.realtime.encode import MAX_RECORDS, SIGNALS, ExportRequest, Signal, requests
from pytest_otel_diag.shop.realtime.transport import Accepted, Rejected, Retryable, Transport
from pytest_otel_diag.shop.records import Batch

_POPPED_RECORDS = 5 * MAX_RECORDS  # bounds the records that a long outage holds outside the queue


class QueueLimits(NamedTuple):
    """Limits of the queue and of retries.

    At most ``capacity`` records wait. Records are collected into one request for ``interval_s``, or until
    many have arrived. A request is retried after ``first_retry_s`` seconds and then with exponential back-off
    up to ``longest_retry_s``, with a jitter of up to half; the delay that a collector asks for takes
    precedence. A request is dropped ``give_up_s`` seconds after its first attempt.
    """

    capacity: int = 100_000
    interval_s: float = 1.0
    first_retry_s: float = 1.0
    longest_retry_s: float = 30.0
    give_up_s: float = 300.0


@dataclass(frozen=True, slots=True)
class ExportCounts:
    """Outcomes of the records so far; ``unsent`` records are queued or in flight."""

    sent: dict[Signal, int] = field(default_factory=lambda: dict.fromkeys(SIGNALS, 0))
    rejected: int = 0
    queue_full: int = 0
    refused: int = 0
    given_up: int = 0
    left_at_stop: int = 0
    requests: int = 0
    retries: int = 0
    unsent: int = 0

    @property
    def dropped(self) -> int:
        """Records that are lost."""
        return self.rejected + self.queue_full + self.refused + self.given_up + self.left_at_stop

    def why_dropped(self) -> str:
        """Return the reasons with their counts, or an empty string."""
        reasons = {
            "queue full": self.queue_full,
            "rejected by the collector": self.rejected,
            "refused by the collector": self.refused,
            "given up after retries": self.given_up,
            "left at the end": self.left_at_stop,
        }
        return ", ".join(f"{number} {reason}" for reason, number in reasons.items() if number)


class OtlpExporter:
    """Sends batches in order, from a background thread.

    ``monotonic`` and ``rng`` time the waits between attempts. ``notify`` gets a line whenever the collector
    becomes unavailable or available, and once for each other reason, from the exporter's thread.
    """

    def __init__(
        self,
        transport: Transport,
        *,
        monotonic: Callable[[], float],
        rng: Random,
        notify: Callable[[str], object],
        limits: QueueLimits | None = None,
    ) -> None:
        self._transport = transport
        self._monotonic = monotonic
        self._rng = rng
        self._notify = notify
        self._limits = limits or QueueLimits()
        self._changed = threading.Condition()
        self._queue: deque[Batch] = deque()
        self._counts = ExportCounts()
        self._stop_by: float | None = None
        self._failing = False
        self._notified: set[str] = set()
        self._crash: Exception | None = None
        self._thread = threading.Thread(target=self._work, name="otlp-export", daemon=True)
        self._thread.start()

    def submit(self, batch: Batch, timeout_s: float = 0.0) -> int:
        """Queue the records; return the number of records dropped because the queue is full.

        Waits up to *timeout_s* seconds for room for each 10,000 records. Raises the error that ended the
        sending thread.
        """
        return sum(self._submit(piece, timeout_s) for piece in _pieces(batch))

    def _submit(self, batch: Batch, timeout_s: float) -> int:
        records = _size(batch)
        with self._changed:
            fits = self._changed.wait_for(
                lambda: self._crash is not None or self._counts.unsent + records <= self._limits.capacity,
                timeout=timeout_s,
            )
            if self._crash is not None:
                raise self._crash
            if not fits:
                self._add(queue_full=records)
                return records
            self._queue.append(batch)
            self._add(unsent=records)
            self._changed.notify_all()
        return 0

    def counts(self) -> ExportCounts:
        """Return the current counts."""
        with self._changed:
            return replace(self._counts, sent=dict(self._counts.sent))

    def stop(self, timeout_s: float) -> ExportCounts:
        """Send the queued records for about *timeout_s* seconds at most, then close the connection.

        Returns the final counts. Raises the error that ended the sending thread.
        """
        with self._changed:
            self._stop_by = self._monotonic() + timeout_s
            self._changed.notify_all()
        self._thread.join()
        self._transport.close()
        if self._crash is not None:
            raise self._crash
        return self.counts()

    def _work(self) -> None:
        try:
            while (batch := self._next()) is not None:
                for request in requests(batch):
                    self._deliver(request)
        except Exception as error:  # raised again in the caller's thread
            with self._changed:
                self._crash = error
                self._changed.notify_all()

    def _next(self) -> Batch | None:
        """Wait for records; return None when the queue is empty and the exporter is stopping."""
        with self._changed:
            self._changed.wait_for(self._urgent, timeout=self._limits.interval_s)
            while not self._queue and self._stop_by is None:
                self._changed.wait()
                self._changed.wait_for(self._urgent, timeout=self._limits.interval_s)
            merged = Batch()
            while self._queue and _size(merged) < _POPPED_RECORDS:
                batch = self._queue.popleft()
                merged.spans += batch.spans
                merged.logs += batch.logs
                merged.metrics += batch.metrics
            return merged if _size(merged) else None

    def _urgent(self) -> bool:
        return self._stop_by is not None or self._counts.unsent >= MAX_RECORDS

    def _deliver(self, request: ExportRequest) -> None:
        begun = self._monotonic()
        wait_s = self._limits.first_retry_s
        while True:
            left_s = self._left_s()
            if left_s is not None and left_s <= 0:
                self._count(left_at_stop=request.records, unsent=-request.records)
                return
            outcome = self._transport.send(request, left_s)
            self._count(requests=1)
            if isinstance(outcome, Accepted):
                self._accepted(request, outcome)
                return
            if isinstance(outcome, Rejected):
                self._once(f"collector rejects {request.signal}: {outcome.reason}")
                self._count(refused=request.records, unsent=-request.records)
                return
            pause_s = self._pause_s(outcome, wait_s)
            if self._monotonic() + pause_s - begun > self._limits.give_up_s:
                self._once(f"gave up on {request.signal}: {outcome.reason}")
                self._count(given_up=request.records, unsent=-request.records)
                return
            if not self._failing:
                self._failing = True
                self._notify(f"collector unavailable, retrying: {outcome.reason}")
            self._rest(pause_s)
            self._count(retries=1)
            wait_s = min(2 * wait_s, self._limits.longest_retry_s)

    def _pause_s(self, outcome: Retryable, wait_s: float) -> float:
        if outcome.after_s is not None:
            return outcome.after_s
        return wait_s * self._rng.uniform(0.5, 1.0)

    def _accepted(self, request: ExportRequest, outcome: Accepted) -> None:
        if self._failing:
            self._failing = False
            self._notify("collector available again")
        if outcome.rejected or outcome.message:
            self._once(
                f"collector accepted {request.signal} but rejected {outcome.rejected} of {request.records} "
                f"records: {outcome.message or 'no reason given'}"
            )
        rejected = min(outcome.rejected, request.records)
        with self._changed:
            self._counts.sent[request.signal] += request.records - rejected
            self._add(rejected=rejected, unsent=-request.records)
            self._changed.notify_all()

    def _rest(self, pause_s: float) -> None:
        """Wait for *pause_s*; a stop ends the wait, and while stopping it lasts one second at most."""
        with self._changed:
            if self._stop_by is None:
                self._changed.wait_for(lambda: self._stop_by is not None, timeout=pause_s)
            else:
                self._changed.wait(min(pause_s, 1.0, max(0.0, self._stop_by - self._monotonic())))

    def _left_s(self) -> float | None:
        with self._changed:
            return None if self._stop_by is None else self._stop_by - self._monotonic()

    def _once(self, line: str) -> None:
        if line not in self._notified:
            self._notified.add(line)
            self._notify(line)

    def _count(self, **changes: int) -> None:
        with self._changed:
            self._add(**changes)
            self._changed.notify_all()

    def _add(self, **changes: int) -> None:
        counts = self._counts
        self._counts = replace(counts, **{name: getattr(counts, name) + by for name, by in changes.items()})


def _pieces(batch: Batch) -> Iterator[Batch]:
    """Yield the batch in pieces of bounded size, each record once and in order."""
    for start in range(0, max(len(batch.spans), len(batch.logs), len(batch.metrics)), _POPPED_RECORDS):
        piece = slice(start, start + _POPPED_RECORDS)
        yield Batch(batch.spans[piece], batch.logs[piece], batch.metrics[piece])


def _size(batch: Batch) -> int:
    return len(batch.spans) + len(batch.logs) + len(batch.metrics)
