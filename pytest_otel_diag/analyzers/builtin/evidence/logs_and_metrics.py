"""Evidence in logs and metrics."""

from __future__ import annotations

import re
from collections.abc import Callable

import numpy as np

from pytest_otel_diag.analyzers.builtin import scores as score
from pytest_otel_diag.analyzers.builtin.evidence.deviations import (
    Finding,
    Group,
    Kind,
    Words,
    finding,
    owners,
)
from pytest_otel_diag.analyzers.builtin.evidence.observations import LOG, Observations, SeriesKey
from pytest_otel_diag.analyzers.builtin.evidence.traces import known, line_mechanism, spans_of
from pytest_otel_diag.analyzers.builtin.robust_statistics import Floats
from pytest_otel_diag.analyzers.builtin.vocabulary import meaning
from pytest_otel_diag.model.diagnosis import Signal


def lines(seen: Observations, reference: list[int]) -> Kind:
    """Log lines of a template per span of the operation that writes them (as in Nezha, FSE 2023)."""
    trials = spans_of(seen)
    matrix = known(seen.feature(LOG), lambda key: key[0] in trials and key[0] in seen.operations)
    given = np.stack([trials[op] for op, _, _ in matrix.keys]) if len(matrix) else matrix.counts
    scored = score.ratios(matrix.counts, given, reference)
    services = [seen.operations[op].service for op, _, _ in matrix.keys]

    def describe(row: int, service: str) -> Finding:
        op, template, _ = matrix.keys[row]
        text = f"lines “{seen.templates.by_id[template].text[:120]}” a span"
        mechanism = line_mechanism(seen.templates, template, rising=scored.z[row, 0] > 0)
        name = seen.operations[op].name
        return finding(scored, row, service, Words(name, Signal.LOGS, mechanism, "", "logs", text))

    return Kind("log lines", Group.FLOW, scored, owners(scored, services), describe)


def loose_lines(seen: Observations, reference: list[int]) -> Kind:
    """Log lines per second of a template, for lines without trace context."""
    keys = list(seen.log_rates)
    hits = np.stack([seen.log_rates[key] for key in keys]) if keys else np.zeros((0, seen.columns))
    seconds = np.broadcast_to(seen.slots.seconds, hits.shape)
    scored = score.ratios(hits, seconds.copy(), reference)

    def describe(row: int, service: str) -> Finding:
        text = f"lines “{seen.templates.by_id[keys[row][1]].text[:120]}” a second"
        mechanism = line_mechanism(seen.templates, keys[row][1], rising=scored.z[row, 0] > 0)
        return finding(scored, row, service, Words(None, Signal.LOGS, mechanism, "", "logs", text))

    return Kind(
        "loose log lines", Group.FLOW, scored, owners(scored, [service for service, _ in keys]), describe
    )


def resources(seen: Observations, reference: list[int]) -> Kind:
    """Metric series by their robust distance (BARO, FSE 2024).

    If the telemetry has spans, latency metrics are ignored: they repeat the spans less exactly and rise in
    all callers. So are the requests of users and metrics of the host (``system.*``), which all services on it
    share. A value that several services share exactly belongs to their node, so its weight is divided by
    their number. Changes that traffic explains are not deviations.
    """
    scored = score.levels(seen.metrics, reference, _load(seen, reference))
    series = seen.metrics.keys
    meanings = [meaning(key.metric, key.unit) for key in series]
    shared: dict[tuple[str, float], set[str]] = {}
    values = np.nan_to_num(seen.metrics.levels[:, 0])
    for key, value in zip(series, values, strict=True):
        shared.setdefault((key.metric, float(value)), set()).add(key.owner)
    repeated = _repeated(seen)
    shares = [
        0.0 if repeated(key, signal) else 1.0 / len(shared[key.metric, float(value)])
        for key, value, (signal, _) in zip(series, values, meanings, strict=True)
    ]
    services = [key.owner for key in series]

    def describe(row: int, service: str) -> Finding:
        key, (signal, mechanism) = series[row], meanings[row]
        text = f"{key.metric}{f' ({key.attributes})' if key.attributes else ''}"
        return finding(scored, row, service, Words(None, signal, mechanism, key.unit, "metrics", text))

    return Kind("metrics", Group.METRIC, scored, owners(scored, services, shares=shares), describe)


HOST = "system."
"""Namespace of metrics of the host in OpenTelemetry's conventions."""

OF_REQUESTS = frozenset({Signal.ERROR_RATE, Signal.QUEUE, Signal.REQUEST_RATE})
REQUESTS = re.compile(r"(?:^|[._])(?:reqs?|requests?|http|rpc)(?:[._]|$)", re.IGNORECASE)


def _repeated(seen: Observations) -> Callable[[SeriesKey, Signal], bool]:
    """Return whether a series says nothing about its service that the spans of others do not say better.

    Such are latencies, the requests of users, and requests of a service without spans in a traced system (a
    load generator without instrumentation): the spans of those that serve them show the same.
    """
    traced = {operation.service for operation in seen.operations.values()}
    users = seen.clients()

    def repeated(key: SeriesKey, signal: Signal) -> bool:
        if key.metric.startswith(HOST):
            return True
        if not traced:
            return False
        of_users = key.owner in users or (key.owner not in traced and REQUESTS.search(key.metric))
        return signal is Signal.LATENCY or (signal in OF_REQUESTS and bool(of_users))

    return repeated


def _load(seen: Observations, reference: list[int]) -> Floats:
    """Return the relative traffic of each series' service, 1 without traffic data."""
    usual = np.ones(seen.columns)
    ratios: dict[str, Floats] = {}
    if seen.requests:
        entries = np.stack([sum(both) for both in seen.requests.values()])
        loads = score.loads(entries, seen.slots.seconds, reference)
        ratios = dict(zip(seen.requests, loads, strict=True))
    rows = [ratios.get(key.owner, usual) for key in seen.metrics.keys]
    return np.stack(rows) if rows else np.ones((0, seen.columns))
