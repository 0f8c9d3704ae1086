"""Aggregates the sessions of a run into a serialisable scorecard."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from itertools import combinations
from typing import Literal

from pydantic import Field

from pytest_otel_diag.model.base import Finite, Model, Ratio
from pytest_otel_diag.model.outcome import Outcome, outcome_of
from pytest_otel_diag.model.session import Blame, SessionResult, Status
from pytest_otel_diag.model.verdict import Verdict
from pytest_otel_diag.scoring.calibration import Calibration, calibrate
from pytest_otel_diag.scoring.gate import GateResult, GateSettings, run_gate
from pytest_otel_diag.scoring.measures import (
    MEASURES,
    Metric,
    Unit,
    by_analyzer,
    counting,
    scored,
    take,
    time_to_root_cause_s,
    unit_of,
)
from pytest_otel_diag.scoring.names import ServiceNames
from pytest_otel_diag.scoring.reasons import reason_of
from pytest_otel_diag.stats.intervals import Summary, summarise

GROUP_METRICS = ("detection_sensitivity", "false_positive_rate", "top1", "top3", "avg5", "mechanism_top1")
"""Metrics that groups show."""


class Unscored(Model):
    """Unscored sessions with the same status and reason."""

    status: Status
    blame: Blame | None
    reason: str
    count: int
    scenarios: tuple[str, ...]


class Ungated(Model):
    """An ungated scenario: the reason, and the results of its sessions."""

    scenario_id: str
    reason: str
    sessions: int
    scored: int
    detected: int
    top1: int


class Miss(Model):
    """A scored session with a wrong result, or whose test failed; ``reason`` says why in one line."""

    session_id: str
    scenario_id: str
    test_id: str = ""
    kind: Outcome
    reason: str = ""
    expected: tuple[str, ...]
    named: tuple[str, ...]
    rank: int | None = None
    tags: tuple[tuple[str, str], ...] = ()


class Refuted(Model):
    """A claim of a scored session that telemetry refutes: what the diagnosis cites, and what is true."""

    session_id: str
    scenario_id: str
    test_id: str = ""
    kind: Outcome
    cited: str
    found: str


class TagGroup(Model):
    """Metrics over the sessions with the same tag value."""

    tag: str
    value: str
    sessions: int
    scenarios: int
    metrics: tuple[Metric, ...]
    seconds: Summary | None = None

    def metric(self, name: str) -> Metric:
        """Return a metric; raises KeyError with the known names."""
        return _metric(self.metrics, name)


class Flips(Model):
    """Disagreement between repeats of a scenario.

    ``scenarios`` is the number with at least two scored repeats, ``unstable`` the share of these whose top-1
    or detection varies, ``disagreement`` the probability that two repeats differ.
    """

    scenarios: int
    unstable: Ratio
    disagreement: Ratio
    unstable_scenarios: tuple[str, ...] = ()


class Scorecard(Model):
    """Results of a run for an analyzer, with the counts of all statuses.

    Ungated sessions count only in the counts of statuses, in ``ungated``, in ``led_astray``, and in what
    analyzers used (``prompts``, ``steps``, ``tokens`` and ``cost_usd`` by their own account, and
    ``human_prompts``). ``cost_per_solved_usd`` is the cost of all sessions for each fault solved.

    Metrics are never computed across analyzers: with several of them, ``by_analyzer`` has a full scorecard
    for each, and this one has the counts, a group per analyzer, and the worst gate outcome.
    """

    schema_version: Literal[1] = 1
    targets: tuple[str, ...] = ()
    analyzers: tuple[str, ...] = ()
    sessions: int = 0
    scored: int = 0
    scenarios: int = 0
    controls: int = 0
    confidence: Finite = 0.95
    statuses: Mapping[str, int] = Field(default_factory=dict)
    unscored: tuple[Unscored, ...] = ()
    ungated: tuple[Ungated, ...] = ()
    metrics: tuple[Metric, ...] = ()
    groups: tuple[TagGroup, ...] = ()
    misses: tuple[Miss, ...] = ()
    refuted: tuple[Refuted, ...] = ()
    seconds: Summary | None = None
    seconds_to_impact: Summary | None = None
    seconds_to_root_cause: Summary | None = None
    spurious_anomalies: Summary | None = None
    tokens: int = 0
    cost_usd: Finite = 0.0
    prompts: int = 0
    steps: int = 0
    cost_per_solved_usd: Finite | None = None
    human_prompts: int = 0
    chance_top1: Ratio | None = None
    calibration: Calibration | None = None
    flips: Flips | None = None
    repeats_independent: bool = False
    gate: GateResult | None = None
    by_analyzer: tuple[Scorecard, ...] = ()

    def metric(self, name: str) -> Metric:
        """Return a metric; raises KeyError with the known names."""
        return _metric(self.metrics, name)


def _metric(metrics: Sequence[Metric], name: str) -> Metric:
    for metric in metrics:
        if metric.name == name:
            return metric
    raise KeyError(f"no metric {name!r}; choose from {', '.join(metric.name for metric in metrics)}")


def build_scorecard(sessions: Sequence[SessionResult], settings: GateSettings | None = None) -> Scorecard:
    """Aggregate *sessions*; without sessions all metrics are empty and the gate does not pass."""
    settings = settings or GateSettings()
    apart = by_analyzer(sessions)
    if len(apart) < 2:
        return _measured(sessions, settings)
    return _counted(sessions, settings).model_copy(
        update={
            "groups": tuple(
                _group(("analyzer", analyzer), group, _limits(settings), settings)
                for analyzer, group in apart.items()
            ),
            "by_analyzer": tuple(_measured(group, settings) for group in apart.values()),
        }
    )


def _limits(settings: GateSettings) -> dict[str, float]:
    return {c.name: c.limit for c in settings.criteria if c.limit is not None}


def _counted(sessions: Sequence[SessionResult], settings: GateSettings) -> Scorecard:
    """Return the counts and the gate, which apply to any sessions."""
    pairs = scored(counting(sessions))
    counts = Counter(session.status.value for session in sessions)
    return Scorecard(
        targets=tuple(dict.fromkeys(session.target for session in sessions)),
        analyzers=tuple(dict.fromkeys(session.analyzer for session in sessions)),
        sessions=len(sessions),
        scored=len(pairs),
        scenarios=len({unit_of(session) for session, _ in pairs}),
        controls=len({unit_of(session) for session, verdict in pairs if not verdict.fault_present}),
        confidence=settings.confidence,
        statuses={status.value: counts.get(status.value, 0) for status in Status},
        unscored=_unscored(sessions),
        ungated=_ungated(sessions),
        repeats_independent=settings.repeats_independent,
        gate=run_gate(sessions, settings),
    )


def _measured(ran: Sequence[SessionResult], settings: GateSettings) -> Scorecard:
    """Return the full scorecard of one analyzer."""
    sessions = counting(ran)
    pairs = scored(sessions)
    limits = _limits(settings)
    to_impact = [v.time_to_impact_s for _, v in pairs if v.time_to_impact_s is not None]
    used = [session.usage for session in ran]
    cost_usd = math.fsum(usage.cost_usd for usage in used)
    to_cause = [seconds for _, v in pairs if (seconds := time_to_root_cause_s(v)) is not None]
    return _counted(ran, settings).model_copy(
        update={
            "metrics": _metrics(ran, tuple(MEASURES), limits, settings),
            "groups": _groups(sessions, limits, settings),
            "misses": tuple(
                miss
                for session, verdict in scored(ran)
                if (session.failures or not session.scenario.ungated)
                and (miss := _miss(session, verdict)) is not None
            ),
            "refuted": tuple(claim for session, verdict in pairs for claim in _refuted(session, verdict)),
            "seconds": summarise([session.wall_s for session, _ in pairs]),
            "seconds_to_impact": summarise(to_impact),
            "seconds_to_root_cause": summarise(to_cause),
            "spurious_anomalies": summarise([float(verdict.spurious_anomalies) for _, verdict in pairs]),
            "tokens": sum(usage.input_tokens + usage.output_tokens for usage in used),
            "cost_usd": cost_usd,
            "prompts": sum(usage.prompts for usage in used),
            "steps": sum(usage.steps for usage in used),
            "cost_per_solved_usd": _cost_per_solved(ran, cost_usd),
            "human_prompts": sum(usage.human_prompts for usage in used),
            "chance_top1": _chance(pairs),
            "calibration": calibrate(sessions),
            "flips": _flips(pairs),
        }
    )


def _metrics(
    sessions: Sequence[SessionResult],
    names: Sequence[str],
    limits: Mapping[str, float],
    settings: GateSettings,
) -> tuple[Metric, ...]:
    counted = counting(sessions)
    return tuple(
        take(
            sessions if MEASURES[name].ungated else counted,
            MEASURES[name],
            limit=limits.get(name),
            confidence=settings.confidence,
            repeats_independent=settings.repeats_independent,
        )
        for name in names
    )


def _groups(
    sessions: Sequence[SessionResult], limits: Mapping[str, float], settings: GateSettings
) -> tuple[TagGroup, ...]:
    members: dict[tuple[str, str], list[SessionResult]] = {}
    several_targets = len({session.target for session in sessions}) > 1
    for session in sessions:
        own = [("target", session.target)] if several_targets else []
        # A tag may repeat a value; the session counts once.
        for tag in dict.fromkeys((*own, *session.scenario.tags)):
            members.setdefault(tag, []).append(session)
    return tuple(_group(tag, group, limits, settings) for tag, group in sorted(members.items()))


def _group(
    tag: tuple[str, str], group: Sequence[SessionResult], limits: Mapping[str, float], settings: GateSettings
) -> TagGroup:
    return TagGroup(
        tag=tag[0],
        value=tag[1],
        sessions=len(group),
        scenarios=len({unit_of(session) for session, _ in scored(group)}),
        metrics=_metrics(group, GROUP_METRICS, limits, settings),
        seconds=summarise([session.wall_s for session, _ in scored(group)]),
    )


def _unscored(sessions: Sequence[SessionResult]) -> tuple[Unscored, ...]:
    alike: dict[tuple[Status, Blame | None, str], list[str]] = {}
    kept = {id(session) for session, _ in scored(sessions)}
    for session in sessions:
        if id(session) not in kept:
            reason = session.reason or "no reason was given"
            alike.setdefault((session.status, session.blame, reason), []).append(session.scenario.id)
    return tuple(
        Unscored(
            status=status,
            blame=blame,
            reason=reason,
            count=len(names),
            scenarios=tuple(dict.fromkeys(names)),
        )
        for (status, blame, reason), names in alike.items()
    )


def _ungated(sessions: Sequence[SessionResult]) -> tuple[Ungated, ...]:
    alike: dict[tuple[str, str], list[SessionResult]] = {}
    for session in sessions:
        if session.scenario.ungated:
            alike.setdefault((session.scenario.id, session.scenario.ungated), []).append(session)
    return tuple(
        Ungated(
            scenario_id=scenario_id,
            reason=reason,
            sessions=len(group),
            scored=len(scored(group)),
            detected=sum(verdict.detected for _, verdict in scored(group)),
            top1=sum(verdict.top1 for _, verdict in scored(group)),
        )
        for (scenario_id, reason), group in alike.items()
    )


def _miss(session: SessionResult, verdict: Verdict) -> Miss | None:
    kind = outcome_of(session)
    if kind.right:
        return None
    found = session.diagnosis.root_causes if session.diagnosis is not None else ()
    expected = session.scenario.expectation.root_causes
    return Miss(
        session_id=session.session_id,
        scenario_id=session.scenario.id,
        test_id=session.test_id,
        kind=kind,
        reason=reason_of(session),
        expected=tuple(dict.fromkeys(cause.service for cause in expected)),
        named=tuple(dict.fromkeys(cause.service for cause in found))[:3],
        rank=verdict.service_rank,
        tags=session.scenario.tags,
    )


def _refuted(session: SessionResult, verdict: Verdict) -> Iterator[Refuted]:
    claims = verdict.grounding.claims if verdict.grounding is not None else ()
    for claim in claims:
        if claim.outcome == "refuted":
            yield Refuted(
                session_id=session.session_id,
                scenario_id=session.scenario.id,
                test_id=session.test_id,
                kind=outcome_of(session),
                cited=claim.cited,
                found=claim.found,
            )


def _chance(pairs: Sequence[tuple[SessionResult, Verdict]]) -> float | None:
    """Return top-1 of a random guess: the mean share of accepted root causes among known services."""
    chances = []
    for session, verdict in pairs:
        if verdict.fault_present and verdict.candidates:
            names = ServiceNames(verdict.known_services)
            accepted = {names.canonical(cause.service) for cause in session.scenario.expectation.root_causes}
            chances.append(min(1.0, len(accepted) / verdict.candidates))
    return math.fsum(chances) / len(chances) if chances else None


def _cost_per_solved(ran: Sequence[SessionResult], cost_usd: float) -> float | None:
    """Return the cost of all sessions divided by the faults whose root cause came first; None without any.

    What failed or found nothing is paid as well.
    """
    solved = sum(verdict.fault_present and verdict.solved for _, verdict in scored(ran))
    return cost_usd / solved if solved and cost_usd else None


def _flips(pairs: Sequence[tuple[SessionResult, Verdict]]) -> Flips | None:
    repeats: dict[Unit, list[tuple[bool, bool]]] = {}
    for session, verdict in pairs:
        repeats.setdefault(unit_of(session), []).append((verdict.detected, verdict.top1))
    repeated = {unit: outcomes for unit, outcomes in repeats.items() if len(outcomes) > 1}
    if not repeated:
        return None
    unstable = tuple(unit.scenario_id for unit, outcomes in repeated.items() if len(set(outcomes)) > 1)
    differing = [
        sum(a != b for a, b in combinations(outcomes, 2)) / math.comb(len(outcomes), 2)
        for outcomes in repeated.values()
    ]
    return Flips(
        scenarios=len(repeated),
        unstable=len(unstable) / len(repeated),
        disagreement=min(1.0, math.fsum(differing) / len(differing)),
        unstable_scenarios=unstable,
    )
