"""Ranks services by their hits.

score(s) = Σ over groups of the best hit of the group
           - 0.7 · min(symptoms(s), max over the services that s calls, directly or not, of their sum)

Hits are log-compressed, so the sum behaves like log-odds of independent observations: agreement of several
groups outweighs one extreme signal. The subtraction is *explaining away* (Pearl 1988): missing calls and
unusual log lines of a service are expected when a dependency deviates as much.
"""

from __future__ import annotations

import math
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field

from pytest_otel_diag.analyzers.builtin.evidence.deviations import SYMPTOMS, Group, Hit

EXPLAINED = 0.7
"""Share of a symptom that a callee explains; the rest stays, since the callee may be innocent."""


@dataclass
class Candidate:
    """A service with the evidence against it."""

    service: str
    best: dict[Group, Hit] = field(default_factory=dict)
    total: float = 0.0
    explained: float = 0.0
    explained_by: str | None = None

    @property
    def score(self) -> float:
        """Sum of the groups minus the symptoms that callees explain."""
        return self.total - self.explained

    @property
    def symptoms(self) -> float:
        """Part of the sum that may be a reaction to callees."""
        return sum(hit.strength for group, hit in self.best.items() if group in SYMPTOMS)

    @property
    def leading(self) -> Hit | None:
        """The strongest hit."""
        return max(self.best.values(), key=lambda hit: hit.strength, default=None)


def reachable(callees: Mapping[str, set[str]]) -> dict[str, set[str]]:
    """Return the transitive callees of each service, without itself."""
    found: dict[str, set[str]] = {}
    for start in callees:
        seen: set[str] = set()
        stack = list(callees[start])
        while stack:
            service = stack.pop()
            if service not in seen and service != start:
                seen.add(service)
                stack.extend(callees.get(service, ()))
        found[start] = seen
    return found


def rank(
    hits: Iterable[Hit],
    below: Mapping[str, set[str]],
    services: Sequence[str],
    *,
    without: Sequence[Group] = (),
    clients: Collection[str] = (),
) -> list[Candidate]:
    """Return all services, the most suspicious first; equal scores in the order of *services*.

    *clients* have no callers. Their time is the waiting time of users, which any deviating callee explains
    completely.
    """
    candidates = {service: Candidate(service) for service in services}
    for hit in hits:
        if hit.group in without or hit.strength <= 0.0:
            continue
        candidate = candidates.setdefault(hit.service, Candidate(hit.service))
        best = candidate.best.get(hit.group)
        if best is None or hit.strength > best.strength:
            candidate.best[hit.group] = hit
    for candidate in candidates.values():
        candidate.total = sum(hit.strength for hit in candidate.best.values())
    for candidate in candidates.values():
        callees = [candidates[name] for name in below.get(candidate.service, ()) if name in candidates]
        deepest = max(callees, key=lambda callee: (callee.total, callee.service), default=None)
        if deepest is not None and deepest.total > 0.0:
            candidate.explained = EXPLAINED * min(candidate.symptoms, deepest.total)
            waiting = candidate.best.get(Group.SELF) if candidate.service in clients else None
            if waiting is not None:
                candidate.explained += waiting.strength
            candidate.explained_by = deepest.service if candidate.explained > 0.0 else None
    return sorted(candidates.values(), key=lambda one: -one.score)


def shares(scores: Sequence[float], fault: float = 1.0, *, graph: bool = True) -> list[float]:
    """Return the probability of each candidate: w(s) / (1 + Σ w), w = exp(score) - 1.

    Scores add like log-odds; a service without evidence has weight 0, and the 1 is the weight of a root cause
    without evidence. The sum is at most *fault*, the probability that there is a fault at all. Without a call
    graph a root cause cannot be distinguished from the services that it affects, so all services with
    evidence have the same weight.
    """
    positive = [max(0.0, score) for score in scores]
    weights = [math.expm1(min(score, 700.0)) if graph else float(score > 0.0) for score in positive]
    evidence = sum(weights)
    total = max(1.0 + evidence, evidence / fault if fault > 0.0 else math.inf)
    return [weight / total for weight in weights]
