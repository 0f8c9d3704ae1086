"""Builds a diagnosis from the findings."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from pytest_otel_diag.analyzers.builtin.detection import Alarm
from pytest_otel_diag.analyzers.builtin.evidence.deviations import Finding, Hit, Kind
from pytest_otel_diag.analyzers.builtin.evidence.observations import Outgrown
from pytest_otel_diag.analyzers.builtin.mechanism import mechanism_of
from pytest_otel_diag.analyzers.builtin.ranking import Candidate, shares
from pytest_otel_diag.analyzers.builtin.robust_statistics import benjamini_hochberg, student_tail
from pytest_otel_diag.model.diagnosis import Anomaly, Evidence, Figure, Hypothesis, RootCause

ANOMALIES_SHOWN, CAUSES_SHOWN, EVIDENCE_SHOWN, HYPOTHESES_SHOWN = 60, 10, 5, 6
FALSE_DISCOVERY_RATE = 0.05
SIGMAS_PER_SPREAD = 1.96


@dataclass(frozen=True)
class IncidentFindings:
    """Findings about one incident."""

    alarm: Alarm
    ranking: Sequence[Candidate]
    hits: Sequence[Hit]
    symptoms: Sequence[Hit]
    kinds: Sequence[Kind]
    quiet: Sequence[int]
    graph: bool
    outgrown: Mapping[str, Outgrown] = field(default_factory=dict)

    def findings_of(self, service: str) -> list[tuple[float, Finding]]:
        """Return the hits that ranked a service, strongest first."""
        mine = [hit for hit in self.hits if hit.service == service and hit.strength > 0.0]
        mine.sort(key=lambda hit: -hit.strength)
        return [(hit.strength, hit.finding()) for hit in mine[:40]]


def anomalies(case: IncidentFindings) -> tuple[Anomaly, ...]:
    """Return significant deviations, none without an alarm.

    The p-value of a deviation of z spreads is P(|T| > 1.96·z) of Student's t with (quiet slots - 1) degrees
    of freedom, adjusted over all rows that could have deviated (Benjamini & Hochberg 1995) at 5 %.
    """
    if not case.alarm.detected:
        return ()
    tests = sum(int(kind.scores.tested.sum()) for kind in case.kinds)
    chosen = [hit for hit in (*case.hits, *case.symptoms) if hit.strength > 0.0]
    raw = [student_tail(SIGMAS_PER_SPREAD * abs(hit.z), hit.kind.scores.freedom) for hit in chosen]
    adjusted = benjamini_hochberg(raw, tests)
    found: dict[tuple[str, str, str | None], Anomaly] = {}
    for hit, p_value in sorted(zip(chosen, adjusted, strict=True), key=lambda pair: -abs(pair[0].z)):
        if p_value <= FALSE_DISCOVERY_RATE and len(found) < ANOMALIES_SHOWN:
            anomaly = _anomaly(hit, p_value)
            found.setdefault((anomaly.service, anomaly.signal, anomaly.operation), anomaly)
    return tuple(found.values())


def _anomaly(hit: Hit, p_value: float) -> Anomaly:
    found = hit.finding()
    return Anomaly(
        signal=found.signal,
        service=found.service,
        operation=found.operation,
        direction=found.direction,
        baseline=found.baseline,
        observed=found.observed,
        unit=found.unit,
        score=round(abs(hit.z), 3),
        p_value=p_value,
        evidence=(_evidence(found),),
    )


def root_causes(case: IncidentFindings, trace_ids: Sequence[str]) -> tuple[RootCause, ...]:
    """Return the ranked candidates; *trace_ids* are example traces of the first."""
    scores = [candidate.score for candidate in case.ranking]
    confidence = shares(scores, case.alarm.probability, graph=case.graph)
    causes: list[RootCause] = []
    for candidate, share in list(zip(case.ranking, confidence, strict=True))[:CAUSES_SHOWN]:
        findings = case.findings_of(candidate.service)
        if findings or not causes:
            grown = case.outgrown.get(candidate.service)
            causes.append(_cause(candidate, findings, share, trace_ids if not causes else (), grown))
    return tuple(causes)


def _cause(
    candidate: Candidate,
    findings: list[tuple[float, Finding]],
    share: float,
    trace_ids: Sequence[str],
    grown: Outgrown | None,
) -> RootCause:
    listed = [finding for _, finding in findings]
    shown = list({finding.text: finding for finding in listed}.values())[:EVIDENCE_SHOWN]
    evidence = tuple(_evidence(found, trace_ids if found.source == "traces" else ()) for found in shown)
    if grown is not None:
        evidence += (Evidence(source="metrics", summary=str(grown)),)
    return RootCause(
        service=candidate.service,
        operation=next((finding.operation for finding in listed if finding.operation), None),
        mechanism=mechanism_of(candidate, findings, outgrown=grown is not None),
        score=round(candidate.score, 4),
        confidence=share,
        explanation="; ".join(finding.text for finding in shown[:3]) or "nothing about it deviates",
        evidence=evidence,
    )


def _evidence(found: Finding, trace_ids: Sequence[str] = ()) -> Evidence:
    """Return the finding as evidence, with its figure where it is one that telemetry has a name for."""
    figures: tuple[Figure, ...] = ()
    if found.measure is not None and found.observed is not None:
        figures = (
            Figure(
                measure=found.measure,
                service=found.service,
                operation=found.operation,
                value=float(f"{found.observed:.4g}"),
            ),
        )
    operations = (found.operation,) if found.operation else ()
    return Evidence(
        source=found.source,
        summary=found.text,
        trace_ids=tuple(trace_ids),
        operations=operations,
        figures=figures,
    )


def hypotheses(case: IncidentFindings, causes: Sequence[RootCause]) -> tuple[Hypothesis, ...]:
    """Return the considered candidates with their outcomes."""
    by_name = {candidate.service: candidate for candidate in case.ranking}
    hypotheses = []
    for index, cause in enumerate(causes[:HYPOTHESES_SHOWN]):
        candidate = by_name[cause.service]
        kept = index == 0 and case.alarm.detected
        what = f"{cause.service} fails ({cause.mechanism.value if cause.mechanism else 'mechanism unknown'})"
        hypotheses.append(
            Hypothesis(
                statement=what,
                service=cause.service,
                mechanism=cause.mechanism,
                status="kept" if kept else "eliminated",
                reason=_reason(candidate, causes[0], first=index == 0, alarm=case.alarm),
            )
        )
    return tuple(hypotheses)


def _reason(candidate: Candidate, best: RootCause, *, first: bool, alarm: Alarm) -> str:
    if not alarm.detected:
        return f"not significant: {alarm.reason}"
    if first:
        return f"strongest evidence, {candidate.score:.2f}: {best.explanation}"
    if candidate.explained_by is not None:
        return (
            f"{candidate.explained:.2f} of its {candidate.total:.2f} are symptoms that "
            f"{candidate.explained_by}, "
            f"which it calls, explains; {best.service} has {best.score:.2f}"
        )
    return f"weaker evidence, {candidate.score:.2f} against {best.score:.2f} of {best.service}"


def summary(case: IncidentFindings, causes: Sequence[RootCause]) -> str:
    """Return the diagnosis in two sentences: what is wrong, and why it is an alarm or is none."""
    if not causes:
        return "No telemetry names a service in the incident's window."
    first = causes[0]
    if not case.alarm.detected:
        guess = "No service deviates from quiet time"
        if first.score > 0.0:
            guess = f"The best guess would be {first.service} ({first.confidence:.2f}): {first.explanation}"
        return f"Nothing is significantly wrong: {case.alarm.reason}. {guess}."
    what = first.mechanism.value if first.mechanism else "unknown mechanism"
    where = f" in {first.operation!r}" if first.operation else ""
    return (
        f"{first.service}{where} is the likely root cause ({what}): {first.explanation}. "
        f"This is an alarm because {case.alarm.reason}."
    )
