"""Compares a diagnosis with the expectation of its scenario field by field."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import groupby, pairwise

from pytest_otel_diag.model.diagnosis import Anomaly, CriticalPath, Diagnosis, RootCause, Signal
from pytest_otel_diag.model.scenario import Expectation, ExpectedAnomaly, ExpectedRootCause, Scenario
from pytest_otel_diag.model.session import QueryRecord
from pytest_otel_diag.model.telemetry import SIGNAL_TABLES, CallEdge
from pytest_otel_diag.model.verdict import Match, Verdict
from pytest_otel_diag.ports import JudgeFacts
from pytest_otel_diag.scoring.judged_query import run_diagnostic_query
from pytest_otel_diag.scoring.names import ServiceNames, mentions, same_operation
from pytest_otel_diag.scoring.parts import services_of_parts

NAMED_WITHIN = 3
"""A root cause counts as named among this many services; a list of all services names none."""

_STARVED = (Signal.REQUEST_RATE, Signal.CALLS)
"""Signals that change downstream of a root cause because it sends fewer calls."""


async def judge(diagnosis: Diagnosis, scenario: Scenario, facts: JudgeFacts) -> Verdict:
    """Return the verdict on *diagnosis*; runs its diagnostic query on ``facts.telemetry``.

    A query that the store rejects is part of the verdict, not an error. Ranks of services count distinct
    services, as in AC@k; ranks of operations and mechanisms count list positions.
    """
    view = await _view(diagnosis, scenario.expectation, facts)
    query = None
    if diagnosis.query is not None:
        query = await run_diagnostic_query(diagnosis.query, facts.telemetry, view.culprit_names())
    ranks = _ranks(diagnosis.root_causes, view)
    anomalies, spurious = _anomalies(diagnosis.anomalies, view)
    named = _named_services(diagnosis.root_causes, view.names)
    groups = view.cause_groups()
    horizon = named[: max(NAMED_WITHIN, len(groups))]
    return Verdict(
        fault_present=not scenario.control,
        detected=diagnosis.detected,
        anomalies=anomalies,
        spurious_anomalies=spurious,
        paths=_paths(diagnosis.critical_paths, view),
        candidates=len(facts.known_services),
        service_rank=ranks.service,
        operation_rank=ranks.operation,
        mechanism_rank=ranks.mechanism,
        expected_operation=any(cause.operation is not None for cause in view.causes),
        expected_mechanism=any(cause.mechanisms for cause in view.causes),
        causes_expected=len(groups),
        causes_named=sum(any(service in horizon for service in group) for group in groups),
        named_flag=_names_flag(diagnosis, scenario),
        named_red_herring=_red_herring(diagnosis.root_causes, view),
        unknown_services=_unknown(diagnosis, view),
        query=query,
        first_hypothesis_right=_first_hypothesis(diagnosis, view),
        confidence=diagnosis.confidence,
        data_sources=data_sources(facts.queries),
        queries_total=len(facts.queries),
        queries_irrelevant=sum(map(irrelevant, facts.queries)),
        human_prompts=diagnosis.usage.human_prompts,
        time_to_impact_s=facts.impact.time_to_impact_s if facts.impact is not None else None,
        time_to_diagnosis_s=facts.time_to_diagnosis_s,
        known_services=facts.known_services,
        parts=view.parts,
    )


async def _view(diagnosis: Diagnosis, expectation: Expectation, facts: JudgeFacts) -> _View:
    """Return what the diagnosis is compared with; telemetry is asked about names that are no service's."""
    spelled = ServiceNames(facts.known_services).including(_expected_services(expectation))
    odd = [name for name in _named(diagnosis) if spelled.spelled(name) is None]
    parts = await services_of_parts(odd, facts.windows, facts.telemetry) if odd else {}
    return _View.of(expectation, facts, parts)


def irrelevant(query: QueryRecord) -> bool:
    """Return whether a query was irrelevant: it failed, found no row, or read no telemetry."""
    return query.error is not None or query.rows == 0 or not query.data_sources


def data_sources(queries: Iterable[QueryRecord]) -> tuple[str, ...]:
    """Return the signals whose rows the queries returned, in the order traces, logs, metrics."""
    read = {
        source for query in queries if query.error is None and query.rows > 0 for source in query.data_sources
    }
    return tuple(source for source in SIGNAL_TABLES if source in read)


@dataclass(frozen=True)
class _View:
    """The expectation with resolved names, and the facts of the system."""

    expectation: Expectation
    names: ServiceNames
    edges: frozenset[tuple[str, str]]
    telemetry_known: bool
    parts: Mapping[str, tuple[str, ...]]

    @classmethod
    def of(cls, expectation: Expectation, facts: JudgeFacts, parts: Mapping[str, tuple[str, ...]]) -> _View:
        # A service that stopped with the fault is not in telemetry, but naming it is right.
        names = ServiceNames(facts.known_services, parts).including(_expected_services(expectation))
        edges = _resolved_edges(facts.edges, names)
        return cls(expectation, names, edges, bool(facts.known_services), parts)

    @property
    def causes(self) -> tuple[ExpectedRootCause, ...]:
        return self.expectation.root_causes

    def culprits(self) -> frozenset[str]:
        return frozenset(self.names.canonical(cause.service) for cause in self.causes)

    def culprit_names(self) -> frozenset[str]:
        return self.culprits() | {cause.service for cause in self.causes}

    def cause_groups(self) -> list[frozenset[str]]:
        """Return the accepted services per fault: a group has alternatives, and each group must be named."""
        faults = dict.fromkeys(cause.fault for cause in self.causes)
        return [
            frozenset(self.names.canonical(cause.service) for cause in self.causes if cause.fault == fault)
            for fault in faults
        ]


def _resolved_edges(edges: Iterable[CallEdge], names: ServiceNames) -> frozenset[tuple[str, str]]:
    return frozenset((names.canonical(edge.caller), names.canonical(edge.callee)) for edge in edges)


@dataclass(frozen=True)
class _Ranks:
    service: int | None
    operation: int | None
    mechanism: int | None


def _ranks(found: Sequence[RootCause], view: _View) -> _Ranks:
    culprits = view.culprits()
    return _Ranks(
        service=_first(service in culprits for service in _named_services(found, view.names)),
        operation=_first(any(_right_operation(cause, c, view.names) for c in view.causes) for cause in found),
        mechanism=_first(any(_right_mechanism(cause, c, view.names) for c in view.causes) for cause in found),
    )


def _first(hits: Iterable[bool]) -> int | None:
    return next((rank for rank, hit in enumerate(hits, start=1) if hit), None)


def _named_services(found: Sequence[RootCause], names: ServiceNames) -> list[str]:
    return list(dict.fromkeys(names.canonical(cause.service) for cause in found))


def _right_operation(found: RootCause, expected: ExpectedRootCause, names: ServiceNames) -> bool:
    return (
        expected.operation is not None
        and names.same(expected.service, found.service)
        and same_operation(expected.operation, found.operation)
    )


def _right_mechanism(found: RootCause, expected: ExpectedRootCause, names: ServiceNames) -> bool:
    return found.mechanism in expected.mechanisms and names.same(expected.service, found.service)


def matches_anomaly(expected: ExpectedAnomaly, found: Anomaly, names: ServiceNames) -> bool:
    """Return whether *found* is the expected anomaly; fields that the expectation omits match anything.

    The expected direction ``changed`` matches any; ``up`` and ``down`` match only themselves.
    """
    return (
        names.same(expected.service, found.service)
        and expected.signal in (None, found.signal)
        and expected.direction in (None, "changed", found.direction)
        and (expected.operation is None or same_operation(expected.operation, found.operation))
    )


def _anomalies(found: Sequence[Anomaly], view: _View) -> tuple[tuple[Match, ...], int]:
    matches = []
    for expected in view.expectation.anomalies:
        hit = next((anomaly for anomaly in found if matches_anomaly(expected, anomaly, view.names)), None)
        shown = describe_anomaly(hit) if hit is not None else None
        matches.append(Match(expected=describe_expected(expected), found=shown))
    explained, starved = _explained(view)
    spurious = sum(not _is_explained(anomaly, view.names, explained, starved) for anomaly in found)
    return tuple(matches), spurious


def _explained(view: _View) -> tuple[set[str], set[str]]:
    """Return the services whose anomalies a fault explains, and those whose missing calls it explains.

    Errors and delays propagate from the root cause to its callers, missing calls to its callees.
    """
    culprits = view.culprits()
    expected = {view.names.canonical(anomaly.service) for anomaly in view.expectation.anomalies}
    on_paths = {view.names.canonical(service) for path in view.expectation.paths for service in path}
    callers = _reach(culprits, [(callee, caller) for caller, callee in view.edges])
    return callers | expected | on_paths | culprits, _reach(culprits, view.edges)


def _is_explained(anomaly: Anomaly, names: ServiceNames, explained: set[str], starved: set[str]) -> bool:
    service = names.canonical(anomaly.service)
    return service in explained or (service in starved and anomaly.signal in _STARVED)


def _reach(start: Iterable[str], edges: Iterable[tuple[str, str]]) -> set[str]:
    following: dict[str, list[str]] = {}
    for source, target in edges:
        following.setdefault(source, []).append(target)
    seen: set[str] = set()
    waiting = list(start)
    while waiting:
        for target in following.get(waiting.pop(), ()):
            if target not in seen:
                seen.add(target)
                waiting.append(target)
    return seen


def _paths(found: Sequence[CriticalPath], view: _View) -> tuple[Match, ...]:
    matches = []
    for expected in view.expectation.paths:
        hit = next((path for path in found if _path_matches(expected, path, view)), None)
        shown = " → ".join(hit.services) if hit is not None else None
        matches.append(Match(expected=" → ".join(expected), found=shown))
    return tuple(matches)


def _path_matches(expected: Sequence[str], found: CriticalPath, view: _View) -> bool:
    """Match an ordered sub-path: the expectation may skip hops, the diagnosis must not invent any."""
    section = sub_path(expected, found.services, view.names)
    if section is None:
        return False
    # Without known edges (only metrics) the hops cannot be checked.
    return not view.edges or all(hop in view.edges for hop in pairwise(section))


def sub_path(expected: Sequence[str], services: Sequence[str], names: ServiceNames) -> tuple[str, ...] | None:
    """Return the shortest, first-ending run of *services* that contains *expected* in order, else None.

    The returned names are canonical; consecutive repeats (a service that calls itself) count once.
    """
    walked = [service for service, _ in groupby(names.canonical(service) for service in services)]
    wanted = [service for service, _ in groupby(names.canonical(service) for service in expected)]
    end = _scan(wanted, walked)
    if end is None:
        return None
    # Scanning backwards from the end finds the latest start and so the shortest run.
    back = _scan(wanted[::-1], walked[:end][::-1])
    assert back is not None
    return tuple(walked[end - back : end])


def _scan(wanted: Sequence[str], walked: Sequence[str]) -> int | None:
    """Return the length of the prefix of *walked* that contains *wanted* in order, None if there is none."""
    position = 0
    for service in wanted:
        while position < len(walked) and walked[position] != service:
            position += 1
        if position == len(walked):
            return None
        position += 1
    return position


def _names_flag(diagnosis: Diagnosis, scenario: Scenario) -> bool:
    keys = {*scenario.expectation.flags, *(fault.flag for fault in scenario.faults)}
    texts = [diagnosis.summary]
    for cause in diagnosis.root_causes:
        texts += [cause.service, cause.operation or "", cause.explanation]
        texts += [evidence.summary for evidence in cause.evidence]
    return any(mentions(text, key) for text in texts for key in keys)


def _red_herring(found: Sequence[RootCause], view: _View) -> str | None:
    if not found:
        return None
    herrings = view.expectation.red_herrings
    return next((name for name in herrings if view.names.same(name, found[0].service)), None)


def _unknown(diagnosis: Diagnosis, view: _View) -> tuple[str, ...]:
    if not view.telemetry_known:
        return ()
    return tuple(name for name in _named(diagnosis) if view.names.resolve(name) is None)


def _named(diagnosis: Diagnosis) -> tuple[str, ...]:
    """Return every name of a service in the diagnosis."""
    named = [cause.service for cause in diagnosis.root_causes]
    named += [anomaly.service for anomaly in diagnosis.anomalies]
    named += [service for path in diagnosis.critical_paths for service in path.services]
    return tuple(dict.fromkeys(named))


def _expected_services(expectation: Expectation) -> tuple[str, ...]:
    return (
        *(cause.service for cause in expectation.root_causes),
        *(anomaly.service for anomaly in expectation.anomalies),
        *(service for path in expectation.paths for service in path),
        *expectation.red_herrings,
    )


def _first_hypothesis(diagnosis: Diagnosis, view: _View) -> bool | None:
    first = next((item.service for item in diagnosis.hypotheses if item.service is not None), None)
    if first is None or not view.causes:
        return None
    return view.names.canonical(first) in view.culprits()


def describe_expected(anomaly: ExpectedAnomaly) -> str:
    """Return an expected anomaly as text: ``payment Charge error_rate up``."""
    parts = (anomaly.service, anomaly.operation, anomaly.signal, anomaly.direction)
    return " ".join(str(part) for part in parts if part is not None)


def describe_anomaly(anomaly: Anomaly) -> str:
    """Return a found anomaly in the same form."""
    parts = (anomaly.service, anomaly.operation, anomaly.signal, anomaly.direction)
    return " ".join(str(part) for part in parts if part is not None)
