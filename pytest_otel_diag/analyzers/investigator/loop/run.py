"""One investigation by a model: turns, results of tools, repairs, hints, and the end."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from pytest_otel_diag.analyzers.agents.answers import Unparsed, read_answer
from pytest_otel_diag.analyzers.agents.question import window_texts
from pytest_otel_diag.analyzers.investigator.chat_model import (
    ChatModel,
    ChatReply,
    ChatRequest,
    ContextOverflow,
    ModelUnavailable,
    ToolsUnsupported,
    TransientFailure,
)
from pytest_otel_diag.analyzers.investigator.loop.conversation import Conversation
from pytest_otel_diag.analyzers.investigator.loop.hypotheses import HypothesisLog
from pytest_otel_diag.analyzers.investigator.loop.limits import (
    LAST_TURN_TOKENS,
    End,
    Exhausted,
    Limits,
    Meter,
)
from pytest_otel_diag.analyzers.investigator.loop.protocols import (
    MOST_CALLS,
    ParsedCall,
    TextProtocol,
    ToolProtocol,
    spoken,
    tool_list,
)
from pytest_otel_diag.analyzers.investigator.loop.record import Record
from pytest_otel_diag.analyzers.investigator.loop.review import Repair, Reviewer, Unfinished
from pytest_otel_diag.analyzers.investigator.loop.toolkit import SUBMIT, Result, Toolkit
from pytest_otel_diag.analyzers.investigator.model_options import ModelOptions
from pytest_otel_diag.analyzers.investigator.prompts import Prompts
from pytest_otel_diag.analyzers.investigator.retries import RetryPolicy, complete
from pytest_otel_diag.errors import AnalyzerError, BudgetExceeded
from pytest_otel_diag.model.diagnosis import Diagnosis
from pytest_otel_diag.ports import Investigation
from pytest_otel_diag.tools import Caps, Tool


@dataclass(frozen=True)
class Setup:
    """What all investigations of one analyzer share."""

    model: ChatModel
    options: ModelOptions
    limits: Limits
    prompts: Prompts
    policy: RetryPolicy
    caps: Caps
    monotonic: Callable[[], float]


@dataclass(frozen=True)
class Outcome:
    """How an attempt ended: the diagnosis, None where there is none, and why."""

    end: End
    diagnosis: Diagnosis | None = None
    reason: str = ""


class InvestigationRun:
    """One investigation; ``protocol`` is the one that turned out to work."""

    def __init__(self, setup: Setup, protocol: ToolProtocol, investigation: Investigation) -> None:
        self.protocol = protocol
        self._setup = setup
        self._investigation = investigation
        self._record = Record(investigation.transcript)
        self._log = HypothesisLog(self._record.hypothesis)
        self._kit = Toolkit(investigation, self._log, setup.caps)
        self._meter = Meter(setup.model, investigation.budget, setup.limits, setup.monotonic)
        self._reviewer = Reviewer(investigation.telemetry, setup.prompts)
        self._talk = Conversation()
        self._rng = random.Random(investigation.seed)  # noqa: S311 - spreads retries
        self._remarks: list[str] = []
        self._results_read = 0
        self._stated: Diagnosis | None = None

    async def run(self) -> Diagnosis:
        """Return the diagnosis.

        Raises AnalyzerError or BudgetExceeded without an answer, and what the model raises.
        """
        await self._open()
        while True:
            outcome = self._standing(await self._attempt())
            await self._record.note(_ended_by(outcome))
            hint = await self._hint(outcome)
            if hint is None:
                return self._closed(outcome)
            await self._say("user", hint)

    async def _open(self) -> None:
        system = self._setup.prompts.render("system")
        if isinstance(self.protocol, TextProtocol):
            tools = tool_list(self._kit.tools)
            system = f"{system}\n\n{self._setup.prompts.render('text_protocol', tools=tools)}"
        await self._say("system", system)
        await self._say("user", self._setup.prompts.render("task", **window_texts(self._investigation)))

    async def _attempt(self) -> Outcome:
        """Let the model work until it submits, or a budget ends."""
        self._reviewer = Reviewer(self._investigation.telemetry, self._setup.prompts)
        nudged = False
        while True:
            try:
                reply = await self._ask(self._kit.tools)
                calls = self.protocol.calls(reply)
                if calls:
                    nudged = False
                    diagnosis = await self._run_calls(calls, last=False)
                    if diagnosis is not None:
                        return Outcome(End.SUBMITTED, diagnosis)
                    continue
                return Outcome(End.TEXT, await self._read(reply, trusted=nudged))
            except Exhausted as exhausted:
                return await self._last_turn(exhausted)
            except Repair as repair:  # the reviewer bounds how many there are
                nudged = True
                await self._say("user", str(repair))
            except Unfinished as unfinished:
                if nudged:
                    return Outcome(End.NO_ANSWER, reason=str(unfinished))
                nudged = True
                self._meter.repaired()
                await self._say("user", self._setup.prompts.render("nudge", problem=str(unfinished)))

    def _standing(self, outcome: Outcome) -> Outcome:
        """Return the outcome; without a diagnosis, that with the last one the model has stated before."""
        self._stated = outcome.diagnosis or self._reviewer.standing or self._stated
        return replace(outcome, diagnosis=self._stated)

    async def _read(self, reply: ChatReply, *, trusted: bool, last: bool = False) -> Diagnosis:
        """Return the diagnosis in a turn without tool calls; raises Unfinished where there is none.

        A line of prose counts only once the model has read a result, or was asked for its answer.
        """
        cut = "; it was cut at the limit of output tokens" if reply.finish == "length" else ""
        if not reply.content.strip():
            raise Unfinished(f"it was empty{cut}")
        try:
            answer = read_answer(reply.content)
        except Unparsed as error:
            raise Unfinished(f"{error}{cut}") from error
        if not (trusted or self._results_read or "{" in reply.content):
            raise Unfinished("no result of a tool was read yet")
        return await self._reviewed(answer, last=last)

    async def _run_calls(self, calls: Sequence[ParsedCall], *, last: bool) -> Diagnosis | None:
        """Run the calls of one turn in order; return the diagnosis that was accepted, if any.

        Raises Exhausted when the budget of queries ended.
        """
        results: list[tuple[ParsedCall, str]] = []
        accepted: Diagnosis | None = None
        ended = ""
        for number, call in enumerate(calls):
            await self._record.call(call)
            result = await self._result(call, number)
            if call.name == SUBMIT and not result.error and self._kit.submitted is not None:
                try:
                    accepted = await self._reviewed(self._kit.submitted, last=last)
                except Repair as repair:
                    accepted, result = None, Result(str(repair), error=True)
            ended = result.text if result.out_of_queries else ended
            await self._record.result(call, result.text, error=result.error)
            results.append((call, result.text))
            self._results_read += not result.error
        self._talk.add_results(self.protocol.results(results))
        if ended and accepted is None:
            raise Exhausted(
                End.QUERIES, f"the budget of {self._investigation.budget.queries} queries is used up"
            )
        return accepted

    async def _result(self, call: ParsedCall, number: int) -> Result:
        if number >= MOST_CALLS:
            return Result(f"not run: a turn may make {MOST_CALLS} calls", error=True)
        left_s = self._meter.left_s(last=call.name == SUBMIT)
        try:
            async with asyncio.timeout(max(left_s, 0.0)):
                return await self._kit.call(call)
        except TimeoutError:
            return Result("the call was stopped: the time of the investigation is used up", error=True)

    async def _reviewed(self, answer: Mapping[str, Any], *, last: bool) -> Diagnosis:
        """Return the diagnosis in an answer; raises Repair with what the model has to correct."""
        try:
            diagnosis, remark = await self._reviewer.review(answer, last=last)
        except Repair as repair:
            self._meter.repaired()
            await self._record.note(f"repair asked for: {repair}")
            raise
        if remark:
            await self._remark(remark)
        return diagnosis

    async def _last_turn(self, exhausted: Exhausted) -> Outcome:
        """Let the model submit what it has, if what is left of the budgets allows a turn without tools."""
        await self._record.note(f"last turn: {exhausted}")
        await self._say("user", self._setup.prompts.render("last_turn", reason=str(exhausted)))
        try:
            reply = await self._ask(self._kit.submit_only, last=True)
            calls = tuple(call for call in self.protocol.calls(reply) if call.name == SUBMIT)
            diagnosis = await (
                self._run_calls(calls, last=True) if calls else self._read(reply, trusted=True, last=True)
            )
        except Exhausted as second:
            return Outcome(exhausted.end, reason=f"{exhausted}; no last turn: {second}")
        except Unfinished as unfinished:
            return Outcome(exhausted.end, reason=f"{exhausted}; the last turn has no answer: {unfinished}")
        return Outcome(exhausted.end, diagnosis, str(exhausted))

    async def _ask(self, tools: Sequence[Tool], *, last: bool = False) -> ChatReply:
        """Return the model's next turn; raises Exhausted, and AnalyzerError for a refusal."""
        while True:
            request = self._request(tools, last=last)
            try:
                await self._fit(request)
                request = self._request(tools, last=last)
                reply = spoken(await self._complete(request, last=last))
                break
            except ContextOverflow as overflow:
                await self._reduce(str(overflow))
            except Exhausted as exhausted:
                if not (last and exhausted.end in {End.TOKENS, End.COST}):
                    raise
                await self._reduce(str(exhausted), exhausted.end)
            except ToolsUnsupported as refused:
                await self._without_native_tools(refused)
        if cut := self._talk.counted(reply.usage, request):
            await self._remark(cut)
        if not self._meter.used.steps and not self._meter.price_known:
            await self._record.note(
                "the price of the model is not known: the budget of cost does not limit it"
            )
        self._meter.replied(reply)
        await self._record.reply(reply, self._meter)
        if reply.refusal or (reply.finish == "content_filter" and not reply.content):
            raise AnalyzerError(
                f"refused: {reply.refusal or 'the filter of the provider stopped the answer'}"
            )
        self._talk.add(self.protocol.turn(reply))
        self._talk.grown()
        return reply

    def _request(self, tools: Sequence[Tool], *, last: bool) -> ChatRequest:
        options = self._setup.options
        offered = self.protocol.offered(tools)
        most = options.max_output_tokens
        if options.context_tokens is not None:
            most = min(most, max(options.context_tokens // 4, 1))
        return ChatRequest(
            messages=self._talk.messages,
            tools=offered,
            max_output_tokens=min(most, LAST_TURN_TOKENS) if last else most,
            temperature=options.temperature,
            seed=options.seed,
            timeout_s=options.timeout_s,
            most_input_tokens=self._talk.tokens_bound(offered),
        )

    async def _complete(self, request: ChatRequest, *, last: bool) -> ChatReply:
        async def after(failure: TransientFailure, asked: ChatRequest, wait_s: float) -> None:
            await self._record.note(f"the model does not answer: {failure}; next attempt in {wait_s:.3g} s")
            self._meter.failed(failure, asked, wait_s, cut=asked.timeout_s < request.timeout_s)

        try:
            # Bounds what attempts do not: waits for another process whose provider asked for one.
            async with asyncio.timeout(max(self._meter.left_s(last=last), 0.0)):
                return await complete(
                    self._setup.model,
                    request,
                    policy=self._setup.policy,
                    rng=self._rng,
                    before=lambda one: self._meter.before(one, last=last),
                    after=after,
                )
        except TimeoutError:
            self._meter.stopped(request)
            raise self._meter.out_of_time() from None

    async def _fit(self, request: ChatRequest) -> None:
        """Shorten results of tools while a context of known size would overflow."""
        context = self._setup.options.context_tokens
        while context is not None:
            estimate = self._talk.tokens_estimate(request.tools)
            if estimate + request.max_output_tokens <= context:
                return
            try:
                await self._reduce(f"about {estimate:,} of {context:,} tokens")
            except Exhausted:
                return  # the estimate may be wrong: let the provider decide

    async def _reduce(self, why: str, end: End = End.CONTEXT) -> None:
        """Shorten results of tools; raises Exhausted when nothing is left to shorten."""
        reduction = self._talk.reduce()
        if reduction is None:
            raise Exhausted(end, f"the messages do not fit: {why}")
        remark = f"{reduction.results} results of tools were shortened by {reduction.characters:,} characters"
        self._remarks.append(remark)
        await self._record.note(f"{remark}: {why}")

    async def _without_native_tools(self, refused: ToolsUnsupported) -> None:
        if isinstance(self.protocol, TextProtocol) or self._meter.used.steps:
            raise ModelUnavailable(str(refused)) from refused
        await self._record.note(f"text protocol, since the model takes no tools: {refused}")
        self.protocol = TextProtocol()
        self._talk = Conversation()
        await self._open()

    async def _remark(self, text: str) -> None:
        """Record a remark that the summary of the diagnosis repeats."""
        self._remarks.append(text)
        await self._record.note(text)

    async def _say(self, role: str, content: str) -> None:
        self._talk.say(role, content)
        await self._record.message(role, content)

    async def _hint(self, outcome: Outcome) -> str | None:
        """Return the next hint; none is asked for where no budget is left to use it."""
        if outcome.end not in {End.SUBMITTED, End.TEXT, End.NO_ANSWER}:
            return None
        return await self._investigation.guidance.next(
            None if outcome.diagnosis is None else self._complete_diagnosis(outcome)
        )

    def _closed(self, outcome: Outcome) -> Diagnosis:
        if outcome.diagnosis is not None:
            return self._complete_diagnosis(outcome)
        if outcome.end is End.NO_ANSWER:
            raise AnalyzerError(f"unparsed: {outcome.reason.removeprefix('unparsed: ')}")
        raise BudgetExceeded(_ended_by(outcome))

    def _complete_diagnosis(self, outcome: Outcome) -> Diagnosis:
        """Return the diagnosis with what the loop knows: usage, recorded hypotheses, remarks."""
        diagnosis = outcome.diagnosis
        assert diagnosis is not None
        ended = () if outcome.end in {End.SUBMITTED, End.TEXT} else (_ended_by(outcome),)
        remarks = (f"({remark})" for remark in (*ended, *dict.fromkeys(self._remarks)))
        return diagnosis.model_copy(
            update={
                "usage": self._meter.used,
                "hypotheses": self._log.hypotheses() or diagnosis.hypotheses,
                "summary": " ".join(filter(None, (diagnosis.summary, *remarks))),
            }
        )


def _ended_by(outcome: Outcome) -> str:
    return f"ended by: {outcome.end}" + (f" ({outcome.reason})" if outcome.reason else "")
