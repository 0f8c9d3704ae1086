"""Results of the statements as matrices of keys by slots; column 0 is the incident."""

from __future__ import annotations

import re
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Self

import numpy as np
from numpy.typing import NDArray

from pytest_otel_diag.analyzers.builtin.robust_statistics import Floats
from pytest_otel_diag.analyzers.builtin.slots import Slots
from pytest_otel_diag.analyzers.builtin.templates import Templates
from pytest_otel_diag.analyzers.builtin.vocabulary import is_duration, meaning
from pytest_otel_diag.model.diagnosis import Signal

SERVING, CALLING, LONELY, MAGNITUDE = 1, 5, 8, 9
GAP, LAG, CALL, LOG, FLOW = 2, 7, 3, 6, 4
START, END = 1, 2
"""Numbers of the features of ``features.sql``, and of the two ends of a flow."""

Key = tuple[int, int, int]


@dataclass(frozen=True, slots=True)
class Operation:
    """A span name of a service."""

    service: str
    name: str
    kind: str
    spans: int
    roots: int


@dataclass(frozen=True)
class Matrix:
    """Counts and quantiles of one feature: a row per key, a column per slot, NaN without data."""

    keys: tuple[Key, ...]
    counts: Floats
    low: Floats
    mid: Floats
    high: Floats
    took_mid: Floats
    took_high: Floats
    failed: Floats
    origins: Floats
    lonely: Floats

    def __len__(self) -> int:
        return len(self.keys)


@dataclass(frozen=True, slots=True)
class SeriesKey:
    """A metric series; ``attributes`` is its canonical text.

    ``owner`` is the service that it describes (:meth:`Metrics.spoken_of`), ``service`` the recorded one.
    """

    owner: str
    service: str
    metric: str
    unit: str
    attributes: str
    table: str


@dataclass(frozen=True)
class Metrics:
    """Metric series: a row per key, a column per slot, NaN without data.

    ``hits`` and ``seconds`` are the number of events and the time of series that count events. ``whole``
    marks the rows of series with whole numbers only.
    """

    keys: tuple[SeriesKey, ...]
    levels: Floats
    hits: Floats
    seconds: Floats
    whole: NDArray[np.bool_]

    @classmethod
    def of(
        cls,
        rows: Mapping[SeriesKey, tuple[Floats, Floats, Floats]],
        columns: int,
        *,
        whole: Collection[SeriesKey] = (),
    ) -> Self:
        """Return the rows (level, hits, seconds) as matrices."""
        flags = np.array([key in whole for key in rows], dtype=np.bool_)
        if not rows:
            none = np.zeros((0, columns))
            return cls((), none, none, none, flags)
        levels, hits, seconds = (np.stack([row[index] for row in rows.values()]) for index in range(3))
        return cls(tuple(rows), levels, hits, seconds, flags)

    def __len__(self) -> int:
        return len(self.keys)

    def filled(self) -> Metrics:
        """Return the metrics with zeros before the first event of counters and pause timers.

        A counter is exported from its first event on, so a new error has no earlier series. It was zero while
        its owner exported other series.
        """
        counted: NDArray[np.bool_] = np.asarray(np.isfinite(self.hits).any(axis=1))
        events = [bool(is_counter) or pauses(key) for key, is_counter in zip(self.keys, counted, strict=True)]
        levels, hits, seconds = self.levels.copy(), self.hits.copy(), self.seconds.copy()
        by_owner: dict[str, list[int]] = {}
        for row, key in enumerate(self.keys):
            by_owner.setdefault(key.owner, []).append(row)
        for rows in by_owner.values():
            there = np.isfinite(self.levels[rows]).any(axis=0)
            exposure = np.nan_to_num(self.seconds[rows]).max(axis=0)
            for row in rows:
                if events[row]:
                    gaps = there & ~np.isfinite(self.levels[row])
                    levels[row, gaps] = 0.0
                    if counted[row]:
                        hits[row, gaps], seconds[row, gaps] = 0.0, exposure[gaps]
        return replace(self, levels=levels, hits=hits, seconds=seconds)

    def spoken_of(self, traced: set[str]) -> Metrics:
        """Return the series with the services that they describe as owners, for *traced* services.

        Series without a service are dropped, and series derived from spans if there are spans, since they
        repeat these later and less exactly.
        """
        spellings: dict[str, list[str]] = {}
        for service in traced:
            spellings.setdefault(service.casefold(), []).append(service)
        owners = [_owner(key, traced, spellings) for key in self.keys]
        rows = [
            row
            for row, key in enumerate(self.keys)
            if owners[row] and not (traced and FROM_SPANS.search(key.attributes))
        ]
        return Metrics(
            tuple(replace(self.keys[row], owner=owners[row]) for row in rows),
            self.levels[rows],
            self.hits[rows],
            self.seconds[rows],
            self.whole[rows],
        )


def pauses(key: SeriesKey) -> bool:
    """Return whether the series is the share of time of garbage collection."""
    collecting = meaning(key.metric, key.unit)[0] is Signal.GC and is_duration(key.unit)
    return collecting and not key.table.endswith("gauge")


SERVES = frozenset({"Server", "Consumer", ""})
"""Kinds of spans that serve a caller, possibly including unknown kinds."""

FROM_SPANS = re.compile(r"(?:^|,)span[._]name=")
"""An attribute of all series of the Collector's span metrics connector."""


def _owner(key: SeriesKey, traced: set[str], spellings: Mapping[str, list[str]]) -> str:
    """Return the service that a series describes, "" for none.

    Names in metrics and traces may differ in case. Receivers that observe a system from outside, such as a
    broker, name the service in an attribute.
    """
    if key.service in traced:
        return key.service
    alike = spellings.get(key.service.casefold(), [])
    if len(alike) == 1:
        return alike[0]
    if key.service:
        return key.service
    named = {value for pair in key.attributes.split(",") if (value := pair.partition("=")[2]) in traced}
    return named.pop() if len(named) == 1 else ""


@dataclass(frozen=True, slots=True)
class Outgrown:
    """The peak of memory before a restart, and the highest level of quiet time."""

    metric: str
    unit: str
    usual: float
    peak: float

    def __str__(self) -> str:
        rose = f"{self.usual:,.4g} → {self.peak:,.4g} {self.unit}".rstrip()
        return f"{self.metric} rose above all quiet time ({rose}) before the process began anew"


@dataclass(frozen=True)
class Observations:
    """All input of the analysis."""

    slots: Slots
    operations: dict[int, Operation] = field(default_factory=dict)
    features: dict[int, Matrix] = field(default_factory=dict)
    templates: Templates = field(default_factory=lambda: Templates({}, (), ()))
    log_rates: dict[tuple[str, int], Floats] = field(default_factory=dict)
    requests: dict[str, tuple[Floats, Floats]] = field(default_factory=dict)
    metrics: Metrics = field(default_factory=lambda: Metrics.of({}, 1))
    outgrown: Mapping[str, Outgrown] = field(default_factory=dict)

    @property
    def columns(self) -> int:
        """Number of slots, including the incident."""
        return self.slots.count

    @property
    def services(self) -> list[str]:
        """All services in any signal, the busiest first."""
        spans: dict[str, int] = {}
        for operation in self.operations.values():
            spans[operation.service] = spans.get(operation.service, 0) + operation.spans
        named = {key.owner for key in self.metrics.keys} | {service for service, _ in self.log_rates}
        return sorted(spans.keys() | named, key=lambda service: (-spans.get(service, 0), service))

    @property
    def signals(self) -> tuple[str, ...]:
        """Signals with data."""
        present = {
            "traces": bool(self.operations),
            "logs": bool(self.templates.by_id),
            "metrics": bool(self.metrics),
        }
        return tuple(name for name, there in present.items() if there)

    def feature(self, number: int) -> Matrix:
        """Return the matrix of one feature, empty without data."""
        return self.features.get(number) or empty_matrix(self.columns)

    def clients(self) -> set[str]:
        """Return the services that are only clients: none of their spans serves or consumes."""
        serving = {one.service for one in self.operations.values() if one.kind in SERVES}
        return {one.service for one in self.operations.values()} - serving

    def callees(self) -> dict[str, set[str]]:
        """Return the callees of each service."""
        calls: dict[str, set[str]] = {}
        for op, child, _ in self.feature(CALL).keys:
            caller, callee = self.operations.get(op), self.operations.get(child)
            if caller and callee and caller.service != callee.service:
                calls.setdefault(caller.service, set()).add(callee.service)
        return calls


def empty_matrix(columns: int) -> Matrix:
    """Return a matrix without rows."""
    none = np.zeros((0, columns))
    return Matrix((), none, none, none, none, none, none, none, none, none)


_QUANTILES = ("low", "mid", "high", "took_mid", "took_high")
_SUMS = ("failed", "origins", "lonely")


class MatrixBuilder:
    """Joins the rows of several slices of the trace key.

    Counts are added. A quantile is the mean of the slices' quantiles weighted by their counts: slices are
    random samples of traces, so their quantiles differ only by sampling error.
    """

    def __init__(self, columns: int) -> None:
        self._columns = columns
        self._rows: dict[tuple[int, Key], dict[str, Floats]] = {}

    def add(self, feature: int, key: Key, slots: Sequence[int], cells: dict[str, Sequence[float]]) -> None:
        """Add one row of ``features.sql``."""
        row = self._rows.get((feature, key))
        if row is None:
            row = {name: np.zeros(self._columns) for name in ("counts", *_QUANTILES, *_SUMS)}
            self._rows[feature, key] = row
        at = np.asarray(slots, dtype=np.intp)
        counts = np.asarray(cells["counts"], dtype=np.float64)
        row["counts"][at] += counts
        for name in _QUANTILES:
            values = np.asarray(cells[name], dtype=np.float64)
            row[name][at] += np.where(np.isnan(values), 0.0, values) * counts
        for name in _SUMS:
            row[name][at] += np.asarray(cells[name], dtype=np.float64)

    def matrices(self) -> dict[int, Matrix]:
        """Return one matrix per feature."""
        by_feature: dict[int, list[Key]] = {}
        for feature, key in self._rows:
            by_feature.setdefault(feature, []).append(key)
        return {feature: self._matrix(feature, keys) for feature, keys in by_feature.items()}

    def _matrix(self, feature: int, keys: list[Key]) -> Matrix:
        def stack(name: str) -> Floats:
            return np.stack([self._rows[feature, key][name] for key in keys])

        counts = stack("counts")
        with np.errstate(divide="ignore", invalid="ignore"):
            means = [np.where(counts > 0, stack(name) / counts, np.nan) for name in _QUANTILES]
        return Matrix(tuple(keys), counts, *means, *(stack(name) for name in _SUMS))


def row_of(columns: int, slots: Iterable[int], values: Iterable[float], empty: float) -> Floats:
    """Return one row of a matrix from slots and values; slots without a value get *empty*."""
    row = np.full(columns, empty)
    for slot, value in zip(slots, values, strict=True):
        row[slot] = value
    return row
