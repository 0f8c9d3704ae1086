"""Hints after wrong answers: who gets how many, what is counted, and what an analyzer cannot learn."""

from __future__ import annotations

import asyncio
from dataclasses import replace

import pytest

from pytest_otel_diag.errors import AnalyzerError, BudgetExceeded
from pytest_otel_diag.model.diagnosis import Diagnosis, DiagnosticQuery, RootCause, Usage
from pytest_otel_diag.model.scenario import InvestigationStep
from pytest_otel_diag.model.session import Status
from pytest_otel_diag.sessions.investigation.guidance import ON_CONTROLS
from pytest_otel_diag.sessions.settings import WallTime
from tests.sessions.session_fakes import QUICK, FakeTarget, engine, judge, plan, scenario

PATH = (
    InvestigationStep(hint="Compare error rates of all services.", signal="traces"),
    InvestigationStep(hint="Follow the failing calls.", signal="traces", services=("checkout",)),
    InvestigationStep(hint="Look at Charge.", signal="traces", services=("payment",)),
)
WRONG = Diagnosis(detected=True, root_causes=(RootCause(service="checkout"),))
RIGHT = Diagnosis(detected=True, root_causes=(RootCause(service="payment"),))
HEALTHY = Diagnosis(detected=False)


def guided(case=None, hints=2, **changes):
    case = case or scenario("paymentFailure=50%", investigation_path=PATH)
    return case, replace(QUICK, hints=hints, **changes)


async def run(analyzer, case=None, hints=2, judged=judge):
    case, settings = guided(case, hints)
    return await engine(FakeTarget(), analyzer, settings=settings, judge=judged).run(plan(case))


async def replies(attempts, case=None, hints=2, answer=RIGHT):
    """Run a session whose analyzer asks for guidance with each attempt; return replies and result."""
    got = []

    async def asks(investigation):
        for attempt in attempts:
            got.append(await investigation.guidance.next(attempt))
        return answer

    return got, await run(asks, case, hints)


async def test_hints_come_one_by_one_after_wrong_and_missing_answers():
    got, result = await replies([None, WRONG, RIGHT])

    assert got == ["Compare error rates of all services.", "Follow the failing calls.", None]
    assert [(a.cause, a.right, a.hint) for a in result.attempts] == [
        ("", None, "Compare error rates of all services."),
        ("checkout", False, "Follow the failing calls."),
        ("payment", True, ""),
    ]
    assert all(attempt.elapsed_s >= 0 for attempt in result.attempts)
    assert result.diagnosis.usage.human_prompts == result.verdict.human_prompts == 2


async def test_without_the_option_nobody_gets_hints():
    got, result = await replies([None, WRONG, RIGHT], hints=0)

    assert got == [None, None, None]
    assert result.attempts == () and result.verdict.human_prompts == 0


async def test_asking_on_after_the_last_reply_reveals_nothing():
    got, _ = await replies([RIGHT, WRONG, None])
    assert got == [None, None, None]

    got, result = await replies([WRONG, WRONG, WRONG, RIGHT, WRONG])
    assert got[2:] == [None, None, None]
    assert [attempt.right for attempt in result.attempts] == [False, False, False]
    assert result.verdict.human_prompts == 2


async def test_the_time_of_replies_is_not_that_of_the_analyzer():
    now_s = [0.0]

    async def judged(diagnosis, case, facts):
        now_s[0] += 100.0
        return await judge(diagnosis, case, facts)

    async def asks(investigation):
        await investigation.guidance.next(WRONG)
        now_s[0] += 7.0
        await investigation.guidance.next(WRONG)
        return RIGHT

    case, settings = guided(wall=WallTime(monotonic=lambda: now_s[0]))
    result = await engine(FakeTarget(), asks, settings=settings, judge=judged).run(plan(case))

    assert [attempt.elapsed_s for attempt in result.attempts] == [0.0, 7.0]
    assert result.verdict.time_to_diagnosis_s == 7.0


@pytest.mark.parametrize(("claimed", "counted"), [(0, 1), (-5, 1), (1, 1), (4, 4)])
async def test_an_analyzer_cannot_claim_fewer_prompts_than_it_got(claimed, counted):
    answer = RIGHT.model_copy(update={"usage": Usage(human_prompts=claimed)})

    _, result = await replies([WRONG], answer=answer)

    assert result.diagnosis.usage.human_prompts == result.verdict.human_prompts == counted


async def test_calls_at_the_same_time_are_answered_in_turn():
    got = []

    async def floods(investigation):
        got.extend(await asyncio.gather(*(investigation.guidance.next(WRONG) for _ in range(20))))
        return RIGHT

    result = await run(floods)

    assert sorted(filter(None, got)) == sorted(step.hint for step in PATH[:2])
    assert len(result.attempts) == 3 and result.verdict.human_prompts == 2


async def test_hints_of_a_control_are_neutral_and_end_with_the_right_answer():
    got, result = await replies([WRONG, HEALTHY], scenario(), answer=HEALTHY)

    assert got == [ON_CONTROLS[0], None]
    assert result.verdict.human_prompts == 1 and result.verdict.solved
    for hint in ON_CONTROLS:
        assert not {"fault", "culprit", "cause"} & set(hint.lower().replace(",", "").split())


async def test_the_query_of_an_attempt_does_not_run():
    queries = []

    async def judged(diagnosis, case, facts):
        queries.append(diagnosis.query)
        return await judge(diagnosis, case, facts)

    async def asks(investigation):
        query = DiagnosticQuery(sql="SELECT 'attempt'")
        assert await investigation.guidance.next(WRONG.model_copy(update={"query": query}))
        return RIGHT

    await run(asks, judged=judged)

    assert queries == [None, None]


async def test_what_is_no_diagnosis_is_refused_and_costs_no_hint():
    async def asks(investigation):
        with pytest.raises(AnalyzerError, match="returned 'payment'"):
            await investigation.guidance.next("payment")
        with pytest.raises(AnalyzerError, match="not a valid Diagnosis"):
            await investigation.guidance._line.ask("guidance", '{"detected": 7}')
        with pytest.raises(AnalyzerError, match="characters; the limit is"):
            await investigation.guidance._line.ask("guidance", "x" * 5_000_000)
        assert await investigation.guidance.next({"detected": False}) == PATH[0].hint
        return RIGHT

    assert (await run(asks)).verdict.human_prompts == 1


async def test_a_judge_that_fails_gives_no_hint_and_leaves_a_note():
    failures = [RuntimeError("out of order")]

    async def judged(diagnosis, case, facts):
        if failures:
            raise failures.pop()
        return await judge(diagnosis, case, facts)

    async def asks(investigation):
        assert await investigation.guidance.next(WRONG) is None
        return RIGHT

    result = await run(asks, judged=judged)

    assert result.status is Status.SCORED and result.attempts == ()
    assert any("an attempt was not judged" in note and "out of order" in note for note in result.notes)


async def test_attempts_of_an_analyzer_that_fails_are_kept_and_its_handle_closes():
    kept = []

    async def crashes(investigation):
        kept.append(investigation.guidance)
        await investigation.guidance.next(WRONG)
        raise KeyError("x")

    result = await run(crashes)

    assert [attempt.hint for attempt in result.attempts] == [PATH[0].hint]
    with pytest.raises(BudgetExceeded, match="the investigation is over"):
        await kept[0].next(None)


def test_another_answer_drops_the_steps_that_lead_to_the_old_one():
    case = scenario("paymentFailure=50%", investigation_path=PATH)
    other = case.expectation.model_copy(update={"root_causes": ()})
    same = case.expectation.model_copy(update={"paths": (("frontend", "checkout"),)})

    assert case.expecting(other).investigation_path == ()
    assert case.expecting(same).investigation_path == PATH
