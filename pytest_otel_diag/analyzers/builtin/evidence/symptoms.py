"""Deviations that users and dashboards see.

They are reported as anomalies but do not rank services, since a slow or failing callee affects all of its
callers equally.
"""

from __future__ import annotations

import numpy as np

from pytest_otel_diag.analyzers.builtin import robust_statistics
from pytest_otel_diag.analyzers.builtin import scores as score
from pytest_otel_diag.analyzers.builtin.evidence.deviations import (
    Finding,
    Group,
    Kind,
    Words,
    finding,
    owners,
)
from pytest_otel_diag.analyzers.builtin.evidence.observations import SERVES, SERVING, Matrix, Observations
from pytest_otel_diag.analyzers.builtin.evidence.traces import known
from pytest_otel_diag.analyzers.builtin.scores import Scores
from pytest_otel_diag.model.diagnosis import Mechanism, Signal

LATENCY_SHARE = 0.10
"""Smallest relative change of a median that counts as a symptom."""


def symptom_kinds(seen: Observations, reference: list[int]) -> list[Kind]:
    """Return latency, error rate and request rate of the operations of services."""
    matrix = known(seen.feature(SERVING), lambda key: key[0] in seen.operations and _offered(seen, key[0]))
    return [_latency(seen, reference, matrix), _failing(seen, reference, matrix), _entries(seen, reference)]


def _offered(seen: Observations, op: int) -> bool:
    operation = seen.operations[op]
    return operation.kind in SERVES or operation.roots > 0


def _latency(seen: Observations, reference: list[int], matrix: Matrix) -> Kind:
    quiet = robust_statistics.spread(matrix.took_mid[:, reference])
    unit = np.fmax(np.fmax(quiet.unit, LATENCY_SHARE * np.nan_to_num(quiet.centre)), score.TIME_FLOOR_MS)
    with np.errstate(invalid="ignore"):
        z = np.nan_to_num((matrix.took_mid - quiet.centre[:, None]) / unit[:, None])
    enough = matrix.counts[:, reference].sum(axis=1) >= score.MIN_REFERENCE
    z = np.where((matrix.counts >= score.MIN_HERE) & enough[:, None], z, 0.0)
    scored = Scores(z, matrix.took_mid, quiet.centre, unit, len(reference) - 1, enough)
    services = [seen.operations[op].service for op, _, _ in matrix.keys]

    def describe(row: int, service: str) -> Finding:
        name = seen.operations[matrix.keys[row][0]].name
        text = f"median duration of {name!r}"
        words = Words(name, Signal.LATENCY, Mechanism.LATENCY, "ms", "traces", text, "p50_ms")
        return finding(scored, row, service, words)

    return Kind("latency", Group.SELF, scored, owners(scored, services), describe)


def _failing(seen: Observations, reference: list[int], matrix: Matrix) -> Kind:
    scored = score.ratios(matrix.failed, matrix.counts, reference, score.ERROR_FLOOR)
    services = [seen.operations[op].service for op, _, _ in matrix.keys]

    def describe(row: int, service: str) -> Finding:
        name = seen.operations[matrix.keys[row][0]].name
        text = f"{name!r} fails"
        words = Words(name, Signal.ERROR_RATE, Mechanism.ERROR, "ratio", "traces", text, "error_ratio")
        return finding(scored, row, service, words)

    return Kind("failing", Group.ERROR, scored, owners(scored, services), describe)


def _entries(seen: Observations, reference: list[int]) -> Kind:
    services = list(seen.requests)
    hits = (
        np.stack([sum(seen.requests[name]) for name in services]) if services else np.zeros((0, seen.columns))
    )
    scored = score.rates(hits, seen.slots.seconds, reference)

    def describe(row: int, service: str) -> Finding:
        words = Words(None, Signal.REQUEST_RATE, Mechanism.TRAFFIC, "1/s", "traces", "requests")
        return finding(scored, row, service, words)

    return Kind("requests", Group.TRAFFIC, scored, owners(scored, services), describe)
