"""Reading figures in sentences, and numbers with the precision in which they are written."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pytest_otel_diag.scoring.grounding.prose import MOST_CHARS, read_figures
from pytest_otel_diag.scoring.grounding.sentences import sentences
from pytest_otel_diag.scoring.grounding.written import from_value, read_number


def said(text: str) -> list[tuple[str, ...]]:
    """Each figure as its amounts, its window, and what limits it."""
    return [
        (
            " ".join(f"{amount.measure} {amount.written.value:.10g}" for amount in one.amounts),
            one.period,
            *(["part"] if one.part else []),
            *(["compared"] if one.compared else []),
        )
        for one in read_figures(text)
    ]


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("12 of 19 calls failed", [("failed 12 calls 19", "incident")]),
        ("12 out of the 19 Charge requests failed.", [("failed 12 calls 19", "incident")]),
        ("all 1,200 requests failed", [("failed 1200 calls 1200", "incident")]),
        ("12/19 calls failed", [("failed 12 calls 19", "incident")]),
        (
            "12 of 19 calls failed, none of 240 in the baseline",
            [("failed 12 calls 19", "incident"), ("failed 0 calls 240", "baseline")],
        ),
        (
            "12 of 19 calls failed where the error began, 0 of 150 in quiet time",
            [
                ("failed 12 calls 19", "incident", "part"),
                ("failed 0 calls 150", "baseline", "part", "compared"),
            ],
        ),
        (
            "error rate rose from 0.5 % to 37 %",
            [("error_ratio 0.005", "baseline", "compared"), ("error_ratio 0.37", "incident")],
        ),
        (
            "error rate rose to 37% from 0.5%",
            [("error_ratio 0.37", "incident"), ("error_ratio 0.005", "baseline", "compared")],
        ),
        ("a failure ratio of 0.37", [("error_ratio 0.37", "incident")]),
        ("p95 1.2 s against 300 ms", [("p95_ms 1200", "incident"), ("p95_ms 300", "baseline", "compared")]),
        ("p99 went 3.2 → 83 ms", [("p99_ms 3.2", "baseline", "compared"), ("p99_ms 83", "incident")]),
        ("the median is 1.2s (baseline 300ms)", [("p50_ms 1200", "incident"), ("p50_ms 300", "baseline")]),
        ("7 error log lines", [("log_lines 7", "incident", "part")]),
    ],
)
def test_figures_that_are_read(text, expected):
    assert said(text) == expected


@pytest.mark.parametrize(
    "text",
    [
        "12 of 19 calls succeeded",
        "12 of 19 pods failed",
        "no calls failed",
        "12-19 % of calls failed",
        "0,5 % of calls failed",
        "the error rate rose by 37 %",
        "37 % of errors come from cart",
        "37 % more errors",
        "cpu is at 37 %, memory at 80 %",
        "the confidence is 80 % that payment fails",
        "latency is 300 ms",
        "p95 grew by 300 ms",
        "HTTP 500 errors on 10.0.0.1:8080, version 1.2.3",
        "2026-01-01T10:03:05Z: failed",
        "19 failed calls per minute",
        "9" * 5000 + " of 19 calls failed",
    ],
)
def test_what_may_mean_something_else_is_no_claim(text):
    assert said(text) == []


@pytest.mark.parametrize(
    ("text", "value", "agrees"),
    [
        ("37", 37.4, True),
        ("37", 37.6, False),
        ("0.5", 0.54, True),
        ("0.50", 0.54, False),
        ("300", 300.4, True),
        ("300", 340.0, None),
        ("300", 360.0, False),
    ],
)
def test_a_number_agrees_within_its_rounding(text, value, agrees):
    number = read_number(text)
    assert number is not None
    assert number.judged(value, value) is agrees


@pytest.mark.parametrize(
    ("text", "share", "agrees"),
    [
        ("over 30 % of calls failed", 0.35, True),
        ("over 30 % of calls failed", 0.25, False),
        ("less than 30 % of calls failed", 0.25, True),
        ("less than 30 % of calls failed", 0.35, False),
        ("at least 0 % of calls failed", 0.25, None),
        ("less than 100 % of calls failed", 0.25, None),
        ("over 30 % of calls failed", 0.90, None),
        ("about 40 % of calls failed", 0.37, True),
        ("about 40 % of calls failed", 0.10, False),
    ],
)
def test_words_before_a_number_bound_it(text, share, agrees):
    (figure,) = read_figures(text)
    assert figure.amounts[0].written.judged(share, share) is agrees


@given(
    failed=st.integers(0, 10**6), more=st.integers(0, 10**6), of=st.sampled_from([" of ", "/", " out of "])
)
@settings(max_examples=50)
def test_pairs_are_read_as_they_are_written(failed, more, of):
    (figure,) = read_figures(f"{failed:,}{of}{failed + more:,} calls failed")
    assert [amount.written.value for amount in figure.amounts] == [failed, failed + more]
    assert all(amount.written.judged(amount.written.value, amount.written.value) for amount in figure.amounts)


@given(true=st.integers(0, 10**6), of=st.integers(1, 10**6), decimals=st.integers(0, 3))
@settings(max_examples=100)
def test_a_rounded_share_never_contradicts_the_true_one(true, of, decimals):
    share = min(true, of) / of
    (figure,) = read_figures(f"error rate rose to {100 * share:.{decimals}f} %")
    assert figure.amounts[0].written.judged(share, share) is not False


@given(true_ms=st.floats(0.001, 1e6), digits=st.integers(1, 6))
@settings(max_examples=100)
def test_a_rounded_duration_never_contradicts_the_true_one(true_ms, digits):
    text = f"{true_ms:.{digits}g}"
    if "e" not in text:
        for figure in read_figures(f"p95 was {text} ms"):
            assert figure.amounts[0].written.judged(true_ms, true_ms) is not False


@given(st.floats(allow_nan=False, allow_infinity=False))
@settings(max_examples=100)
def test_a_structured_number_agrees_with_itself(value):
    assert from_value(value).judged(value, value) is not False


@given(st.text(alphabet="12 .,%/()→-of failed calls p95 ms error rate to from\n;:'\u00e9", max_size=200))
@settings(max_examples=200)
def test_any_text_is_read(text):
    for figure in read_figures(text):
        assert figure.text
        assert figure.text in text
        assert 0 <= figure.at < len(text)


@pytest.mark.parametrize(
    "piece", ["1 of ", "p95 ", "1.,", "p95 1 ms to ", "(", "12 of 19 calls failed ", "'\\\n"]
)
def test_the_number_of_words_looked_at_is_limited_by_the_text(piece):
    text = piece * (1_000_000 // len(piece))
    tokens = sum(clause.high - clause.low for clause in sentences(text[:MOST_CHARS]))
    assert tokens <= MOST_CHARS
    assert sum(1 for _ in read_figures(text)) <= MOST_CHARS
