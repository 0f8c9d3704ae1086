"""Derives the mechanism of a failure from the evidence against a service."""

from __future__ import annotations

from pytest_otel_diag.analyzers.builtin.evidence.deviations import Finding, Group
from pytest_otel_diag.analyzers.builtin.ranking import Candidate
from pytest_otel_diag.model.diagnosis import Mechanism

RESOURCES = frozenset({Mechanism.CPU, Mechanism.MEMORY, Mechanism.GC, Mechanism.QUEUE})


def mechanism_of(
    candidate: Candidate, findings: list[tuple[float, Finding]], *, outgrown: bool = False
) -> Mechanism | None:
    """Return the most specific mechanism that the evidence supports.

    *findings* are all deviations that blame the service, with their strengths. The order is:

    1. An exhausted resource (cpu, memory, gc, queue; only increases) explains slowness of any strength, and
       errors and unusual flows if it is at least half as strong. A process that restarted after its memory
       had *outgrown* quiet time takes precedence: failed calls, lost time and CPU of the start follow from
       it.
    2. Errors that originate here (error, or unreachable for calls without a response): a failed call ends the
       flow, possibly after a timeout, so neither of these explains the error.
    3. Otherwise the strongest: time between call and response (network), more self time (latency), missing
       calls and unusual log lines (error), more requests than ever (traffic).
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
    """Return the resource with the largest increase; a cause precedes its effects if both are strong.

    Garbage collection uses CPU and runs because memory is full, so it precedes these if its evidence is at
    least half as strong; other resources are ordered by strength.
    """
    rising: dict[Mechanism, float] = {Mechanism.MEMORY: memory} if memory else {}
    for strength, finding in findings:
        if finding.mechanism in RESOURCES and finding.direction == "up" and strength >= least:
            rising[finding.mechanism] = max(strength, rising.get(finding.mechanism, 0.0))
    first = max(rising, key=lambda one: rising[one], default=None)
    if first is not None and rising.get(Mechanism.GC, -1.0) >= 0.5 * rising[first]:
        return Mechanism.GC
    return first
