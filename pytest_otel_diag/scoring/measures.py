"""Measures of scored sessions and their aggregation to one value with an interval.

Each measure is a number from 0 to 1 for a session, or None if it does not apply, so one Wilson interval fits
all of them. The unit of observation is the *scenario* (see Unit): repeats of a scenario are averaged first.
Repeats of a deterministic analyzer on a recording are the same observation, so counting them would shrink the
interval without new information; repeats of a random analyzer still cover only that many scenarios.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple

from pydantic import Field

from pytest_otel_diag.model.base import Finite, Model, Ratio
from pytest_otel_diag.model.scenario import Disturbance, Environment, Expectation, Fault, Timing
from pytest_otel_diag.model.session import SessionResult, Status
from pytest_otel_diag.model.telemetry import SIGNAL_TABLES
from pytest_otel_diag.model.verdict import Match, Verdict
from pytest_otel_diag.scoring.astray import led_astray
from pytest_otel_diag.stats.intervals import CONFIDENCE, wilson

HORIZON = 5
"""Number of root causes in Avg@5."""

Reading = Callable[[SessionResult, Verdict, float], float | None]


@dataclass(frozen=True)
class Measure:
    """A measure of one session.

    ``limit``, in ``limit_unit``, is its parameter if it has one; the label may contain it as ``{limit}``.
    Sessions of ungated scenarios count only where ``ungated`` is set.
    """

    name: str
    label: str
    reading: Reading
    limit: float = 0.0
    limit_unit: str = ""
    better: str = "higher"
    ungated: bool = False


class Metric(Model):
    """A measured share: the mean over ``n`` units of ``sessions`` sessions, with its Wilson interval.

    ``value`` and the interval are None when the measure applies to no session.
    """

    name: str
    label: str
    value: Ratio | None = None
    n: int = Field(default=0, ge=0)
    sessions: int = Field(default=0, ge=0)
    low: Finite | None = None
    high: Finite | None = None
    limit: Finite | None = None
    limit_unit: str = ""
    better: str = "higher"


def _fault(reading: Callable[[Verdict], float]) -> Reading:
    def read(_session: SessionResult, verdict: Verdict, _limit: float) -> float | None:
        return float(reading(verdict)) if verdict.fault_present else None

    return read


def _reciprocal_rank(verdict: Verdict) -> float:
    return 0.0 if verdict.service_rank is None else 1.0 / verdict.service_rank


def _average_at(verdict: Verdict) -> float:
    return sum(verdict.within(k) for k in range(1, HORIZON + 1)) / HORIZON


def _operation(_session: SessionResult, verdict: Verdict, _limit: float) -> float | None:
    return float(verdict.operation_rank == 1) if verdict.expected_operation else None


def _mechanism(_session: SessionResult, verdict: Verdict, _limit: float) -> float | None:
    return float(verdict.mechanism_rank == 1) if verdict.expected_mechanism else None


def _all_causes(_session: SessionResult, verdict: Verdict, _limit: float) -> float | None:
    if verdict.causes_expected < 2:
        return None
    return float(verdict.causes_named == verdict.causes_expected)


def _recall(matches: Sequence[Match]) -> float | None:
    return sum(match.found is not None for match in matches) / len(matches) if matches else None


def _named_flag(session: SessionResult, verdict: Verdict, _limit: float) -> float | None:
    has_flag = bool(session.scenario.faults or session.scenario.expectation.flags)
    return float(verdict.named_flag) if has_flag else None


def _flag_in_telemetry(session: SessionResult, _verdict: Verdict, _limit: float) -> float | None:
    return None if session.leaks is None else float(bool(session.leaks.rows))


def _flag_read(session: SessionResult, _verdict: Verdict, _limit: float) -> float | None:
    return None if session.leaks is None else float(session.leaks.read)


def _red_herring(session: SessionResult, verdict: Verdict, _limit: float) -> float | None:
    if not session.scenario.expectation.red_herrings:
        return None
    return float(verdict.named_red_herring is not None)


def _unknown(_session: SessionResult, verdict: Verdict, _limit: float) -> float | None:
    return float(bool(verdict.unknown_services)) if verdict.known_services else None


def _query_shows(_session: SessionResult, verdict: Verdict, _limit: float) -> float | None:
    if not verdict.fault_present:
        return None
    return float(verdict.query is not None and verdict.query.shows_culprit)


def _false_positive(_session: SessionResult, verdict: Verdict, _limit: float) -> float | None:
    return None if verdict.fault_present else float(verdict.detected)


def _full_cycle(session: SessionResult, _verdict: Verdict, limit: float) -> float | None:
    return float(session.wall_s <= limit)


def _time_to_root_cause(_session: SessionResult, verdict: Verdict, limit: float) -> float | None:
    seconds = time_to_root_cause_s(verdict)
    return None if seconds is None else float(seconds <= limit)


def time_to_root_cause_s(verdict: Verdict) -> float | None:
    """Return the seconds from the fault to the right root cause: time to impact plus time to diagnosis.

    The first is on the target's clock (virtual in a replay), the second is wall time. None when the right
    service was not named first or a time is unknown.
    """
    if not (verdict.fault_present and verdict.top1) or verdict.time_to_diagnosis_s is None:
        return None
    return (verdict.time_to_impact_s or 0.0) + verdict.time_to_diagnosis_s


def _multi_source(session: SessionResult, verdict: Verdict, _limit: float) -> float | None:
    asked = {source for query in session.queries if query.error is None for source in query.data_sources}
    if len(verdict.data_sources) == 1 and asked >= SIGNAL_TABLES.keys():
        return None  # all signals were queried and only one has data, so no second one can be read
    return float(len(verdict.data_sources) >= 2)


def _irrelevant(_session: SessionResult, verdict: Verdict, _limit: float) -> float | None:
    return verdict.queries_irrelevant / verdict.queries_total if verdict.queries_total else None


def _few_irrelevant(_session: SessionResult, verdict: Verdict, limit: float) -> float | None:
    if not (verdict.fault_present and verdict.top1):
        return None
    return float(verdict.queries_irrelevant < limit)


def _few_prompts(_session: SessionResult, verdict: Verdict, limit: float) -> float | None:
    if not verdict.fault_present:
        return None
    return float(verdict.top1 and verdict.human_prompts < limit)


def _query_time(session: SessionResult, verdict: Verdict, limit: float) -> float | None:
    times = [query.elapsed_s for query in session.queries]
    if verdict.query is not None and verdict.query.executed:
        times.append(verdict.query.elapsed_s)
    return sum(time < limit for time in times) / len(times) if times else None


def _evidence(_session: SessionResult, verdict: Verdict, _limit: float) -> float | None:
    return None if verdict.grounding is None else verdict.grounding.share


def _cites_nothing(_session: SessionResult, verdict: Verdict, _limit: float) -> float | None:
    if verdict.grounding is None or not verdict.detected:
        return None
    return float(verdict.grounding.cites_nothing)


def _entities(_session: SessionResult, verdict: Verdict, _limit: float) -> float | None:
    grounding = verdict.grounding
    if grounding is None or not grounding.entities:
        return None
    return grounding.entities_known / grounding.entities


def _solved_grounded(_session: SessionResult, verdict: Verdict, _limit: float) -> float | None:
    if verdict.grounding is None or not verdict.fault_present:
        return None
    return float(verdict.solved and verdict.grounding.grounded)


def _path_covered(_session: SessionResult, verdict: Verdict, _limit: float) -> float | None:
    return None if verdict.path is None else verdict.path.covered / verdict.path.steps


def _path_in_order(_session: SessionResult, verdict: Verdict, _limit: float) -> float | None:
    return None if verdict.path is None else verdict.path.in_order / verdict.path.steps


_ALL = (
    Measure("detection_sensitivity", "faults detected", _fault(lambda v: v.detected)),
    Measure("false_negative_rate", "faults missed", _fault(lambda v: not v.detected), better="lower"),
    Measure("false_positive_rate", "false alarms on controls", _false_positive, better="lower"),
    Measure("top1", "root cause top-1", _fault(lambda v: v.top1)),
    Measure("top3", "root cause top-3", _fault(lambda v: v.within(3))),
    Measure("avg5", "root cause Avg@5", _fault(_average_at)),
    Measure("mrr", "mean reciprocal rank", _fault(_reciprocal_rank)),
    Measure("operation_top1", "service and operation top-1", _operation),
    Measure("mechanism_top1", "service and mechanism top-1", _mechanism),
    Measure("all_causes_named", "all of several causes named", _all_causes),
    Measure("anomaly_recall", "expected anomalies found", lambda _s, v, _l: _recall(v.anomalies)),
    Measure("path_recall", "expected paths found", lambda _s, v, _l: _recall(v.paths)),
    Measure("query_shows_culprit", "query shows the culprit", _query_shows),
    Measure("named_flag", "flag itself named", _named_flag, better="neither"),
    Measure("flag_in_telemetry", "telemetry names the flag", _flag_in_telemetry, better="neither"),
    Measure("flag_read", "telemetry about flags read", _flag_read, better="neither"),
    Measure("red_herring_first", "red herring named first", _red_herring, better="lower"),
    Measure("led_astray", "led astray by texts", led_astray, better="lower", ungated=True),
    Measure("unknown_services", "names an unknown service", _unknown, better="lower"),
    Measure("entities_exist", "named services and operations exist", _entities),
    Measure("evidence_grounded", "evidence confirmed by telemetry", _evidence),
    Measure("cites_nothing", "alarm without evidence to check", _cites_nothing, better="lower"),
    Measure("solved_grounded", "solved, evidence confirmed, none refuted", _solved_grounded),
    Measure("path_covered", "investigation path covered", _path_covered),
    Measure("path_in_order", "investigation path in order", _path_in_order),
    Measure("full_cycle", "session within {limit:g} s", _full_cycle, 300.0, "s"),
    Measure("time_to_root_cause", "right root cause within {limit:g} s", _time_to_root_cause, 600.0, "s"),
    Measure("query_time", "queries under {limit:g} s", _query_time, 30.0, "s"),
    Measure("multi_source", "two or more signals read", _multi_source),
    Measure("irrelevant_queries", "irrelevant queries", _irrelevant, better="lower"),
    Measure(
        "few_irrelevant_queries", "solved, < {limit:g} irrelevant queries", _few_irrelevant, 5.0, "queries"
    ),
    Measure("solved_few_prompts", "solved, < {limit:g} human prompts", _few_prompts, 3.0, "prompts"),
)

MEASURES: Mapping[str, Measure] = {measure.name: measure for measure in _ALL}
"""All measures by name, in the order of scorecards."""


def scored(sessions: Iterable[SessionResult]) -> list[tuple[SessionResult, Verdict]]:
    """Return the scored sessions with their verdicts."""
    return [
        (session, session.verdict)
        for session in sessions
        if session.status is Status.SCORED and session.verdict is not None
    ]


class Unit(NamedTuple):
    """The identity that repeats of one scenario share.

    The id is not enough: two tests may use the same fault with different expectations or timing, which are
    different observations, as are different environments and seeds.
    """

    target: str
    analyzer: str
    scenario_id: str
    faults: tuple[Fault, ...]
    disturbances: tuple[Disturbance, ...]
    environment: Environment
    expectation: Expectation
    timing: Timing


def unit_of(session: SessionResult) -> Unit:
    """Return the unit that the session observes."""
    scenario = session.scenario
    return Unit(
        target=session.target,
        analyzer=session.analyzer,
        scenario_id=scenario.id,
        faults=scenario.faults,
        disturbances=scenario.disturbances,
        environment=scenario.environment,
        expectation=scenario.expectation,
        timing=scenario.timing,
    )


def counting(sessions: Iterable[SessionResult]) -> list[SessionResult]:
    """Return the sessions that count: those of gated scenarios."""
    return [session for session in sessions if not session.scenario.ungated]


def by_analyzer(sessions: Iterable[SessionResult]) -> dict[str, list[SessionResult]]:
    """Return the sessions of each analyzer, in order of first appearance."""
    groups: dict[str, list[SessionResult]] = {}
    for session in sessions:
        groups.setdefault(session.analyzer, []).append(session)
    return groups


def take(
    sessions: Iterable[SessionResult],
    measure: Measure,
    *,
    limit: float | None = None,
    confidence: float = CONFIDENCE,
    repeats_independent: bool = False,
) -> Metric:
    """Measure the scored *sessions*: the mean over scenarios, or over sessions if repeats are independent."""
    bound = measure.limit if limit is None else limit
    readings: dict[object, list[float]] = {}
    for index, (session, verdict) in enumerate(scored(sessions)):
        reading = measure.reading(session, verdict, bound)
        if reading is not None:
            readings.setdefault(index if repeats_independent else unit_of(session), []).append(reading)
    described = Metric(
        name=measure.name,
        label=measure.label.format(limit=bound),
        limit=bound if measure.limit_unit else None,
        limit_unit=measure.limit_unit,
        better=measure.better,
    )
    if not readings:
        return described
    means = [math.fsum(values) / len(values) for values in readings.values()]
    successes, n = min(math.fsum(means), float(len(means))), len(means)
    interval = wilson(successes, n, confidence)
    assert interval is not None
    return described.model_copy(
        update={
            "value": successes / n,
            "n": n,
            "sessions": sum(map(len, readings.values())),
            "low": interval.low,
            "high": interval.high,
        }
    )
