"""Evidence in traces."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import replace

import numpy as np

from pytest_otel_diag.analyzers.builtin import scores as score
from pytest_otel_diag.analyzers.builtin.evidence.deviations import (
    BlameShare,
    Finding,
    Group,
    Kind,
    Source,
    Words,
    finding,
    owners,
)
from pytest_otel_diag.analyzers.builtin.evidence.observations import (
    CALL,
    CALLING,
    END,
    FLOW,
    GAP,
    LAG,
    LONELY,
    MAGNITUDE,
    SERVING,
    START,
    Key,
    Matrix,
    Observations,
)
from pytest_otel_diag.analyzers.builtin.robust_statistics import Z_FLOOR, Floats
from pytest_otel_diag.analyzers.builtin.templates import Templates
from pytest_otel_diag.model.diagnosis import Mechanism, Signal

TAIL_STEPS = 2
MILLISECOND = 4
"""The magnitude of a millisecond as a power of four of microseconds."""

HARMLESS = ("TRACE", "DEBUG", "INFO", "NOTICE")
"""Beginnings of severities below WARN, as OpenTelemetry and common libraries spell them."""

CALLER_PART = 0.6
"""Share of the blame for the caller whose flow ends right after a call to another service."""


def trace_kinds(seen: Observations, reference: list[int]) -> list[Kind]:
    """Return all kinds of evidence from traces."""
    trials = spans_of(seen)
    return [
        *(self_time(seen, reference, feature) for feature in (SERVING, LONELY)),
        tails(seen, reference),
        gaps(seen, reference),
        lags(seen, reference),
        calls(seen, reference, trials),
        flows(seen, reference, trials, about_logs=False),
        flows(seen, reference, trials, about_logs=True),
        traffic(seen, reference),
    ]


def spans_of(seen: Observations) -> dict[int, Floats]:
    """Return the number of spans of each operation, slot by slot."""
    totals: dict[int, Floats] = {}
    for feature in (SERVING, CALLING, LONELY):
        matrix = seen.feature(feature)
        for (op, _, _), counts in zip(matrix.keys, matrix.counts, strict=True):
            totals[op] = totals[op] + counts if op in totals else counts
    return totals


def known(matrix: Matrix, keep: Callable[[Key], bool]) -> Matrix:
    """Return the rows of the matrix whose key is wanted."""
    rows = [row for row, key in enumerate(matrix.keys) if keep(key)]
    columns = {
        name: getattr(matrix, name)[rows]
        for name in ("counts", "low", "mid", "high", "took_mid", "took_high", "failed", "origins", "lonely")
    }
    return replace(matrix, keys=tuple(matrix.keys[row] for row in rows), **columns)


def self_time(seen: Observations, reference: list[int], feature: int) -> Kind:
    """Self time of spans: the duration minus the union of the children.

    It does not propagate: a slow callee lengthens the spans of its callers but not their self time (used by
    TraceRCA, IWQoS 2021, and CRISP, ATC 2022). A client span without a known callee (a database, a cache)
    is self time of the caller.
    """
    matrix = known(seen.feature(feature), lambda key: key[0] in seen.operations)
    services = [seen.operations[op].service for op, _, _ in matrix.keys]
    scored = score.times(matrix, reference, services)

    def describe(row: int, service: str) -> Finding:
        name = seen.operations[matrix.keys[row][0]].name
        words = Words(name, Signal.LATENCY, Mechanism.LATENCY, "ms", "traces", f"own time of {name!r}")
        return finding(scored, row, service, words)

    return Kind("self time", Group.SELF, scored, owners(scored, services, rising=True), describe)


def tails(seen: Observations, reference: list[int]) -> Kind:
    """Spans with extreme self times: slowness of a few requests that medians do not show.

    Self times are counted by powers of four. Extreme is two steps above the quiet 99 % quantile, so at least
    four times it.
    """
    counts: dict[int, dict[int, Floats]] = {}
    for (op, magnitude, _), row in zip(
        seen.feature(MAGNITUDE).keys, seen.feature(MAGNITUDE).counts, strict=True
    ):
        if op in seen.operations:
            counts.setdefault(op, {})[magnitude] = row
    ops = list(counts)
    limits = [_usual_magnitude(counts[op], reference) + TAIL_STEPS for op in ops]
    hits = [
        np.sum([row for magnitude, row in counts[op].items() if magnitude >= limit], axis=0)
        if max(counts[op]) >= limit
        else np.zeros(seen.columns)
        for op, limit in zip(ops, limits, strict=True)
    ]
    totals = [np.sum(list(counts[op].values()), axis=0) for op in ops]
    scored = score.ratios(stacked(hits, seen.columns), stacked(totals, seen.columns), reference)
    services = [seen.operations[op].service for op in ops]

    def describe(row: int, service: str) -> Finding:
        name, least_ms = seen.operations[ops[row]].name, 4.0 ** limits[row] / 1e3
        text = f"{name!r} takes more than {least_ms:.3g} ms of its own"
        return finding(
            scored,
            row,
            service,
            Words(name, Signal.LATENCY, Mechanism.LATENCY, "of the time", "traces", text),
        )

    return Kind("tails", Group.SELF, scored, owners(scored, services, rising=True), describe)


def _usual_magnitude(counts: dict[int, Floats], reference: list[int]) -> int:
    """Return the magnitude of the quiet 99 % quantile, at least that of a millisecond."""
    quiet = {magnitude: float(row[reference].sum()) for magnitude, row in sorted(counts.items())}
    left = 0.01 * sum(quiet.values())
    usual = MILLISECOND
    for magnitude in sorted(quiet, reverse=True):
        left -= quiet[magnitude]
        if left < 0:
            usual = max(usual, magnitude)
            break
    return usual


def gaps(seen: Observations, reference: list[int]) -> Kind:
    """Time of a client span beyond its server span: the network or a queue in front of the server.

    A gap has two ends. It blames the callee in proportion to the share of its callers with a gap. If most
    calls of the caller are affected, it blames the network of the caller.
    """
    matrix = known(seen.feature(GAP), lambda key: key[0] in seen.operations and key[2] in seen.operations)
    ends = [(seen.operations[op].service, seen.operations[child].service) for op, _, child in matrix.keys]
    scored = score.times(matrix, reference, [callee for _, callee in ends])
    enough = scored.tested

    def blame(column: int) -> Iterator[BlameShare]:
        worst: dict[tuple[str, str], tuple[float, int]] = {}
        for row, end in enumerate(ends):
            if enough[row] and matrix.counts[row, column] >= score.MIN_HERE:
                z = float(scored.z[row, column])
                worst[end] = max(worst.get(end, (z, row)), (z, row))
        for (caller, callee), (z, row) in worst.items():
            if z > Z_FLOOR:
                yield from _both_ends(worst, caller, callee, row)

    def describe(row: int, service: str) -> Finding:
        caller, callee = ends[row]
        name = seen.operations[matrix.keys[row][2]].name
        text = f"between {caller}'s call and {callee}'s answer to {name!r}"
        operation = name if service == callee else seen.operations[matrix.keys[row][0]].name
        return finding(
            scored, row, service, Words(operation, Signal.NETWORK, Mechanism.NETWORK, "ms", "traces", text)
        )

    return Kind("gaps", Group.EDGE, scored, blame, describe)


def _both_ends(
    worst: dict[tuple[str, str], tuple[float, int]], caller: str, callee: str, row: int
) -> Iterator[BlameShare]:
    siblings = [z > Z_FLOOR for (a, b), (z, _) in worst.items() if a == caller and b != callee]
    others = [z > Z_FLOOR for (a, b), (z, _) in worst.items() if b == callee and a != caller]
    # at least two siblings: one other affected call may be a coincidence
    by_caller = max(0.0, 2.0 * float(np.mean(siblings)) - 1.0) if len(siblings) >= 2 else 0.0
    seen_by = (1 + sum(others)) / (1 + len(others))
    yield BlameShare(row, callee, seen_by * (1.0 - by_caller))
    if by_caller:
        yield BlameShare(row, caller, by_caller)


def lags(seen: Observations, reference: list[int]) -> Kind:
    """Time between sending a message and the start of its processing; it blames the consumer."""
    matrix = known(seen.feature(LAG), lambda key: key[0] in seen.operations and key[2] in seen.operations)
    services = [seen.operations[child].service for _, _, child in matrix.keys]
    scored = score.times(matrix, reference, services)

    def describe(row: int, service: str) -> Finding:
        name = seen.operations[matrix.keys[row][2]].name
        text = f"messages wait before {name!r}"
        return finding(scored, row, service, Words(name, Signal.QUEUE, Mechanism.QUEUE, "ms", "traces", text))

    return Kind("queue lag", Group.QUEUE, scored, owners(scored, services, rising=True), describe)


def calls(seen: Observations, reference: list[int], trials: dict[int, Floats]) -> Kind:
    """Calls to each child per span: exceptions and early returns appear as missing calls."""
    matrix = known(seen.feature(CALL), lambda key: key[0] in trials and key[0] in seen.operations)
    scored = score.ratios(
        matrix.counts, stacked([trials[op] for op, _, _ in matrix.keys], seen.columns), reference
    )
    services = [seen.operations[op].service for op, _, _ in matrix.keys]

    def describe(row: int, service: str) -> Finding:
        op, child, _ = matrix.keys[row]
        caller = seen.operations[op].name
        text = f"{caller!r} calls {_event(seen, child)}"
        return finding(
            scored, row, service, Words(caller, Signal.CALLS, Mechanism.ERROR, "times", "traces", text)
        )

    return Kind("calls", Group.FLOW, scored, owners(scored, services), describe)


def flows(seen: Observations, reference: list[int], trials: dict[int, Floats], *, about_logs: bool) -> Kind:
    """Probability of the next event of a span given this one: child calls and log lines in time order.

    Nezha (FSE 2023) compares such event graphs. Loops are collapsed. A flow that ends right after a call to
    another service blames the callee, and in part the caller.
    """
    matrix = known(seen.feature(FLOW), lambda key: key[0] in trials and key[0] in seen.operations)
    totals: dict[tuple[int, int], Floats] = {}
    for (op, event, _), counts in zip(matrix.keys, matrix.counts, strict=True):
        totals[op, event] = totals[op, event] + counts if (op, event) in totals else counts
    logged = seen.templates.by_id
    matrix = known(matrix, lambda key: (key[1] in logged or key[2] in logged) is about_logs)
    given = [trials[op] if event == START else totals[op, event] for op, event, _ in matrix.keys]
    scored = score.ratios(matrix.counts, stacked(given, seen.columns), reference)

    def blame(column: int) -> Iterator[BlameShare]:
        for row in np.flatnonzero(np.abs(scored.z[:, column]) > Z_FLOOR):
            op, event, following = matrix.keys[row]
            service = seen.operations[op].service
            callee = seen.operations.get(event)
            broken = following == END and scored.z[row, column] > 0
            if broken and callee is not None and callee.service != service:
                yield BlameShare(int(row), callee.service)
                yield BlameShare(int(row), service, CALLER_PART)
            else:
                yield BlameShare(int(row), service)

    def describe(row: int, service: str) -> Finding:
        op, event, following = matrix.keys[row]
        name = seen.operations[op].name
        text = f"in {name!r}, {_event(seen, event)} is followed by {_event(seen, following)}"
        signal: Signal = Signal.LOGS if about_logs else Signal.CALLS
        source: Source = "logs" if about_logs else "traces"
        rising = scored.z[row, 0] > 0
        added = following in seen.templates.by_id
        mechanism = line_mechanism(seen.templates, following, rising=rising) if added else Mechanism.ERROR
        return finding(scored, row, service, Words(name, signal, mechanism, "of the time", source, text))

    return Kind("log flow" if about_logs else "call flow", Group.FLOW, scored, blame, describe)


def traffic(seen: Observations, reference: list[int]) -> Kind:
    """Rate of requests that enter the system; it blames the service that they enter."""
    services = [name for name, (roots, _) in seen.requests.items() if roots.any()]
    hits = stacked([seen.requests[name][0] for name in services], seen.columns)
    scored = score.rates(hits, seen.slots.seconds, reference)

    def describe(row: int, service: str) -> Finding:
        words = Words(
            None, Signal.REQUEST_RATE, Mechanism.TRAFFIC, "1/s", "traces", "requests that enter here"
        )
        return finding(scored, row, service, words)

    return Kind("traffic", Group.TRAFFIC, scored, owners(scored, services, rising=True), describe)


def line_mechanism(templates: Templates, template: int, *, rising: bool) -> Mechanism | None:
    """Return the mechanism that a changed number of lines indicates.

    More lines of a severity below WARN show that the service does something else, not that it fails.
    """
    severity = templates.by_id[template].severity.upper()
    return None if rising and severity.startswith(HARMLESS) else Mechanism.ERROR


def _event(seen: Observations, event: int) -> str:
    if event == START:
        return "the start"
    if event == END:
        return "the end"
    template = seen.templates.by_id.get(event)
    if template is not None:
        return f"the line “{template.text[:80]}”"
    operation = seen.operations.get(event)
    return f"{operation.service} {operation.name!r}" if operation else "an unknown call"


def stacked(rows: list[Floats], columns: int) -> Floats:
    """Return the rows as a matrix, also if there are none."""
    return np.stack(rows) if rows else np.zeros((0, columns))
