"""Runs whose analyzer is a language model behind real HTTP."""

from __future__ import annotations

import json

import pytest

from tests.support.model_policies import competent
from tests.support.scripted_model import Fail, served

SUITE = """
    import pytest

    @pytest.mark.otel_recorded("incidents")
    def test_incident(diagnosis):
        assert diagnosis.result.transcript.entries > 5
"""


def test_a_model_that_does_not_answer_ends_the_run_before_anything_is_touched(pytester, diag):
    pytester.makepyfile(SUITE)
    with served(lambda _: Fail(401, "no such key")) as server:
        refused = diag(analyzer=f"chat:tiny@{server.url}")
        asked = len(server.model.requests)
        collected = diag("--collect-only", analyzer=f"chat:tiny@{server.url}")

    assert refused.ret == pytest.ExitCode.USAGE_ERROR
    refused.stderr.fnmatch_lines(["*preflight of tiny: *no such key*(2 tests)"])
    assert asked == len(server.model.requests) == 1
    assert collected.ret == 0
    assert list(pytester.path.glob("reports/*/run.json")) == []


def test_a_run_is_recorded_then_replayed_and_says_so(pytester, diag):
    pytester.makepyfile(SUITE)
    with served(competent) as server:
        spec = f"chat:tiny@{server.url}#price=1/4"
        live = diag("--otel-diag-llm-tape=record:tape", "--junitxml=junit.xml", analyzer=spec)
    replayed = diag("--otel-diag-llm-tape=replay:tape", analyzer=spec)

    live.assert_outcomes(passed=2)
    replayed.assert_outcomes(passed=2)
    replayed.stdout.fnmatch_lines(
        [
            "otel-diag: forecast: 2 earlier sessions of this analyzer took *",
            "otel-diag: forecast for 2 sessions: * minutes one after another and * USD*",
            "*the model's answers of chat:tiny@* are replayed from *: no provider was asked*",
        ]
    )
    first, second = sorted(pytester.path.glob("reports/*"))
    usage = [
        [json.loads(line)["diagnosis"]["usage"] for line in (run / "sessions.jsonl").read_text().splitlines()]
        for run in (first, second)
    ]
    assert usage[0] == usage[1] and usage[0][0]["cost_usd"] > 0
    assert len(list((second / "transcripts").iterdir())) == 2
    assert "-step-3" in (second / "report.html").read_text()
    assert 'name="otel_diag.prompts"' in (pytester.path / "junit.xml").read_text()
