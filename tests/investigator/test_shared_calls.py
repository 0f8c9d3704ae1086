"""Money, waits and preflights that the processes of a run share."""

from __future__ import annotations

import asyncio
import dataclasses
import subprocess
import sys

import pytest

from pytest_otel_diag.analyzers.investigator.chat_model import (
    ChatReply,
    ChatRequest,
    ModelUnavailable,
    ReplyUsage,
    ToolsUnsupported,
    TransientFailure,
)
from pytest_otel_diag.analyzers.investigator.shared_calls import PreflightOutcome, SharedCalls
from pytest_otel_diag.analyzers.investigator.shared_model import SharedModel
from pytest_otel_diag.errors import ConfigurationError, SpendingLimitReached

ASK = ChatRequest(messages=({"role": "user", "content": "why?"},), timeout_s=30.0)


class Priced:
    """A model whose calls cost at most one dollar, and what the test says."""

    name = "tiny"
    supports_tools = True

    def __init__(self, *answers, worst=1.0):
        self.answers = list(answers)
        self.worst = worst
        self.asked = 0

    def describe(self):
        return {"model": "tiny"}

    def worst_case_cost_usd(self, request):
        return self.worst

    async def complete(self, request):
        self.asked += 1
        answer = self.answers.pop(0) if self.answers else 0.25
        if isinstance(answer, BaseException):
            raise answer
        return ChatReply(message={"role": "assistant"}, usage=ReplyUsage(cost_usd=answer))

    async def close(self):
        pass


class Time:
    def __init__(self):
        self.now = 1000.0
        self.slept = []

    async def sleep(self, seconds):
        self.slept.append(seconds)
        self.now += seconds


def shared(inner, calls=None, *, most=None, time=None):
    time = time or Time()
    calls = calls or SharedCalls(None)
    return SharedModel(inner, calls, most_usd=most, wall=lambda: time.now, sleep=time.sleep)


async def test_a_call_that_might_exceed_the_limit_is_not_made(tmp_path):
    calls = SharedCalls(tmp_path)
    inner = Priced()
    model = shared(inner, calls, most=1.6)

    for _ in range(3):
        await model.complete(ASK)
    with pytest.raises(SpendingLimitReached, match=r"max-cost=1.6: 0.75 USD .* may cost 1 USD"):
        await model.complete(ASK)

    assert inner.asked == 3
    assert SharedCalls(tmp_path).spent_usd() == pytest.approx(0.75)


@pytest.mark.parametrize(
    ("answer", "spent"),
    [
        (0.25, 0.25),
        (None, 1.0),
        (TransientFailure("429: slow down"), 0.0),
        (TransientFailure("no answer", billable=True), 1.0),
        (ToolsUnsupported("no tools"), 0.0),
        (asyncio.CancelledError(), 1.0),
    ],
)
async def test_what_is_paid_for_an_attempt(answer, spent):
    calls = SharedCalls(None)
    model = shared(Priced(answer), calls)

    if isinstance(answer, BaseException):
        with pytest.raises(type(answer)):
            await model.complete(ASK)
    else:
        await model.complete(ASK)

    assert calls.spent_usd() == spent


async def test_a_provider_that_asks_to_wait_is_left_alone_by_every_process(tmp_path):
    time = Time()
    limited = TransientFailure("429", retry_after_s=20, rate_limited=True)
    first = shared(Priced(limited), SharedCalls(tmp_path), time=time)
    other = shared(Priced(), SharedCalls(tmp_path), time=time)

    with pytest.raises(TransientFailure):
        await first.complete(ASK)
    await other.complete(ASK)

    (slept,) = time.slept
    assert 20 <= slept <= 21

    with pytest.raises(TransientFailure):
        await shared(Priced(limited), SharedCalls(tmp_path), time=time).complete(ASK)
    impatient = dataclasses.replace(ASK, timeout_s=5.0)
    with pytest.raises(TransientFailure, match="asked this run to wait 20 s") as caught:
        await other.complete(impatient)
    assert caught.value.retry_after_s == pytest.approx(20)


async def test_one_preflight_a_run(tmp_path):
    one, two = Priced(), Priced()

    assert await shared(one, SharedCalls(tmp_path)).prepare() == ()
    assert await shared(two, SharedCalls(tmp_path)).prepare() == ()
    assert (one.asked, two.asked) == (1, 0)


@pytest.mark.parametrize("error", [ConfigurationError("set OPENAI_API_KEY"), ModelUnavailable("503: gone")])
async def test_a_preflight_that_fails_is_not_repeated(tmp_path, error):
    two = Priced()

    for inner in (Priced(error), two):
        with pytest.raises(type(error), match=f"preflight of tiny: {error}"):
            await shared(inner, SharedCalls(tmp_path)).prepare()

    assert two.asked == 0


async def test_a_preflight_of_another_process_is_waited_for(tmp_path):
    calls, time, inner = SharedCalls(tmp_path), Time(), Priced()
    assert calls.begin_preflight("model=tiny", time.now, 120) is None

    async def sleep(seconds):
        time.slept.append(seconds)
        if len(time.slept) == 3:
            calls.end_preflight("model=tiny", PreflightOutcome("ok"))

    time.sleep = sleep
    await shared(inner, SharedCalls(tmp_path), time=time).prepare()

    assert (inner.asked, len(time.slept)) == (0, 3)


async def test_a_preflight_of_a_process_that_is_gone_is_made_again(tmp_path):
    calls, time, inner = SharedCalls(tmp_path), Time(), Priced()
    calls.begin_preflight("model=tiny", time.now - 1000, 120)

    await shared(inner, calls, time=time).prepare()

    assert inner.asked == 1


async def test_a_model_without_tools_passes_its_preflight():
    assert await shared(Priced(ToolsUnsupported("no tools"))).prepare() == ()


async def test_a_price_that_is_not_known():
    (remark,) = await shared(Priced(worst=None)).prepare()
    assert "the price of tiny is not known" in remark

    with pytest.raises(ConfigurationError, match=r"max-cost cannot be kept.*tiny#price=IN/OUT"):
        await shared(Priced(worst=None), most=5.0).prepare()


async def test_a_run_without_money_begins_no_session():
    calls = SharedCalls(None)
    calls.settle(calls.reserve("tiny", 2.0, None), 2.0)

    with pytest.raises(SpendingLimitReached, match=r"2 USD .* first call of a session may cost 1 USD"):
        await shared(Priced(), calls, most=2.5).prepare()


def test_processes_never_spend_more_than_the_limit_together(tmp_path):
    code = (
        "import asyncio, pathlib, sys\n"
        "from tests.investigator.test_shared_calls import *\n"
        "calls = SharedCalls(pathlib.Path(sys.argv[1]))\n"
        "model = SharedModel(Priced(*[0.3] * 100), calls, most_usd=5.0)\n"
        "async def main():\n"
        "    made = 0\n"
        "    try:\n"
        "        while True:\n"
        "            await model.complete(ASK)\n"
        "            made += 1\n"
        "    except SpendingLimitReached:\n"
        "        print(made)\n"
        "asyncio.run(main())\n"
    )
    workers = [
        subprocess.Popen([sys.executable, "-c", code, str(tmp_path)], stdout=subprocess.PIPE)
        for _ in range(3)
    ]
    made = [int(worker.communicate()[0]) for worker in workers]

    # Each was refused while others may have had reservations of a dollar open.
    assert sum(made) * 0.3 == pytest.approx(SharedCalls(tmp_path).spent_usd())
    assert 5.0 - 1.0 - 2 * 1.0 < sum(made) * 0.3 <= 5.0


def test_a_killed_process_keeps_its_reservation(tmp_path):
    calls = SharedCalls(tmp_path)
    calls.reserve("tiny", 1.5, 2.0)

    with pytest.raises(SpendingLimitReached):
        SharedCalls(tmp_path).reserve("tiny", 1.0, 2.0)
