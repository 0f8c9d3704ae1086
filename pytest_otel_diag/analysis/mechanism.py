"""From the evidence against a service to the mechanism of its failure."""

from __future__ import annotations

from pytest_otel_diag.analysis.evidence import Finding, Group
from pytest_otel_diag.analysis.ranking import Candidate
from pytest_otel_diag.model.diagnosis import Mechanism, Signal

RESOURCES = frozenset({Mechanism.CPU, Mechanism.MEMORY, Mechanism.GC, Mechanism.QUEUE})


def mechanism_of(candidate: Candidate, findings: list[tuple[float, Finding]]) -> Mechanism | None:
    """Return the most specific mechanism that the evidence supports.

    *findings* are all deviations held against the service with their strengths. In this order:

    1. A resource that runs out explains both errors and slowness, so one whose evidence is at least
       half as strong as the strongest wins: cpu, memory, gc, queue (rising ones only).
    2. Errors that begin here: error, or unreachable.
    3. Waiting between call and answer without work of its own: network. With more self time of its
       own the service itself is slow: latency.
    4. Missing calls and odd log lines: error. More requests than ever: traffic.
    """
    if not findings:
        return None
    strongest = max(strength for strength, _ in findings)
    resource = _resource(findings, 0.5 * strongest)
    if resource is not None:
        return resource
    best = {group: hit.strength for group, hit in candidate.best.items()}
    error = candidate.best.get(Group.ERROR)
    if error is not None and error.strength >= 0.5 * strongest:
        return error.finding().mechanism
    for group, mechanism in _ordered(best):
        if mechanism is not None:
            return mechanism
    leading = candidate.leading
    return leading.finding().mechanism if leading else None


def _resource(findings: list[tuple[float, Finding]], least: float) -> Mechanism | None:
    rising = [
        (strength, finding.mechanism)
        for strength, finding in findings
        if finding.mechanism in RESOURCES and finding.direction == "up" and strength >= least
    ]
    return max(rising, key=lambda item: item[0])[1] if rising else None


def _ordered(best: dict[Group, float]) -> list[tuple[Group, Mechanism | None]]:
    names: dict[Group, Mechanism | None] = {
        Group.ERROR: Mechanism.ERROR,
        Group.EDGE: Mechanism.NETWORK,
        Group.SELF: Mechanism.LATENCY,
        Group.QUEUE: Mechanism.QUEUE,
        Group.FLOW: Mechanism.ERROR,
        Group.TRAFFIC: Mechanism.TRAFFIC,
        Group.METRIC: None,
    }
    return [(group, names[group]) for group in sorted(best, key=lambda group: (-best[group], group))]


def configuration_like(findings: list[Finding]) -> bool:
    """Whether a restart came with the deviations: a new process often brings a new configuration."""
    return any(finding.signal is Signal.RESTART for finding in findings)
