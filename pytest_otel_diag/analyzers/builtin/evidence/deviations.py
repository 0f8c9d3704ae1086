"""The model of evidence: deviations, the services that they blame, and their descriptions.

A kind of evidence scores its keys once (:mod:`scores`) and then returns, for any slot, the blamed services
with weights. The same for quiet slots gives the null distribution of the alarm. Descriptions are built only
for reported hits.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Literal

import numpy as np

from pytest_otel_diag.analyzers.builtin.robust_statistics import Z_FLOOR
from pytest_otel_diag.analyzers.builtin.scores import Scores
from pytest_otel_diag.model.diagnosis import Direction, Measure, Mechanism, Signal

Source = Literal["traces", "logs", "metrics"]


class Group(StrEnum):
    """Groups of evidence that are independent enough to be added; only the best of each group counts."""

    ERROR = "error"
    SELF = "self"
    EDGE = "edge"
    QUEUE = "queue"
    METRIC = "metric"
    FLOW = "flow"
    TRAFFIC = "traffic"


SYMPTOMS = frozenset({Group.FLOW})
"""Groups in which a service may only react to its callees. Calls and log lines are one group: a flow that
ends early loses both, so they are not two observations."""


@dataclass(frozen=True, slots=True)
class BlameShare:
    """A service blamed by the deviation of one row, with its share of the blame."""

    row: int
    service: str
    share: float = 1.0


@dataclass(frozen=True, slots=True)
class Finding:
    """The description of a deviation; ``observed`` is a ``measure`` of the operation where that is set."""

    service: str
    operation: str | None
    signal: Signal
    mechanism: Mechanism | None
    direction: Direction
    baseline: float | None
    observed: float | None
    unit: str
    source: Source
    text: str
    measure: Measure | None = None


@dataclass(frozen=True)
class Kind:
    """A scored kind of evidence; ``blame`` takes a column, ``describe`` a row and the blamed service."""

    name: str
    group: Group
    scores: Scores
    blame: Callable[[int], Iterator[BlameShare]]
    describe: Callable[[int, str], Finding]


@dataclass(frozen=True, slots=True)
class Hit:
    """One deviation of one slot that blames one service."""

    kind: Kind
    row: int
    service: str
    share: float
    z: float

    @property
    def strength(self) -> float:
        """The contribution of the hit to its group: its share of log(1 + |z| - 3)."""
        return self.share * math.log1p(max(0.0, abs(self.z) - Z_FLOOR))

    @property
    def group(self) -> Group:
        """Group of the kind."""
        return self.kind.group

    def finding(self) -> Finding:
        """Return the description of the hit."""
        return self.kind.describe(self.row, self.service)


def hits(kinds: Sequence[Kind], column: int) -> Iterator[Hit]:
    """Yield all deviations of one slot."""
    for kind in kinds:
        for blame in kind.blame(column):
            yield Hit(kind, blame.row, blame.service, blame.share, float(kind.scores.z[blame.row, column]))


def owners(
    scores: Scores, services: Sequence[str], *, rising: bool = False, shares: Sequence[float] | None = None
) -> Callable[[int], Iterator[BlameShare]]:
    """Return the blame of a kind whose rows each belong to one service."""

    def blame(column: int) -> Iterator[BlameShare]:
        z = scores.z[:, column]
        for row in np.flatnonzero((z if rising else np.abs(z)) > Z_FLOOR):
            yield BlameShare(int(row), services[int(row)], shares[int(row)] if shares else 1.0)

    return blame


@dataclass(frozen=True, slots=True)
class Words:
    """The texts of a kind about a row."""

    operation: str | None
    signal: Signal
    mechanism: Mechanism | None
    unit: str
    source: Source
    text: str
    measure: Measure | None = None


def finding(scores: Scores, row: int, service: str, words: Words) -> Finding:
    """Combine numbers and texts."""
    before, now = float(scores.centre[row]), float(scores.value[row, 0])
    direction: Direction = "up" if scores.z[row, 0] > 0 else "down"
    text = f"{words.text}: {_number(before)} → {_number(now)} {words.unit}".rstrip()
    return Finding(
        service, words.operation, words.signal, words.mechanism, direction,
        _finite(before), _finite(now), words.unit, words.source, text, words.measure,
    )  # fmt: skip


def _finite(value: float) -> float | None:
    return value if math.isfinite(value) else None


def _number(value: float) -> str:
    if not math.isfinite(value):
        return "nothing"
    return f"{value:,.0f}" if abs(value) >= 1000 else f"{value:.3g}"
