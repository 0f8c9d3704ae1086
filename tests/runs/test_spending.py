"""Money of a run whose analyzer reports its cost after each session."""

from __future__ import annotations

from dataclasses import replace

import pytest

from pytest_otel_diag.config.settings import Settings
from pytest_otel_diag.errors import SpendingLimitReached
from pytest_otel_diag.model.diagnosis import Diagnosis, Usage
from pytest_otel_diag.model.session import SessionResult, Status
from pytest_otel_diag.runs.runner import Runner
from pytest_otel_diag.runs.spending import RunSpending
from pytest_otel_diag.sessions.investigation.loading import as_analyzer
from tests.scoring.samples import faulty, session
from tests.sessions.session_fakes import QUICK, FakeTarget, engine, plan, scenario


def ended(cost: float) -> SessionResult:
    answer = Diagnosis(detected=True, usage=Usage(cost_usd=cost))
    one = session(faulty("a"), status="error", blame="analyzer", reason="x")
    return one.model_copy(update={"diagnosis": answer})


def test_no_session_begins_that_may_exceed_what_is_left(tmp_path):
    spending = RunSpending(tmp_path, 1.0)
    check = spending.check_for(object())
    assert check is not None

    check()
    spending.add(ended(0.4))
    check()
    spending.add(ended(0.3))
    with pytest.raises(SpendingLimitReached, match=r"0.7 USD .* has cost up to 0.4 USD"):
        check()


def test_processes_count_together(tmp_path):
    RunSpending(tmp_path, 1.0).add(ended(1.2))

    check = RunSpending(tmp_path, 1.0).check_for(object())

    with pytest.raises(SpendingLimitReached):
        check()


def test_sessions_without_cost_are_free(tmp_path):
    spending = RunSpending(tmp_path, 0.1)
    for _ in range(3):
        spending.add(ended(0.0))
        spending.check_for(object())()


async def test_a_session_that_cannot_be_paid_is_skipped_before_anything_is_touched():
    def refuse():
        raise SpendingLimitReached("--otel-diag-max-cost=1: spent")

    target = FakeTarget()
    result = await engine(target, settings=replace(QUICK, affordable=refuse)).run(plan())

    assert (result.status, result.reason) == (Status.SKIPPED, "--otel-diag-max-cost=1: spent")
    assert target.opened == 0


async def test_a_runner_counts_what_its_sessions_cost(tmp_path):
    async def costs(investigation):
        return Diagnosis(detected=False, usage=Usage(cost_usd=0.6))

    settings = Settings(max_cost=1.0)
    with Runner(
        settings, target=FakeTarget(), analyzers={"costs": as_analyzer(costs)}, folder=tmp_path
    ) as one:
        prepared = one.prepare(scenario("paymentFailure=50%"))
        results = [await one.run(prepared, analyzer="costs") for _ in range(2)]

    assert results[0].status is not Status.SKIPPED and results[1].status is Status.SKIPPED
