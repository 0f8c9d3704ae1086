"""The built-in analyzer: statistics over traces, logs and metrics, without knowledge of a system."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence

import numpy as np

from pytest_otel_diag.analyzers.builtin import report
from pytest_otel_diag.analyzers.builtin.detection import Scored, decide, service_scores
from pytest_otel_diag.analyzers.builtin.diagnostic_query import metric_query, query_for, spans_query
from pytest_otel_diag.analyzers.builtin.evidence.deviations import Kind, hits
from pytest_otel_diag.analyzers.builtin.evidence.failures import FailureTest, errors, failure_tests
from pytest_otel_diag.analyzers.builtin.evidence.logs_and_metrics import lines, loose_lines, resources
from pytest_otel_diag.analyzers.builtin.evidence.observations import Observations
from pytest_otel_diag.analyzers.builtin.evidence.symptoms import symptom_kinds
from pytest_otel_diag.analyzers.builtin.evidence.traces import spans_of, trace_kinds
from pytest_otel_diag.analyzers.builtin.gather import Gatherer
from pytest_otel_diag.analyzers.builtin.paths import IncidentPath, critical_paths, read_paths
from pytest_otel_diag.analyzers.builtin.ranking import Candidate, rank, reachable
from pytest_otel_diag.analyzers.builtin.report import IncidentFindings
from pytest_otel_diag.analyzers.builtin.slots import merged, plan
from pytest_otel_diag.model.diagnosis import Diagnosis, DiagnosticQuery
from pytest_otel_diag.ports import Investigation


class BuiltinAnalyzer:
    """Implements the Analyzer port.

    1. Split baseline and reference into slots (:mod:`.slots`) and query the features of every key in every
       slot (:mod:`.gather`).
    2. Score how far each key is from quiet (:mod:`.scores`), hold the deviations against services
       (:mod:`.evidence`), add up independent evidence and explain symptoms away (:mod:`.ranking`).
    3. Test failed calls exactly (:mod:`.evidence.failures`), score quiet slots like the incident, and weigh
       the odds of a fault (:mod:`.detection`), which limit the confidence in any root cause.
    """

    async def diagnose(self, investigation: Investigation) -> Diagnosis:
        """Return the diagnosis; raises TelemetryError when the store fails."""
        incident = investigation.incident
        slots = plan(incident, investigation.baseline, investigation.reference)
        gatherer = Gatherer(investigation.telemetry, await investigation.telemetry.schema(), slots)
        seen = await gatherer.gather()
        case = await asyncio.to_thread(examine, seen, investigation.seed)
        first = case.ranking[0] if case.ranking else None
        trace_ids, paths = await asyncio.gather(_exemplars(gatherer, seen, first), _paths(gatherer, seen))
        causes = report.root_causes(case, trace_ids)
        suspects = [cause.service for cause in causes]
        return Diagnosis(
            detected=case.alarm.detected,
            anomalies=report.anomalies(case),
            critical_paths=critical_paths(paths, suspects, detected=case.alarm.detected),
            root_causes=causes,
            query=_query(case, seen) if causes else None,
            hypotheses=report.hypotheses(case, causes),
            confidence=causes[0].confidence if causes else 0.0,
            summary=" ".join([report.summary(case, causes), *gatherer.notes]),
        )


def examine(seen: Observations, seed: int = 0) -> IncidentFindings:
    """Rank the services of the incident and decide whether a fault is present."""
    quiet, parts = quiet_columns(seen), part_columns(seen)
    below, services, clients = reachable(seen.callees()), seen.services, seen.clients()
    failures = failure_tests(seen, quiet, parts)
    kinds = evidence_kinds(seen, quiet, failures)
    alike = evidence_kinds(seen, [0, *quiet])

    def scores(against: list[Kind], column: int) -> dict[str, float]:
        ranked = rank(hits(against, column), below, services, clients=clients)
        return {one.service: one.score for one in ranked}

    def top(against: list[Kind], column: int) -> float:
        return max(scores(against, column).values(), default=0.0)

    found = list(hits(kinds, 0))
    ranking = rank(found, below, services, clients=clients)
    scored = Scored(
        whole=max((one.score for one in ranking), default=0.0),
        parts=service_scores([scores(kinds, column) for column in parts], services),
        quiet=service_scores([scores(kinds, column) for column in quiet], services),
        whole_alike=top(alike, 0),
        quiet_alike=np.array([top(alike, column) for column in quiet]),
    )
    symptoms = symptom_kinds(seen, quiet)
    every = [*kinds, *symptoms]
    alarm, deviating = decide(scored, failures, seed), list(hits(symptoms, 0))
    return IncidentFindings(alarm, ranking, found, deviating, every, quiet, bool(below), seen.outgrown)


def evidence_kinds(
    seen: Observations, reference: list[int], failures: Sequence[FailureTest] = ()
) -> list[Kind]:
    """Return all kinds of evidence, scored against the *reference* columns.

    *failures* are the results of the exact test, which count for the incident.
    """
    return [
        errors(seen, reference, failures),
        *trace_kinds(seen, reference),
        lines(seen, reference),
        loose_lines(seen, reference),
        resources(seen, reference),
    ]


def quiet_columns(seen: Observations) -> list[int]:
    """Return the quiet slots with data of the richest signal."""
    return _recorded(seen, range(1, seen.slots.first_part))


def part_columns(seen: Observations) -> list[int]:
    """Return the parts of the incident with data of the richest signal."""
    return _recorded(seen, range(seen.slots.first_part, seen.columns))


def _recorded(seen: Observations, columns: range) -> list[int]:
    spans = spans_of(seen)
    if spans:
        there = np.sum(list(spans.values()), axis=0) > 0
    elif seen.metrics:
        there = np.isfinite(seen.metrics.levels).any(axis=0)
    elif seen.log_rates:
        there = np.sum(list(seen.log_rates.values()), axis=0) > 0
    else:
        return []
    return [column for column in columns if there[column]]


def _query(case: IncidentFindings, seen: Observations) -> DiagnosticQuery:
    service = case.ranking[0].service
    findings = case.findings_of(service)
    incident = seen.slots.incident
    quiet = merged([seen.slots.quiet[column - 1] for column in case.quiet])
    if findings:
        return query_for(findings[0][1], seen.metrics.keys, incident, quiet)
    series = next((key for key in seen.metrics.keys if key.owner == service), None)
    if series is not None and not seen.operations:
        return metric_query(series, incident, quiet)
    return spans_query(service, incident, quiet)


async def _exemplars(gatherer: Gatherer, seen: Observations, first: Candidate | None) -> tuple[str, ...]:
    if first is None or "traces" not in seen.signals:
        return ()
    return await gatherer.exemplars(first.service)


async def _paths(gatherer: Gatherer, seen: Observations) -> list[IncidentPath]:
    spans = spans_of(seen)
    incident = float(sum(counts[0] for counts in spans.values()))
    return await read_paths(gatherer, incident) if incident else []
