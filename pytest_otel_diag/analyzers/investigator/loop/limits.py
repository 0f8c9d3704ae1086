"""Stops an investigation before a budget is exceeded, and counts what it used."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from dataclasses import dataclass
from enum import StrEnum

from pytest_otel_diag.analyzers.investigator.chat_model import (
    ChatModel,
    ChatReply,
    ChatRequest,
    ModelUnavailable,
    TransientFailure,
)
from pytest_otel_diag.model.diagnosis import Usage
from pytest_otel_diag.model.session import Budget

LAST_TURN_TOKENS = 2_000
"""Output tokens that are kept for the last turn, in which the model submits what it has."""

_LAST_TURN_RATIO, _LAST_TURN_MOST_S = 0.15, 60.0
_MARGIN_RATIO, _MARGIN_MOST_S = 0.02, 2.0
"""Time that is left for the session: it counts from a moment before the analyzer's first statement."""


class End(StrEnum):
    """What ended the work of the model."""

    SUBMITTED = "submitted"
    TEXT = "answer as text"
    NO_ANSWER = "no answer"
    STEPS = "steps"
    QUERIES = "queries"
    TOKENS = "tokens"
    COST = "cost"
    TIME = "time"
    CONTEXT = "context"


class Exhausted(Exception):
    """A budget allows no further step; ``end`` is its name, the text says how much was used."""

    def __init__(self, end: End, reason: str) -> None:
        super().__init__(reason)
        self.end = end


@dataclass(frozen=True)
class Limits:
    """Limits of one investigation beside the session's budget of time, queries and cost.

    ``steps`` are calls of the model, ``tokens`` those of all calls, input and output together.
    """

    steps: int = 40
    tokens: int = 1_000_000


class Meter:
    """Counts steps, tokens, cost and time, and refuses a call whose worst case exceeds what is left.

    Before every call but the last, it keeps back what a last turn with the same messages needs.
    """

    def __init__(
        self, model: ChatModel, budget: Budget, limits: Limits, monotonic: Callable[[], float]
    ) -> None:
        self._model, self._budget, self._limits, self._monotonic = model, budget, limits, monotonic
        self._started_s = monotonic()
        self._last_turn_s = min(_LAST_TURN_MOST_S, _LAST_TURN_RATIO * budget.time_s)
        self._failed: TransientFailure | None = None
        self.used = Usage(model=model.name)
        self.price_known = True

    def left_s(self, *, last: bool = False) -> float:
        """Return the seconds left for a call; what the last turn needs is kept back, unless this is it."""
        margin_s = min(_MARGIN_MOST_S, _MARGIN_RATIO * self._budget.time_s)
        kept_s = margin_s if last else margin_s + self._last_turn_s
        return self._budget.time_s - (self._monotonic() - self._started_s) - kept_s

    def before(self, request: ChatRequest, *, last: bool) -> ChatRequest:
        """Return the request with its timeout cut to the time left.

        Raises Exhausted where a budget does not allow the call, and ModelUnavailable when the time is used up
        by a provider that does not answer.
        """
        left_s = self.left_s(last=last)
        if left_s <= 0 and self._failed is not None:
            raise ModelUnavailable(
                f"the model {self._model.name} does not answer, and the budget of {self._budget.time_s:g} s "
                f"is used up: {self._failed}"
            )
        closing = dataclasses.replace(request, max_output_tokens=LAST_TURN_TOKENS)
        planned = (request,) if last else (request, closing)
        self._check_steps(len(planned))
        self._check_tokens(planned)
        self._check_cost(planned)
        if left_s <= 0:
            raise self.out_of_time()
        return dataclasses.replace(request, timeout_s=min(request.timeout_s, left_s))

    def replied(self, reply: ChatReply) -> None:
        """Count a reply."""
        self._failed = None
        usage = reply.usage
        self._add(
            steps=1,
            prompts=1,
            input_tokens=usage.input_tokens,
            output_tokens=usage.output_tokens,
            cached_tokens=usage.cached_tokens,
            reasoning_tokens=usage.reasoning_tokens,
            cost_usd=usage.cost_usd or 0.0,
        )

    def failed(self, failure: TransientFailure, request: ChatRequest, wait_s: float, *, cut: bool) -> None:
        """Count a failed attempt: what the provider may charge for, at its worst.

        *cut* says that the attempt had less than its usual time. Raises Exhausted where the time ended it,
        ModelUnavailable where the provider asks to wait longer than what is left.
        """
        if failure.billable:
            self.stopped(request)
            if cut:
                raise self.out_of_time()
        self._failed = failure
        left_s = self.left_s(last=True)
        if wait_s >= left_s:
            raise ModelUnavailable(
                f"the model {self._model.name} does not answer: {failure}; the next attempt is due in "
                f"{wait_s:.3g} s, {max(left_s, 0.0):.3g} s are left of {self._budget.time_s:g} s"
            )

    def stopped(self, request: ChatRequest) -> None:
        """Count a call without a reply at its worst: the provider may charge for it."""
        cost = self._model.worst_case_cost_usd(request) or 0.0
        self._add(cost_usd=cost, input_tokens=request.input_tokens_bound())

    def out_of_time(self) -> Exhausted:
        """Return the end by the budget of time."""
        return Exhausted(End.TIME, f"the budget of {self._budget.time_s:g} s is used up")

    def repaired(self) -> None:
        """Count a turn in which the model was asked to correct its answer."""
        self._add(repairs=1)

    def _add(self, **amounts: float) -> None:
        self.used = self.used.model_copy(
            update={name: getattr(self.used, name) + amount for name, amount in amounts.items()}
        )

    def _check_steps(self, planned: int) -> None:
        if self.used.steps + planned > self._limits.steps:
            raise Exhausted(End.STEPS, f"{self.used.steps} of {self._limits.steps} steps are used")

    def _check_tokens(self, planned: tuple[ChatRequest, ...]) -> None:
        used = self.used.input_tokens + self.used.output_tokens
        needed = sum(one.input_tokens_bound() + one.max_output_tokens for one in planned)
        if used + needed > self._limits.tokens:
            raise Exhausted(
                End.TOKENS,
                f"{used:,} of {self._limits.tokens:,} tokens are used, and what comes may need {needed:,}",
            )

    def _check_cost(self, planned: tuple[ChatRequest, ...]) -> None:
        costs = [self._model.worst_case_cost_usd(one) for one in planned]
        known = [cost for cost in costs if cost is not None]
        self.price_known = len(known) == len(costs)
        if self.used.cost_usd + sum(known) > self._budget.cost_usd:
            raise Exhausted(
                End.COST,
                f"{self.used.cost_usd:.4g} of {self._budget.cost_usd:g} USD are used, and what comes may "
                f"cost {sum(known):.4g}",
            )
