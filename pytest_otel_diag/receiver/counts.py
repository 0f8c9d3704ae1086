"""Counts records by outcome: stored, rejected, dropped or waiting."""

from __future__ import annotations

import threading
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field

from pytest_otel_diag.receiver.packages import SIGNALS, Signal


@dataclass(frozen=True, slots=True)
class SignalCounts:
    """Counts of one signal's records: spans, log records or data points.

    ``received`` counts the records of all readable requests. Each of them is ``stored``; or ``rejected``,
    which its sender learned from the response (records sent again count again); or ``dropped``, that is
    accepted and then lost; or still ``waiting``. ``refused`` counts requests that could not be read, whose
    number of records is unknown. Mappings are by reason.
    """

    requests: int = 0
    received: int = 0
    stored: int = 0
    rejected: Mapping[str, int] = field(default_factory=dict)
    dropped: Mapping[str, int] = field(default_factory=dict)
    refused: Mapping[str, int] = field(default_factory=dict)

    @property
    def waiting(self) -> int:
        """Accepted records that are neither stored nor dropped yet."""
        return self.received - self.stored - sum(self.rejected.values()) - sum(self.dropped.values())


@dataclass(frozen=True, slots=True)
class Counts:
    """Counts since the start of a receiver. ``refused`` counts requests that belong to no signal."""

    traces: SignalCounts
    logs: SignalCounts
    metrics: SignalCounts
    refused: Mapping[str, int]

    def of(self, signal: Signal) -> SignalCounts:
        """Return the counts of one signal."""
        found: SignalCounts = getattr(self, signal)
        return found

    @property
    def lost(self) -> int:
        """Records that were accepted and then lost."""
        return sum(sum(self.of(signal).dropped.values()) for signal in SIGNALS)

    def lines(self) -> list[str]:
        """Return a line per signal with requests, and one for refused requests without a signal."""
        lines = [line for signal in SIGNALS if (line := _line(signal, self.of(signal)))]
        return [*lines, f"other requests refused: {_reasons(self.refused)}"] if self.refused else lines


class Tally:
    """Collects counts; thread-safe."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._numbers: dict[Signal, Counter[str]] = {signal: Counter() for signal in SIGNALS}
        self._reasons: dict[tuple[Signal | None, str], Counter[str]] = {}

    def received(self, signal: Signal, records: int) -> None:
        """Count a readable request with its records."""
        with self._lock:
            self._numbers[signal]["requests"] += 1
            self._numbers[signal]["received"] += records

    def stored(self, signal: Signal, records: int) -> None:
        """Count records that were written to the store."""
        with self._lock:
            self._numbers[signal]["stored"] += records

    def rejected(self, signal: Signal, records: int, reason: str) -> None:
        """Count records that were not accepted, as their sender knows from the response."""
        self._add(signal, "rejected", reason, records)

    def dropped(self, signal: Signal, records: int, reason: str) -> None:
        """Count records that were accepted and are lost."""
        self._add(signal, "dropped", reason, records)

    def refused(self, signal: Signal | None, reason: str, requests: int = 1) -> None:
        """Count requests that could not be read."""
        self._add(signal, "refused", reason, requests)

    def _add(self, signal: Signal | None, kind: str, reason: str, number: int) -> None:
        if number:
            with self._lock:
                self._reasons.setdefault((signal, kind), Counter())[reason] += number

    def snapshot(self) -> Counts:
        """Return the current counts."""
        with self._lock:
            by_signal = {
                signal: SignalCounts(
                    requests=numbers["requests"],
                    received=numbers["received"],
                    stored=numbers["stored"],
                    rejected=self._by_reason(signal, "rejected"),
                    dropped=self._by_reason(signal, "dropped"),
                    refused=self._by_reason(signal, "refused"),
                )
                for signal, numbers in self._numbers.items()
            }
            return Counts(**by_signal, refused=self._by_reason(None, "refused"))

    def _by_reason(self, signal: Signal | None, kind: str) -> Mapping[str, int]:
        return dict(self._reasons.get((signal, kind), {}))


def _line(signal: Signal, counts: SignalCounts) -> str:
    parts = [f"{counts.received:,} received", f"{counts.stored:,} stored"]
    if counts.waiting:
        parts.append(f"{counts.waiting:,} waiting")
    for name in ("rejected", "dropped"):
        if reasons := getattr(counts, name):
            parts.append(f"{name} {_reasons(reasons)}")
    if counts.refused:
        parts.append(f"requests refused {_reasons(counts.refused)}")
    return f"{signal}: {', '.join(parts)}" if counts.requests or counts.refused else ""


def _reasons(reasons: Mapping[str, int]) -> str:
    return ", ".join(f"{number:,} ({reason})" for reason, number in sorted(reasons.items()))
