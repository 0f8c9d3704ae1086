"""The statistical gate: PASS, FAIL or INCONCLUSIVE, distinct from infrastructure failures."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Literal

from pydantic import Field, field_validator

from pytest_otel_diag.errors import ConfigurationError, nearest
from pytest_otel_diag.model.base import Finite, Model, Ratio
from pytest_otel_diag.model.session import Blame, SessionResult, Status
from pytest_otel_diag.scoring.gate_outcome import GateOutcome
from pytest_otel_diag.scoring.measures import MEASURES, Metric, by_analyzer, counting, scored, take
from pytest_otel_diag.scoring.text import count
from pytest_otel_diag.stats.intervals import CONFIDENCE, wilson, wilson_size
from pytest_otel_diag.stats.two_sample import binomial_at_least

MORE_RUNS_CAP = 10_000
"""Largest number of additional runs that the gate suggests."""

_ROUNDING = 1e-9
"""Tolerance on successes, which are products of rates."""

_SMALL_SAMPLE = 20


Direction = Literal[">=", ">", "<=", "<"]


class GateCriterion(Model):
    """A target for one metric: ``name direction threshold``.

    ``threshold`` is a share; ``limit``, in ``unit``, is the parameter of metrics that have one (seconds,
    queries, prompts). Only criteria with ``gates`` decide the outcome; the others are only reported.
    """

    name: str
    direction: Direction
    threshold: Ratio
    limit: Finite | None = None
    unit: str = ""
    gates: bool = False

    @field_validator("name")
    @classmethod
    def _known(cls, name: str) -> str:
        if name not in MEASURES:
            raise ValueError(
                f"no metric {name!r}{nearest(name, MEASURES)}; choose from {', '.join(MEASURES)}"
            )
        return name

    @property
    def target(self) -> str:
        """The threshold as text: ``≥ 0.90``."""
        sign = {">=": "≥", "<=": "≤"}.get(self.direction, self.direction)
        return f"{sign} {self.threshold:.2f}"


DEFAULT_CRITERIA = (
    GateCriterion(name="detection_sensitivity", direction=">=", threshold=0.90, gates=True),
    GateCriterion(name="false_negative_rate", direction="<", threshold=0.05),
    GateCriterion(name="false_positive_rate", direction="<", threshold=0.10, gates=True),
    GateCriterion(name="top1", direction=">=", threshold=0.75, gates=True),
    GateCriterion(name="full_cycle", direction=">=", threshold=0.90, limit=300.0, unit="s"),
    GateCriterion(name="time_to_root_cause", direction=">=", threshold=0.90, limit=600.0, unit="s"),
    GateCriterion(name="query_time", direction=">=", threshold=0.90, limit=30.0, unit="s"),
    GateCriterion(name="multi_source", direction=">=", threshold=0.80),
    GateCriterion(name="irrelevant_queries", direction="<=", threshold=0.20),
    GateCriterion(name="few_irrelevant_queries", direction=">=", threshold=0.90, limit=5.0, unit="queries"),
    GateCriterion(name="solved_few_prompts", direction=">", threshold=0.60, limit=3.0, unit="prompts"),
)


class GateSettings(Model):
    """Criteria and tolerances of the gate.

    ``max_unscored_ratio`` is the largest share of sessions, without skipped ones, that may be invalid or fail
    outside the analyzer; ``max_analyzer_error_ratio`` is the largest share in which the analyzer may fail.
    ``repeats_independent`` counts each repeat as a new observation, which is correct only for a fixed set of
    scenarios with an analyzer or target that varies. ``interrupted`` is the cause of an interruption: the
    missing sessions are not missing at random, so the gate makes no decision.
    """

    criteria: tuple[GateCriterion, ...] = DEFAULT_CRITERIA
    confidence: float = Field(default=CONFIDENCE, gt=0.0, lt=1.0)
    max_unscored_ratio: Ratio = 0.20
    max_analyzer_error_ratio: Ratio = 0.05
    repeats_independent: bool = False
    interrupted: str = ""

    def with_thresholds(self, thresholds: Mapping[str, float]) -> GateSettings:
        """Return settings with other thresholds by metric name.

        Raises ConfigurationError for a metric without a criterion or a threshold outside 0..1.
        """
        names = [criterion.name for criterion in self.criteria]
        for name, threshold in thresholds.items():
            if name not in names:
                raise ConfigurationError(
                    f"the gate has no criterion {name!r}{nearest(name, names)}; "
                    f"choose from {', '.join(names)}"
                )
            if not 0.0 <= threshold <= 1.0:
                raise ConfigurationError(
                    f"the threshold of {name!r} is {threshold}; give a share from 0 to 1"
                )
        criteria = tuple(
            criterion.model_copy(update={"threshold": thresholds.get(criterion.name, criterion.threshold)})
            for criterion in self.criteria
        )
        return self.model_copy(update={"criteria": criteria})


class CriterionResult(Model):
    """One criterion with what was measured.

    ``more_needed`` is the number of additional units (scenarios, or runs when repeats are independent) that
    would decide it at the observed proportion; None when it is decided or cannot be.
    """

    criterion: GateCriterion
    metric: Metric
    outcome: GateOutcome
    more_needed: int | None = None
    note: str = ""


class GateResult(Model):
    """Outcome of the gate, the criteria behind it, and the reasons in words.

    Several analyzers are gated separately: the outcome is then the worst of theirs, each reason starts with
    its analyzer, and ``criteria`` is empty (the scorecard has them by analyzer).
    """

    outcome: GateOutcome
    criteria: tuple[CriterionResult, ...] = ()
    reasons: tuple[str, ...] = ()


def run_gate(sessions: Sequence[SessionResult], settings: GateSettings | None = None) -> GateResult:
    """Judge a suite per analyzer; the outcome without scored sessions is INFRASTRUCTURE.

    Sessions of ungated scenarios do not count, but a fault that they left on still prevents PASS.
    """
    settings = settings or GateSettings()
    if settings.interrupted:
        return _undecided(sessions, settings)
    groups = by_analyzer(sessions)
    if len(groups) < 2:
        return _gate(sessions, settings)
    results = {analyzer: _gate(group, settings) for analyzer, group in groups.items()}
    return GateResult(
        outcome=min((result.outcome for result in results.values()), key=_WORST_FIRST.index),
        reasons=tuple(
            f"{analyzer} {result.outcome}: {reason}"
            for analyzer, result in sorted(
                results.items(), key=lambda named: _WORST_FIRST.index(named[1].outcome)
            )
            for reason in result.reasons
        ),
    )


def _undecided(sessions: Sequence[SessionResult], settings: GateSettings) -> GateResult:
    measured = (_evaluate(counting(sessions), criterion, settings) for criterion in settings.criteria)
    undecided = {"outcome": GateOutcome.INTERRUPTED, "more_needed": None, "note": "the run was interrupted"}
    left_on = _left_on(sessions)
    return GateResult(
        outcome=GateOutcome.INTERRUPTED,
        criteria=()
        if len(by_analyzer(sessions)) > 1
        else tuple(r.model_copy(update=undecided) for r in measured),
        reasons=(
            f"{settings.interrupted}: {count(len(sessions), 'session')} ended before, too few to decide; "
            "run the suite again",
            *((left_on[1],) if left_on else ()),
        ),
    )


_WORST_FIRST = (
    GateOutcome.INFRASTRUCTURE,
    GateOutcome.FAIL,
    GateOutcome.INCONCLUSIVE,
    GateOutcome.PASS,
)


def _gate(ran: Sequence[SessionResult], settings: GateSettings) -> GateResult:
    sessions = counting(ran)
    criteria = tuple(_evaluate(sessions, criterion, settings) for criterion in settings.criteria)
    broken = _left_on(ran) or _all_ungated(ran, sessions) or _broken(sessions, settings)
    if broken is not None:
        outcome, reason = broken
        return GateResult(outcome=outcome, criteria=criteria, reasons=(reason,))
    outcome, reasons = _combine(criteria)
    return GateResult(outcome=outcome, criteria=criteria, reasons=reasons)


def decide(
    successes: float, n: int, criterion: GateCriterion, confidence: float = CONFIDENCE, deciding: int = 1
) -> GateOutcome:
    """Return PASS if the whole interval reaches the threshold, FAIL if none of it does, else INCONCLUSIVE.

    Wilson intervals of few observations exclude the true rate more often than they promise (0 of 1 excludes
    0.90), so an exact binomial test must agree. It bounds the chance that the gate as a whole decides wrongly
    about an analyzer exactly at its thresholds by 1 - *confidence*: one of *deciding* criteria is enough to
    fail, which divides that chance among them, whereas all have to pass, which does not. Fractional successes
    count as the next whole number in favour of the threshold.
    """
    outcome = _by_interval(successes, n, criterion, confidence)
    if outcome is GateOutcome.INCONCLUSIVE or not 0.0 < criterion.threshold < 1.0:
        return outcome
    high = outcome is GateOutcome.PASS if criterion.direction in (">=", ">") else outcome is GateOutcome.FAIL
    if high:
        p = binomial_at_least(math.floor(successes + _ROUNDING), n, criterion.threshold)
    else:
        p = binomial_at_least(n - math.ceil(successes - _ROUNDING), n, 1.0 - criterion.threshold)
    allowed = (1.0 - confidence) / (deciding if outcome is GateOutcome.FAIL else 1)
    return outcome if p <= allowed else GateOutcome.INCONCLUSIVE


def _by_interval(successes: float, n: int, criterion: GateCriterion, confidence: float) -> GateOutcome:
    interval = wilson(successes, n, confidence)
    if interval is None:
        return GateOutcome.INCONCLUSIVE
    low, high, threshold = interval.low, interval.high, criterion.threshold
    reached, missed = {
        ">=": (low >= threshold, high < threshold),
        ">": (low > threshold, high <= threshold),
        "<=": (high <= threshold, low > threshold),
        "<": (high < threshold, low >= threshold),
    }[criterion.direction]
    if reached:
        return GateOutcome.PASS
    return GateOutcome.FAIL if missed else GateOutcome.INCONCLUSIVE


def more_needed(
    rate: float, n: int, criterion: GateCriterion, confidence: float = CONFIDENCE, deciding: int = 1
) -> int | None:
    """Return the smallest k ≥ 1 at which *rate* over n + k observations decides the criterion.

    None when it exceeds MORE_RUNS_CAP or the rate equals the threshold.
    """
    size = wilson_size(rate, criterion.threshold, confidence)
    if size is None:
        return None
    first = max(n + 1, size - 1)  # a closed form of the interval alone; the exact test may ask for more
    last = min(2 * first + _SMALL_SAMPLE, n + MORE_RUNS_CAP)
    for total in range(first, last + 1):
        outcome = decide(rate * total, total, criterion, confidence, deciding)
        if outcome is not GateOutcome.INCONCLUSIVE:
            return total - n
    return None


def _evaluate(
    sessions: Sequence[SessionResult], criterion: GateCriterion, settings: GateSettings
) -> CriterionResult:
    metric = take(
        sessions,
        MEASURES[criterion.name],
        limit=criterion.limit,
        confidence=settings.confidence,
        repeats_independent=settings.repeats_independent,
    )
    unit = "run" if settings.repeats_independent else "scenario"
    deciding = sum(each.gates for each in settings.criteria) if criterion.gates else 1
    if metric.value is None:
        best = 1.0 if criterion.direction in (">=", ">") else 0.0
        more = more_needed(best, 0, criterion, settings.confidence, deciding)
        note = (
            "nothing to measure"
            if more is None
            else f"nothing to measure, at least {count(more, unit)} needed"
        )
        outcome = GateOutcome.INCONCLUSIVE
        return CriterionResult(
            criterion=criterion, metric=metric, outcome=outcome, more_needed=more, note=note
        )
    outcome = decide(metric.value * metric.n, metric.n, criterion, settings.confidence, deciding)
    if outcome is not GateOutcome.INCONCLUSIVE:
        return CriterionResult(criterion=criterion, metric=metric, outcome=outcome)
    more = more_needed(metric.value, metric.n, criterion, settings.confidence, deciding)
    note = (
        "cannot be decided at this rate"
        if more is None
        else f"{count(more, f'more {unit}')} needed at this rate"
    )
    return CriterionResult(criterion=criterion, metric=metric, outcome=outcome, more_needed=more, note=note)


def _combine(criteria: Sequence[CriterionResult]) -> tuple[GateOutcome, tuple[str, ...]]:
    gating = [result for result in criteria if result.criterion.gates]
    if not gating:
        return GateOutcome.INCONCLUSIVE, ("no criterion gates; enable one or run without the gate",)
    for outcome in (GateOutcome.FAIL, GateOutcome.INCONCLUSIVE):
        hit = [result for result in gating if result.outcome is outcome]
        if hit:
            return outcome, tuple(_reason(result) for result in hit)
    return GateOutcome.PASS, ()


def _reason(result: CriterionResult) -> str:
    metric, target = result.metric, result.criterion.target
    if metric.value is None or metric.low is None or metric.high is None:
        return f"{metric.label}: {result.note}"
    measured = f"{metric.value:.2f} [{metric.low:.2f}, {metric.high:.2f}] n={metric.n}, target {target}"
    return f"{metric.label}: {measured}" + (f"; {result.note}" if result.note else "")


def _left_on(sessions: Sequence[SessionResult]) -> tuple[GateOutcome, str] | None:
    left_on = [s for s in sessions if s.cleanup is not None and (s.cleanup.failed or s.cleanup.left_on)]
    if not left_on:
        return None
    failed = [s for s in left_on if s.cleanup is not None and s.cleanup.failed]
    what = (
        f"a fault may still be on: {count(len(failed), 'session')} could not prove the undo"
        if failed
        else f"a fault was left on as requested by {count(len(left_on), 'session')}"
    )
    first = (failed or left_on)[0]
    detail = f" ({first.cleanup.detail})" if first.cleanup is not None and first.cleanup.detail else ""
    return (
        GateOutcome.INFRASTRUCTURE,
        f"{what}, first {first.session_id} of {first.scenario.id}{detail}",
    )


def _all_ungated(
    ran: Sequence[SessionResult], counted: Sequence[SessionResult]
) -> tuple[GateOutcome, str] | None:
    if counted or not ran:
        return None
    reason = ran[0].scenario.ungated
    sessions = count(len(ran), "session")
    return GateOutcome.INFRASTRUCTURE, f"none of {sessions} counts in the gate; first reason: {reason}"


def _broken(sessions: Sequence[SessionResult], settings: GateSettings) -> tuple[GateOutcome, str] | None:
    ran = [session for session in sessions if session.status is not Status.SKIPPED]
    if not scored(ran):
        return GateOutcome.INFRASTRUCTURE, _nothing_scored(sessions, ran)
    crashed = [s for s in ran if s.status is Status.ERROR and s.blame is Blame.ANALYZER]
    unscored = len(ran) - len(crashed) - len(scored(ran))
    if unscored > settings.max_unscored_ratio * len(ran):
        return (
            GateOutcome.INFRASTRUCTURE,
            f"{unscored} of {count(len(ran), 'session')} do not judge the analyzer "
            f"(invalid or failed outside it), more than {settings.max_unscored_ratio:.0%}",
        )
    if len(crashed) > settings.max_analyzer_error_ratio * len(ran):
        return (
            GateOutcome.FAIL,
            f"the analyzer failed in {len(crashed)} of {count(len(ran), 'session')}, "
            f"more than {settings.max_analyzer_error_ratio:.0%}",
        )
    return None


def _nothing_scored(sessions: Sequence[SessionResult], ran: Sequence[SessionResult]) -> str:
    if not sessions:
        return "no session to judge; select tests that use a diagnosis"
    if not ran:
        return f"nothing ran: {count(len(sessions), 'session')}, skipped ({_first_reason(sessions)})"
    kinds = Counter(map(_kind, ran))
    listed = ", ".join(f"{n} {kind}" for kind, n in kinds.items())
    return f"nothing was scored: {count(len(ran), 'session')} ran, {listed}; first: {_first_reason(ran)}"


def _kind(session: SessionResult) -> str:
    if session.status is Status.SCORED:
        return "scored without a verdict"
    return str(session.status) if session.blame is None else f"{session.status} ({session.blame})"


def _first_reason(sessions: Sequence[SessionResult]) -> str:
    return next((session.reason for session in sessions if session.reason), "no reason was given")
