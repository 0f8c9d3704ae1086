"""From the evidence against a service to the mechanism of its failure."""

from __future__ import annotations

from pytest_otel_diag.analysis.evidence import Finding, Group
from pytest_otel_diag.analysis.ranking import Candidate
from pytest_otel_diag.model.diagnosis import Mechanism

RESOURCES = frozenset({Mechanism.CPU, Mechanism.MEMORY, Mechanism.GC, Mechanism.QUEUE})


def mechanism_of(candidate: Candidate, findings: list[tuple[float, Finding]]) -> Mechanism | None:
    """Return the most specific mechanism that the evidence supports.

    *findings* are all deviations held against the service with their strengths. In this order:

    1. A resource that runs out (cpu, memory, gc, queue; rising only) explains slowness, however much
       stronger the slowness is measured; it explains errors and odd flows when at least half as strong.
    2. What leads otherwise: errors that begin here (error, or unreachable), waiting between call and
       answer (network), more self time (latency), missing calls and odd log lines (error), more
       requests than ever (traffic).
    """
    leading = candidate.leading
    if leading is None:
        return None
    slow = leading.group in {Group.SELF, Group.EDGE}
    resource = _resource(findings, 0.0 if slow else 0.5 * leading.strength)
    return resource or leading.finding().mechanism


def _resource(findings: list[tuple[float, Finding]], least: float) -> Mechanism | None:
    rising = [
        (strength, finding.mechanism)
        for strength, finding in findings
        if finding.mechanism in RESOURCES and finding.direction == "up" and strength >= least
    ]
    return max(rising, key=lambda item: item[0])[1] if rising else None
