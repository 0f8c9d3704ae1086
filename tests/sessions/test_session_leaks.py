"""The leak audit of a session: rows that name the flag, queries that read it, and the three policies."""

from __future__ import annotations

from dataclasses import replace

import pytest

from pytest_otel_diag.errors import QueryFailed
from pytest_otel_diag.model.session import Blame, LeakAudit, Status
from pytest_otel_diag.model.telemetry import CallEdge, FlagMention, Table
from pytest_otel_diag.sessions.investigation.leaks import FlagReading, injected_flags
from tests.sessions.session_fakes import QUICK, FakeTarget, blames_payment, engine, plan, scenario

FINE = {"detected": True, "root_causes": [{"service": "payment"}]}
MENTIONS = (FlagMention(kind="flag_events", rows=3), FlagMention(kind="flag_texts", rows=1))


async def asks(investigation):
    telemetry = investigation.telemetry
    await telemetry.query("SELECT SpanAttributes['feature_flag.key'] FROM otel_traces")
    await telemetry.query("SELECT 1 WHERE {name:String} = 'x'", {"name": "PaymentFailure"})
    await telemetry.query("SELECT Body FROM otel_logs WHERE ServiceName != 'flagd'")
    return FINE


async def run(target, analyzer=asks, policy="keep", **changes):
    return await engine(target, analyzer, settings=replace(QUICK, leaks=policy)).run(plan(**changes))


async def test_rows_and_queries_that_name_the_flag_are_recorded():
    target = FakeTarget(mentions=MENTIONS)
    query, answers = target.telemetry.query, iter(["fine", "fine", "the paymentFailure flag is on"])

    async def answer(sql, parameters=None, limits=None):
        text = next(answers, None)
        return await query(sql, parameters, limits) if text is None else Table(("Body",), (["x", text],))

    target.telemetry.query = answer
    result = await run(target)

    assert result.status is Status.SCORED
    assert result.leaks == LeakAudit(
        rows={"flag_events": 3, "flag_texts": 1}, queries_asked=2, queries_answered=1
    )
    assert result.leaks.read and result.leaks.described == "4 rows (3 x events, 1 x texts)"
    assert [one.names_flag for one in result.queries] == [("statement",), ("statement",), ("answer",)]
    assert target.trouble.passed["telemetry.flag_mentions"] == 1


@pytest.mark.parametrize(
    ("case", "analyzer"), [(scenario(), asks), (scenario("paymentFailure=50%"), lambda _: FINE)]
)
async def test_nothing_is_asked_for_a_control_or_an_analyzer_that_reads_nothing(case, analyzer):
    target = FakeTarget(mentions=MENTIONS)
    result = await run(target, analyzer, case=case)

    assert result.status is Status.SCORED and result.leaks is None
    assert target.trouble.passed["telemetry.flag_mentions"] == 0
    assert all(one.names_flag == () for one in result.queries)


async def test_an_audit_that_fails_is_a_note():
    target = FakeTarget()
    target.trouble.raising("telemetry.flag_mentions", QueryFailed("no such column"))
    result = await run(target, blames_payment)

    assert result.status is Status.SCORED and result.leaks is None
    assert "whether telemetry names the flag is unknown: no such column" in result.notes


async def test_refuse_scores_no_session_whose_telemetry_names_the_flag():
    result = await run(FakeTarget(mentions=MENTIONS), policy="refuse")

    assert result.status is Status.INVALID and result.diagnosis is None
    assert "telemetry names the injected flag in 4 rows (3 x events, 1 x texts)" in result.reason
    assert result.leaks is not None and result.leaks.policy == "refuse"

    clean = await run(FakeTarget(), blames_payment, policy="refuse")
    assert clean.status is Status.SCORED
    assert clean.leaks == LeakAudit(policy="refuse") and clean.leaks.described == "no rows"


async def test_refuse_does_not_score_what_it_cannot_audit():
    target = FakeTarget()
    target.trouble.raising("telemetry.flag_mentions", QueryFailed("no such column"))
    result = await run(target, policy="refuse")

    assert (result.status, result.blame) == (Status.ERROR, Blame.INFRASTRUCTURE)
    assert "whether telemetry names the flag is unknown" in result.reason


async def test_redact_needs_a_target_that_redacts():
    refused = await run(FakeTarget(), policy="redact")
    assert (refused.status, refused.blame) == (Status.ERROR, Blame.USER)
    assert "this target cannot hide evaluations of flags" in refused.reason

    allowed = await run(FakeTarget(redacted=True), blames_payment, policy="redact")
    assert allowed.status is Status.SCORED
    assert allowed.leaks == LeakAudit(policy="redact")


@pytest.mark.parametrize(
    ("result", "named"),
    [
        (Table(("a", "b"), ([1, 2], ["x", "PAYMENTFAILURE"])), True),
        (Table(("a",), ([None, {"k": ["paymentFailure"]}],)), True),
        (Table(("a",), ([None, "x", None],)), False),
        (Table(("a",), ([None],)), False),
        (Table(("a",), ([1.5],)), False),
        (Table((), ()), False),
        ([CallEdge(caller="paymentFailure", callee="b", calls=1, errors=0, p50_ms=1, p99_ms=1)], True),
        ([CallEdge(caller="a", callee="b", calls=1, errors=0, p50_ms=1, p99_ms=1)], False),
        (7, False),
    ],
)
def test_answers_that_name_the_flag(result, named):
    assert FlagReading(["paymentFailure"]).answer(result) is named
    assert not FlagReading([""]).answer(result)


def test_the_flags_of_a_recorded_incident_are_those_of_its_expectation_too():
    case = scenario("paymentFailure=50%")
    expectation = case.expectation.model_copy(update={"flags": ("adFailure",)})
    assert injected_flags(case.model_copy(update={"expectation": expectation})) == (
        "paymentFailure",
        "adFailure",
    )
