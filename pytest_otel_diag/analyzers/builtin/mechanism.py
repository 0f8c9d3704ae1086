"""From the evidence against a service to the mechanism of its failure."""

from __future__ import annotations

from pytest_otel_diag.analyzers.builtin.evidence.deviations import Finding, Group
from pytest_otel_diag.analyzers.builtin.ranking import Candidate
from pytest_otel_diag.model.diagnosis import Mechanism

RESOURCES = frozenset({Mechanism.CPU, Mechanism.MEMORY, Mechanism.GC, Mechanism.QUEUE})


def mechanism_of(
    candidate: Candidate, findings: list[tuple[float, Finding]], *, outgrown: bool = False
) -> Mechanism | None:
    """Return the most specific mechanism that the evidence supports.

    *findings* are all deviations held against the service with their strengths. In this order:

    1. A resource that runs out (cpu, memory, gc, queue; rising only) explains slowness, however much
       stronger the slowness is measured; it explains errors and odd flows when at least half as strong.
       A process that began anew after its memory had *outgrown* quiet time comes before the others: calls
       that break off, lost time and the cpu of another start follow from it.
    2. Errors that begin here (error, or unreachable for calls that nobody answered): the flow breaks off
       where a call fails, and it may take its time to give up; neither explains the error.
    3. What leads otherwise: waiting between call and answer (network), more self time (latency), missing
       calls and odd log lines (error), more requests than ever (traffic).
    """
    leading = candidate.leading
    if leading is None:
        return None
    slow = leading.group in {Group.SELF, Group.EDGE}
    memory = leading.strength if outgrown else 0.0
    resource = _resource(findings, 0.0 if slow else 0.5 * leading.strength, memory)
    failing = candidate.best.get(Group.ERROR)
    return resource or (failing or leading).finding().mechanism


def _resource(findings: list[tuple[float, Finding]], least: float, memory: float) -> Mechanism | None:
    """Return the resource that rises most; a cause before what it brings about, where both are strong.

    Collecting garbage burns cpu and works on a memory that is full, so it is named before these where its
    evidence is at least half as strong; the others by their strength.
    """
    rising: dict[Mechanism, float] = {Mechanism.MEMORY: memory} if memory else {}
    for strength, finding in findings:
        if finding.mechanism in RESOURCES and finding.direction == "up" and strength >= least:
            rising[finding.mechanism] = max(strength, rising.get(finding.mechanism, 0.0))
    first = max(rising, key=lambda one: rising[one], default=None)
    if first is not None and rising.get(Mechanism.GC, -1.0) >= 0.5 * rising[first]:
        return Mechanism.GC
    return first
