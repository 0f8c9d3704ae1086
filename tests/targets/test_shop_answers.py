"""Answers of the simulated shop's telemetry are kept as long as they are true."""

from __future__ import annotations

import pytest

from pytest_otel_diag.model.questions import CallEdges, LogCounts, MetricLevels, ServiceHealthOf
from pytest_otel_diag.model.windows import Window
from pytest_otel_diag.shop.records import Batch, LogRecord, Resource, Scope, SpanRecord
from pytest_otel_diag.targets.shop.answers import Answers

RESOURCE, SCOPE = Resource("cart", {}), Scope("")


def spans(*starts_ns: int) -> Batch:
    """Return a batch of spans that start at these instants."""
    return Batch(
        spans=[
            SpanRecord(9_999, at, 50, "0" * 32, "0" * 16, "", "GET", "Server", RESOURCE, SCOPE, {})
            for at in starts_ns
        ]
    )


def logs(*times_ns: int) -> Batch:
    """Return a batch of log lines of these instants."""
    return Batch(logs=[LogRecord(9_999, at, RESOURCE, SCOPE, "INFO", 9, "done", {}) for at in times_ns])


def edges(start_ns: int, end_ns: int) -> CallEdges:
    """Return the question for the calls of a window."""
    return CallEdges(Window(start_ns=start_ns, end_ns=end_ns))


@pytest.fixture
def answers() -> Answers:
    made = Answers()
    made.written(spans(100, 950))
    made.keep(edges(100, 500), ("early",))
    made.keep(edges(100, 900), ("late",))
    return made


def test_telemetry_of_the_window_makes_the_answer_unknown(answers: Answers) -> None:
    answers.written(spans(700, 1_200))
    assert answers.get(edges(100, 900)) is None
    assert answers.get(edges(100, 500)) == ("early",)


def test_windows_are_half_open(answers: Answers) -> None:
    answers.written(spans(500))
    assert answers.get(edges(100, 500)) == ("early",)
    answers.written(spans(499))
    assert answers.get(edges(100, 500)) is None


def test_telemetry_of_another_signal_changes_nothing(answers: Answers) -> None:
    answers.written(logs(300))
    assert answers.get(edges(100, 500)) == ("early",)
    counts = LogCounts(Window(start_ns=100, end_ns=900), 5.0, ("cart",))
    answers.keep(counts, ())
    answers.written(spans(200))
    assert answers.get(counts) == ()
    answers.written(logs(200))
    assert answers.get(counts) is None


def test_the_end_of_a_window_counts_only_up_to_the_newest_telemetry(answers: Answers) -> None:
    answers.keep(edges(100, 2_000), ("all",))
    assert answers.get(edges(100, 951)) == ("all",)
    assert answers.get(edges(100, 5_000)) == ("all",)
    assert answers.get(edges(100, 950)) is None
    answers.written(spans(4_000))
    assert answers.get(edges(100, 5_000)) is None
    assert answers.get(edges(100, 951)) == ("all",)


def test_questions_differ_by_all_they_ask() -> None:
    answers, window = Answers(), Window(start_ns=100, end_ns=900)
    answers.keep(ServiceHealthOf(window, 5.0), ("by 5 s",))
    assert answers.get(ServiceHealthOf(window, 10.0)) is None
    answers.keep(MetricLevels(window, 5.0, ("cart",)), ("cart",))
    assert answers.get(MetricLevels(window, 5.0, ("ad",))) is None
    assert answers.get(edges(100, 900)) is None


def test_a_window_after_all_telemetry_is_as_empty_as_any(answers: Answers) -> None:
    answers.keep(edges(3_000, 4_000), ())
    assert answers.get(edges(3_000, 9_000)) == ()
    answers.written(spans(3_500))
    assert answers.get(edges(3_000, 9_000)) is None
