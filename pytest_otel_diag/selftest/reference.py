"""The right answer to a scenario, built from its expectation, and similar wrong answers."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import pairwise

from pytest_otel_diag.model.diagnosis import (
    Anomaly,
    CriticalPath,
    Diagnosis,
    DiagnosticQuery,
    Evidence,
    Mechanism,
    PathEdge,
    PathMetrics,
    RootCause,
    Signal,
)
from pytest_otel_diag.model.scenario import Expectation, ExpectedRootCause
from pytest_otel_diag.model.verdict import Verdict
from pytest_otel_diag.model.windows import Window
from pytest_otel_diag.statements import load

Mutant = tuple[str, Diagnosis]
"""A description of the mistake, and the wrong answer."""

_EVIDENCE = (Evidence(source="traces", summary="as the scenario expects"),)


def reference(expectation: Expectation, chains: Sequence[Sequence[str]], incident: Window) -> Diagnosis:
    """Return exactly the expected answer; *chains* are the complete real paths."""
    if expectation.healthy:
        return Diagnosis(detected=False, confidence=0.9, summary="nothing is wrong")
    causes = tuple(_cause(expected) for expected in _one_for_each_fault(expectation.root_causes))
    return Diagnosis(
        detected=True,
        anomalies=tuple(
            Anomaly(
                signal=expected.signal or Signal.ERROR_RATE,
                service=expected.service,
                operation=expected.operation,
                direction=expected.direction or "changed",
            )
            for expected in expectation.anomalies
        ),
        critical_paths=tuple(_path(number, chain) for number, chain in enumerate(chains)),
        root_causes=causes,
        query=_query(causes, incident),
        confidence=0.9,
        summary="the reference answer of the self-test",
    )


def mutants(expectation: Expectation, right: Diagnosis, services: Sequence[str]) -> Iterator[Mutant]:
    """Yield wrong answers, all of which a judge must reject.

    *services* are all services in telemetry.
    """
    yield "nothing is wrong", Diagnosis(detected=False, confidence=right.confidence)
    culprits = [cause.service for cause in expectation.root_causes]
    innocent = [service for service in services if service not in culprits]
    blamed = next((name for name in expectation.red_herrings if name not in culprits), None)
    blamed = blamed or (innocent[0] if innocent else None)
    if blamed is not None:
        yield "wrong service", _naming(right, [blamed])
    everything = [*innocent, *culprits]
    if len(everything) > 1:
        yield "every service", _naming(right, everything)
    for flag in expectation.flags[:1]:
        yield "the flag's name only", _naming(right, [flag])
    yield from _wrong_details(expectation, right)
    if right.query is not None:
        constant = DiagnosticQuery(sql=f"SELECT '{right.root_causes[0].service}' AS culprit")
        yield "a query without telemetry", right.model_copy(update={"query": constant})


def _wrong_details(expectation: Expectation, right: Diagnosis) -> Iterator[Mutant]:
    if all(cause.mechanisms for cause in expectation.root_causes):
        accepted = {mechanism for cause in expectation.root_causes for mechanism in cause.mechanisms}
        wrong = next(mechanism for mechanism in Mechanism if mechanism not in accepted)
        causes = tuple(cause.model_copy(update={"mechanism": wrong}) for cause in right.root_causes)
        yield "wrong mechanism", right.model_copy(update={"root_causes": causes})
    if len(right.root_causes) > 1:
        yield "half of the causes", right.model_copy(update={"root_causes": right.root_causes[:1]})
    reversed_paths = tuple(
        _path(number, path.services[::-1])
        for number, path in enumerate(right.critical_paths)
        if len(path.services) > 1
    )
    if reversed_paths:
        yield "path reversed", right.model_copy(update={"critical_paths": reversed_paths})


def faults_of(verdict: Verdict) -> list[str]:
    """Return all differences of an answer from the expectation; empty when it is right."""
    if not verdict.fault_present:
        return ["a fault was reported where there is none"] if verdict.detected else []
    query = verdict.query
    wrong = [
        ("not detected", not verdict.detected),
        ("the culprit is not named first", verdict.causes_expected > 0 and not verdict.top1),
        ("not every culprit is named", verdict.causes_named < verdict.causes_expected),
        ("a red herring is named first", verdict.named_red_herring is not None),
        ("no right operation", verdict.expected_operation and verdict.operation_rank is None),
        ("no right mechanism", verdict.expected_mechanism and verdict.mechanism_rank is None),
        ("the flag is named", verdict.named_flag),
        ("names an unknown service", bool(verdict.unknown_services)),
        ("expected anomalies are missing", any(match.found is None for match in verdict.anomalies)),
        ("expected paths are missing", any(match.found is None for match in verdict.paths)),
        ("no query shows the culprit", query is None or not (query.executed and query.shows_culprit)),
    ]
    return [reason for reason, holds in wrong if holds]


def _one_for_each_fault(causes: Sequence[ExpectedRootCause]) -> list[ExpectedRootCause]:
    """Return one root cause per fault: alternatives of a fault need one answer."""
    first: dict[str | None, ExpectedRootCause] = {}
    for cause in causes:
        first.setdefault(cause.fault, cause)
    return list(first.values())


def _cause(expected: ExpectedRootCause) -> RootCause:
    return RootCause(
        service=expected.service,
        operation=expected.operation,
        mechanism=expected.mechanisms[0] if expected.mechanisms else None,
        score=1.0,
        confidence=0.9,
        explanation="as the scenario expects",
        evidence=_EVIDENCE,
    )


def _naming(right: Diagnosis, services: Sequence[str]) -> Diagnosis:
    causes = tuple(RootCause(service=service, confidence=0.9) for service in services)
    return right.model_copy(update={"root_causes": causes})


def _path(number: int, services: Sequence[str]) -> CriticalPath:
    return CriticalPath(
        id=f"path-{number}",
        name=" → ".join(services),
        services=tuple(services),
        startService=services[0],
        endService=services[-1],
        edges=tuple(PathEdge(source=source, target=target) for source, target in pairwise(services)),
        metrics=PathMetrics(requestCount=1, avgLatency=0.0, errorRate=0.0, p99Latency=0.0),
        priority="critical",
        severity=1.0,
    )


def _query(causes: Sequence[RootCause], incident: Window) -> DiagnosticQuery | None:
    if not causes:
        return None
    names = ", ".join(_quoted(cause.service) for cause in causes)
    sql = (
        load(__package__, "answer")
        .sql.replace("<services>", names)
        .replace("<start>", str(incident.start_ns))
        .replace("<end>", str(incident.end_ns))
    )
    return DiagnosticQuery(sql=sql, description="what the named services did in the incident")


def _quoted(text: str) -> str:
    escaped = text.replace("\\", "\\\\").replace("'", "\\'")
    return f"'{escaped}'"
