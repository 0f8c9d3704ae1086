"""Evidence in failed calls: where errors originate, with an exact test of each operation and service."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

import numpy as np

from pytest_otel_diag.analyzers.builtin import scores as score
from pytest_otel_diag.analyzers.builtin.count_tests import Counts, Prior, rise_p
from pytest_otel_diag.analyzers.builtin.evidence.deviations import (
    BlameShare,
    Finding,
    Group,
    Kind,
    Words,
    finding,
)
from pytest_otel_diag.analyzers.builtin.evidence.observations import (
    CALLING,
    GAP,
    LONELY,
    SERVING,
    Observations,
    Operation,
)
from pytest_otel_diag.analyzers.builtin.evidence.traces import known, spans_of, stacked
from pytest_otel_diag.analyzers.builtin.robust_statistics import (
    ALARM_SPREADS,
    Z_FLOOR,
    Floats,
    chi_square_quantile_99,
    dispersion,
)
from pytest_otel_diag.model.diagnosis import Mechanism, Signal

ALPHA = 0.05
P_LEAST = 1e-9
OPERATIONS_LEAST = 3

OTHER_END = 0.5
"""Share of the blame for the less likely end of a failed call."""


@dataclass(frozen=True)
class Origins:
    """Failed spans without failed children: the origin of errors, without their propagation.

    One row for each operation with spans, one column for each slot. ``lonely`` counts failed calls without a
    server span.
    """

    ops: tuple[int, ...]
    services: tuple[str, ...]
    hits: Floats
    lonely: Floats
    trials: Floats

    @classmethod
    def of(cls, seen: Observations) -> Origins:
        """Return the failures of the operations in *seen*."""
        trials = spans_of(seen)
        ops = tuple(op for op in trials if op in seen.operations)
        row_of = {op: row for row, op in enumerate(ops)}
        hits, lonely = np.zeros((len(ops), seen.columns)), np.zeros((len(ops), seen.columns))
        for feature in (SERVING, CALLING, LONELY):
            matrix = seen.feature(feature)
            for (op, _, _), own, alone in zip(matrix.keys, matrix.origins, matrix.lonely, strict=True):
                if op in row_of:
                    hits[row_of[op]] += own
                    lonely[row_of[op]] += alone
        services = tuple(seen.operations[op].service for op in ops)
        return cls(ops, services, hits, lonely, stacked([trials[op] for op in ops], seen.columns))

    def failing(self) -> Origins:
        """Return the rows with at least one failure."""
        rows = [int(row) for row in np.flatnonzero(self.hits.any(axis=1))]
        return replace(
            self,
            ops=tuple(self.ops[row] for row in rows),
            services=tuple(self.services[row] for row in rows),
            hits=self.hits[rows],
            lonely=self.lonely[rows],
            trials=self.trials[rows],
        )


@dataclass(frozen=True, slots=True)
class FailureTest:
    """The exact test of one operation, or of a whole service (``operation`` is None).

    ``op`` is the operation that the result blames, ``p_value`` is corrected for all tests of the incident.
    """

    service: str
    operation: str | None
    op: int
    counts: Counts
    p_value: float

    @property
    def spreads(self) -> float:
        """The deviation in spreads: five at p = 0.05, growing with the root of ln p as a normal's does."""
        return ALARM_SPREADS * math.sqrt(math.log(max(self.p_value, P_LEAST)) / math.log(ALPHA))

    def __str__(self) -> str:
        calls = f"of {self.operation!r} in {self.service}" if self.operation else f"of {self.service}"
        now, before = self.counts.hits, self.counts.quiet_hits
        return (
            f"{now:,.0f} of {self.counts.trials:,.0f} calls {calls} failed where the error began, "
            f"{before:,.0f} of {self.counts.quiet_trials:,.0f} in quiet time"
        )


def failure_tests(
    seen: Observations, reference: Sequence[int], parts: Sequence[int] = ()
) -> list[FailureTest]:
    """Test each operation and each service for more failures than in quiet time, most significant first.

    Operations without a quiet call have nothing to compare with and are not tested. Each p-value is
    multiplied by the number of tested operations and services (Bonferroni), failing or not. Results whose
    share of failures rose by less than 1 % have no practical meaning and are left out. *reference* are the
    quiet columns, *parts* those of the incident in parts.
    """
    origins, quiet = Origins.of(seen), list(reference)
    tested = (origins.trials[:, 0] > 0) & (origins.trials[:, quiet].sum(axis=1) > 0)
    if not tested.any():
        return []
    prior = _prior(origins.hits[tested][:, quiet], origins.trials[tested][:, quiet])
    groups: dict[str, list[int]] = {}
    for row in map(int, np.flatnonzero(tested)):
        groups.setdefault(origins.services[row], []).append(row)
    count = int(tested.sum()) + len(groups)
    bunching = _Bunching.of(origins, quiet, list(parts))
    found: list[FailureTest] = []
    for service, rows in groups.items():
        failing = [row for row in rows if origins.hits[row, 0] > 0]
        own = [_test(origins, [row], bunching, prior) for row in failing]
        if not own:
            continue
        first = failing[min(range(len(own)), key=lambda at: own[at][1])]
        for row, (counts, p_value) in zip(failing, own, strict=True):
            name = seen.operations[origins.ops[row]].name
            found.append(FailureTest(service, name, origins.ops[row], counts, min(1.0, count * p_value)))
        counts, p_value = _test(origins, rows, bunching, prior)
        found.append(FailureTest(service, None, origins.ops[first], counts, min(1.0, count * p_value)))
    return sorted((test for test in found if _matters(test.counts)), key=lambda test: test.p_value)


def _prior(hits: Floats, trials: Floats) -> Prior:
    """Return the prior of the system: the mean share of failures over its operations in quiet time."""
    return Prior.of_mean(float((hits.sum(axis=1) / trials.sum(axis=1)).mean()))


@dataclass(frozen=True)
class _Bunching:
    """How far failures come in bunches: columns of quiet time and of the parts, and what is usual."""

    quiet: list[int]
    parts: list[int]
    usual: float

    @classmethod
    def of(cls, origins: Origins, quiet: list[int], parts: list[int]) -> _Bunching:
        """Return the bunching with the median of the operations that failed repeatedly in quiet time.

        It counts from three such operations on, since one or two may have had a sick stretch.
        """
        rows = origins.hits[:, quiet].sum(axis=1) > 1
        if rows.sum() < OPERATIONS_LEAST:
            return cls(quiet, parts, 1.0)
        found = _within(origins.hits[rows][:, quiet], origins.trials[rows][:, quiet])
        return cls(quiet, parts, float(np.median(found)))

    def factor(self, hits: Floats, trials: Floats) -> float:
        """Return the variance of these counts (one row) over the binomial one, at least 1.

        Within the incident only what exceeds the 99 % quantile of χ² counts, since a fault may also begin
        late.
        """
        own = float(_within(hits[:, self.quiet], trials[:, self.quiet])[0])
        freedom = int((trials[0, self.parts] > 0).sum()) - 1
        if freedom < 1:
            return max(1.0, own, self.usual)
        excess = freedom / chi_square_quantile_99(freedom)
        inside = float(_within(hits[:, self.parts], trials[:, self.parts])[0]) * excess
        return max(1.0, own, self.usual, inside)


def _within(hits: Floats, trials: Floats) -> Floats:
    share = hits.sum(axis=1) / np.maximum(trials.sum(axis=1), 1.0)
    return dispersion(hits, share[:, None] * trials)


def _test(origins: Origins, rows: list[int], bunching: _Bunching, prior: Prior) -> tuple[Counts, float]:
    hits = origins.hits[rows].sum(axis=0, keepdims=True)
    trials = origins.trials[rows].sum(axis=0, keepdims=True)
    quiet = bunching.quiet
    before = float(hits[0, quiet].sum()), float(trials[0, quiet].sum())
    counts = Counts(float(hits[0, 0]), float(trials[0, 0]), *before)
    return counts, rise_p(counts, prior, bunching.factor(hits, trials))


def _matters(counts: Counts) -> bool:
    return counts.hits / counts.trials - counts.quiet_hits / counts.quiet_trials >= score.ERROR_FLOOR


@dataclass(frozen=True, slots=True)
class Failing:
    """A failing operation: its service, and the operation that it calls if the failures are of calls.

    ``reached`` calls were answered, but by a span without error status: conventions leave it unset on the
    server for codes such as FAILED_PRECONDITION or 404, which are errors for the caller.
    """

    service: str
    callee: Operation | None
    reached: bool


def errors(seen: Observations, reference: list[int], tests: Sequence[FailureTest] = ()) -> Kind:
    """Origins of errors per span.

    A failed client span without a server span, although it usually has one, means that the callee was not
    reached. The caller is blamed (the address is part of its configuration) and the callee in part; a callee
    that several callers cannot reach is down. A failed client span whose server span did not fail means that
    the callee refused: it is blamed, and a single caller in part. Operations whose failures are significant
    by the exact *tests* have at least the strength of an alarm in the incident, however few their calls are.
    """
    origins = Origins.of(seen).failing()
    scored = score.ratios(origins.hits, origins.trials, reference, score.ERROR_FLOOR)
    z = scored.z.copy()
    proven = {test.op: test.spreads for test in reversed(tests) if test.p_value <= ALPHA}
    z[:, 0] = np.fmax(z[:, 0], [proven.get(op, 0.0) for op in origins.ops])
    scored = replace(scored, z=z)
    callees = _usual_callees(seen)

    def failing(row: int, column: int) -> Failing:
        alone = bool(origins.lonely[row, column] > 0.5 * origins.hits[row, column])
        return Failing(origins.services[row], callees.get(origins.ops[row]), not alone)

    def blame(column: int) -> Iterator[BlameShare]:
        rows = np.flatnonzero(scored.z[:, column] > Z_FLOOR)
        return _held_responsible({int(row): failing(int(row), column) for row in rows})

    def describe(row: int, service: str) -> Finding:
        one, name = failing(row, 0), seen.operations[origins.ops[row]].name
        operation, mechanism, text = name, Mechanism.ERROR, f"{name!r} fails by itself"
        if one.callee is not None and one.reached:
            text = f"{name!r} fails by what {one.callee.service} answers"
            operation = one.callee.name if service == one.callee.service else name
        elif one.callee is not None:
            text = f"{name!r} fails and {one.callee.service} never received the call"
            mechanism = Mechanism.UNREACHABLE
        unknown = mechanism is Mechanism.UNREACHABLE and service != one.service
        words = Words(None if unknown else operation, Signal.ERROR_RATE, mechanism, "ratio", "traces", text)
        return finding(scored, row, service, words)

    return Kind("errors", Group.ERROR, scored, blame, describe)


def _held_responsible(failing: dict[int, Failing]) -> Iterator[BlameShare]:
    """Yield the blame for the rows of failing operations and for the callee that they call, if any."""
    callers: dict[str, set[str]] = {}
    for one in failing.values():
        if one.callee is not None:
            callers.setdefault(one.callee.service, set()).add(one.service)
    for row, one in failing.items():
        if one.callee is None:
            yield BlameShare(row, one.service)
            continue
        callee = one.callee.service
        shared = len(callers[callee]) > 1
        yield BlameShare(row, callee, 1.0 if shared or one.reached else OTHER_END)
        if not shared:
            yield BlameShare(row, one.service, OTHER_END if one.reached else 1.0)


def _usual_callees(seen: Observations) -> dict[int, Operation]:
    """Return the operation of another service that each client operation usually calls."""
    counts: dict[tuple[int, int], float] = {}
    matrix = known(seen.feature(GAP), lambda key: key[2] in seen.operations)
    for (op, _, child), row in zip(matrix.keys, matrix.counts, strict=True):
        counts[op, child] = counts.get((op, child), 0.0) + float(row.sum())
    return {op: seen.operations[child] for (op, child), _ in sorted(counts.items(), key=lambda item: item[1])}
