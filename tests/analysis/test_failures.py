"""Alarms of failed calls, and the one confidence that alarm, ranking and sentence share."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats as scipy_stats

from pytest_otel_diag.analyzers.builtin import report
from pytest_otel_diag.analyzers.builtin.analyzer import examine
from pytest_otel_diag.analyzers.builtin.count_tests import Counts, Prior, rise_p
from pytest_otel_diag.analyzers.builtin.evidence.failures import failure_tests
from pytest_otel_diag.analyzers.builtin.evidence.observations import (
    CALL,
    GAP,
    SERVING,
    MatrixBuilder,
    Metrics,
    Observations,
    Operation,
)
from pytest_otel_diag.analyzers.builtin.report import IncidentFindings
from pytest_otel_diag.analyzers.builtin.slots import Slots
from pytest_otel_diag.model.diagnosis import Mechanism
from pytest_otel_diag.model.windows import Window

SLOTS = 14
SECOND = 1_000_000_000
QUANTILES = ("low", "mid", "high", "took_mid", "took_high")


@dataclass(frozen=True)
class Calls:
    """Failures among calls of one operation: in the incident, and in quiet time slot by slot."""

    service: str
    failed: int
    calls: int
    quiet_calls: int
    quiet_failed: Sequence[int] = ()


def spread_over(total: int, slots: int) -> list[int]:
    """Return *total* in *slots* parts that differ by one at most."""
    return [total * (index + 1) // slots - total * index // slots for index in range(slots)]


def observed(
    rows: Sequence[Calls], calls: Sequence[tuple[int, int]] = (), in_parts: Sequence[int] = ()
) -> Observations:
    """Return a system whose operations have these calls, beside thirty operations that never fail.

    *calls* are pairs of rows of which the first calls the second and is answered. *in_parts* are the failures
    of the first row in each part of the incident.
    """
    quiet = tuple(Window(start_ns=n * 10 * SECOND, end_ns=(n + 1) * 10 * SECOND) for n in range(SLOTS))
    incident = Window(start_ns=150 * SECOND, end_ns=240 * SECOND)
    parts = [
        Window(start_ns=(150 + 10 * n) * SECOND, end_ns=(160 + 10 * n) * SECOND) for n in range(len(in_parts))
    ]
    slots = Slots(incident, quiet, tuple(parts), SLOTS)
    healthy = [Calls(f"healthy-{n % 6}", 0, 30, 60) for n in range(30)]
    operations: dict[int, Operation] = {}
    builder = MatrixBuilder(slots.count)
    for op, row in enumerate([*rows, *healthy]):
        operations[op] = Operation(row.service, f"operation {op}", "Server", row.calls + row.quiet_calls, 0)
        failed = [row.failed, *row.quiet_failed]
        failed += [0] * (1 + SLOTS - len(failed))
        failed += [0] * len(in_parts) if op else in_parts
        cells: dict[str, Sequence[float]] = dict.fromkeys(QUANTILES, [1.0] * slots.count)
        evenly = [*spread_over(row.quiet_calls, SLOTS), *spread_over(row.calls, len(in_parts))]
        counts = np.maximum([row.calls, *evenly], failed)
        builder.add(
            SERVING,
            (op, 0, 0),
            range(slots.count),
            cells | {"counts": counts, "failed": failed, "origins": failed, "lonely": [0.0] * slots.count},
        )
    for caller, callee in calls:
        nothing = dict.fromkeys((*QUANTILES, "failed", "origins", "lonely"), [0.0] * slots.count)
        answered = nothing | {"counts": [1.0] * slots.count}
        for feature, key in ((GAP, (caller, 0, callee)), (CALL, (caller, callee, 0))):
            builder.add(feature, key, range(slots.count), answered)
    metrics = Metrics.of({}, slots.count)
    return Observations(slots, operations, builder.matrices(), metrics=metrics)


def assert_consistent(case: IncidentFindings) -> None:
    """Alarm, confidences and sentence say the same."""
    causes = report.root_causes(case, ())
    total = sum(cause.confidence for cause in causes)
    assert case.alarm.detected == (case.alarm.probability >= 0.5)
    assert total <= case.alarm.probability + 1e-9
    summary = report.summary(case, causes)
    assert summary.startswith("Nothing is significantly wrong") != case.alarm.detected
    if case.alarm.detected:
        assert causes[0].score > 0.0
        assert summary.startswith(causes[0].service)
    else:
        assert all(cause.confidence < 0.5 for cause in causes)


SICK = Calls("web", 34, 886, 213, (0, 0, 0, 18, 18))
"""Another service that failed in two slots of quiet time."""


@pytest.mark.parametrize(
    "rows",
    [
        [Calls("billing", 12, 19, 31)],
        [Calls("billing", 12, 19, 31), SICK],
        [Calls("billing", 16, 16, 25), SICK],
        [Calls("billing", 5, 16, 14)],
        [Calls("billing", 5, 107, 172)],
        [Calls("billing", 3, 3, 6)],
        [Calls("billing", 40, 60, 140, (0, 0, 0, 9, 8))],
    ],
    ids=[
        "two thirds fail",
        "beside a service that was sick in quiet time",
        "all fail",
        "a third of few calls",
        "one of twenty calls",
        "three of three",
        "the service itself was sick in quiet time",
    ],
)
def test_failed_calls_are_an_alarm_that_names_the_service(rows: list[Calls]) -> None:
    case = examine(observed(rows))
    causes = report.root_causes(case, ())
    assert case.alarm.detected, case.alarm.reason
    assert causes[0].service == "billing"
    assert causes[0].operation == "operation 0"
    assert causes[0].confidence >= 0.5
    assert "operation 0" in report.summary(case, causes)
    assert_consistent(case)


@pytest.mark.parametrize(
    "row",
    [
        Calls("billing", 0, 19, 31),
        Calls("billing", 1, 5, 10),
        Calls("billing", 2, 16, 14),
        Calls("billing", 3, 19, 31, (0, 1, 0, 2)),
        Calls("billing", 9, 60, 140, (0, 0, 0, 10, 9)),
        Calls("billing", 4, 4, 0),
    ],
    ids=["none", "one", "two", "as before", "another sick stretch", "never called before"],
)
def test_failed_calls_that_chance_explains_are_no_alarm(row: Calls) -> None:
    case = examine(observed([row]))
    assert not case.alarm.detected, case.alarm.reason
    assert_consistent(case)


def test_an_alarm_states_the_counts_and_a_silence_states_what_may_be_chance() -> None:
    loud = examine(observed([Calls("billing", 12, 19, 31)]))
    assert "12 of 19 calls of 'operation 0' in billing failed" in loud.alarm.reason
    assert "0 of 31 in quiet time" in loud.alarm.reason
    silent = examine(observed([Calls("billing", 2, 16, 14)]))
    assert "2 of 16 calls of 'operation 0' in billing failed" in silent.alarm.reason
    assert "may be chance" in silent.alarm.reason


def test_a_callee_that_refuses_without_an_error_status_is_blamed() -> None:
    rows = [Calls("orders", 3, 3, 6), Calls("basket", 0, 3, 6)]
    first, second = report.root_causes(examine(observed(rows, [(0, 1)])), ())
    assert (first.service, first.operation) == ("basket", "operation 1")
    assert (second.service, second.operation) == ("orders", "operation 0")
    assert first.mechanism is Mechanism.ERROR
    assert "what basket answers" in first.explanation


def test_a_callee_that_refuses_two_callers_is_blamed_alone() -> None:
    rows = [Calls("orders", 6, 9, 20), Calls("web", 6, 9, 20), Calls("basket", 0, 18, 40)]
    case = examine(observed(rows, [(0, 2), (1, 2)]))
    assert [cause.service for cause in report.root_causes(case, ())] == ["basket"]


@pytest.mark.parametrize(
    ("in_parts", "detected"),
    [
        ((0, 6, 0, 0, 0, 0, 0, 0, 0), False),
        ((1, 0, 1, 1, 0, 1, 0, 1, 1), True),
        ((0, 0, 0, 0, 0, 1, 1, 2, 2), True),
    ],
    ids=["at once", "throughout", "from the middle on"],
)
def test_failures_that_come_at_once_are_few_events(in_parts: Sequence[int], detected: bool) -> None:
    case = examine(observed([Calls("billing", 6, 90, 140)], in_parts=in_parts))
    assert case.alarm.detected == detected, case.alarm.reason


def test_a_system_whose_failures_come_in_bunches_raises_no_alarm_for_one_more() -> None:
    bunched = [Calls(f"shop-{n}", 0, 90, 140, (0,) * n + (5,)) for n in range(6)]
    assert examine(observed([Calls("billing", 5, 90, 140)])).alarm.detected
    assert not examine(observed([Calls("billing", 5, 90, 140), *bunched])).alarm.detected


def test_failures_of_a_service_are_tested_over_its_operations_too() -> None:
    found = failure_tests(observed([Calls("billing", 2, 20, 40)] * 6), range(1, SLOTS + 1))
    assert found[0].operation is None
    assert (found[0].service, found[0].counts.hits) == ("billing", 12)
    assert str(found[0]).startswith("12 of 120 calls of billing failed")


@settings(max_examples=25, deadline=None)
@given(
    st.integers(0, 30), st.integers(1, 30), st.integers(1, 60), st.lists(st.integers(0, 6), max_size=SLOTS)
)
def test_alarm_confidence_and_sentence_always_agree(
    failed: int, calls: int, quiet_calls: int, quiet_failed: list[int]
) -> None:
    row = Calls("billing", min(failed, calls), calls, quiet_calls, quiet_failed)
    assert_consistent(examine(observed([row, SICK])))


@given(st.integers(0, 20), st.integers(1, 20), st.integers(0, 40), st.integers(1, 40))
def test_without_a_prior_the_test_is_fishers(
    hits: int, trials: int, quiet_hits: int, quiet_trials: int
) -> None:
    hits, quiet_hits = min(hits, trials), min(quiet_hits, quiet_trials - 1)
    total, failed = trials + quiet_trials, hits + quiet_hits
    exact = scipy_stats.hypergeom(total, failed, trials).sf(hits - 1)
    predictive = scipy_stats.betabinom(trials, 1 + quiet_hits, quiet_trials - quiet_hits)
    assert predictive.sf(hits - 1) == pytest.approx(exact, abs=1e-9)
    mine = rise_p(Counts(hits, trials, quiet_hits, quiet_trials), Prior(1.0, 0.0))
    if mine < 1.0:
        assert mine == pytest.approx(predictive.sf(hits) + 0.5 * predictive.pmf(hits), rel=1e-6)
    else:
        assert hits / trials <= (1 + quiet_hits) / (1 + quiet_trials)


def test_the_test_keeps_its_level_for_shares_like_those_of_the_prior() -> None:
    dice, prior = np.random.default_rng(4), Prior.of_mean(0.05)
    shares = dice.beta(prior.failed, prior.succeeded, 4000)
    now, before = dice.binomial(25, shares), dice.binomial(40, shares)
    found = [rise_p(Counts(k, 25, q, 40), prior) for k, q in zip(now, before, strict=True)]
    assert np.mean(np.array(found) <= 0.05) <= 0.06


def test_bunches_count_as_fewer_failures() -> None:
    counts = Counts(12, 100, 10, 200)
    assert rise_p(counts, Prior.of_mean(0.05)) < rise_p(counts, Prior.of_mean(0.05), 4.0) < 0.5
