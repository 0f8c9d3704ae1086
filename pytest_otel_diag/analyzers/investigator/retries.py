"""Waits and tries again when a provider does not answer, within limits."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Awaitable, Callable
from dataclasses import dataclass

from pytest_otel_diag.analyzers.investigator.chat_model import (
    ChatModel,
    ChatReply,
    ChatRequest,
    ModelUnavailable,
    TransientFailure,
)


@dataclass(frozen=True)
class RetryPolicy:
    """How often to try, and how long to wait between two attempts.

    The wait doubles from ``first_wait_s`` up to ``longest_wait_s`` and is drawn between half of it and all of
    it, so that parallel sessions do not come back together. A provider that asks for a longer wait gets it up
    to ``longest_wait_s``; beyond, it counts as unavailable.
    """

    attempts: int = 6
    first_wait_s: float = 1.0
    longest_wait_s: float = 60.0

    def wait_s(self, attempt: int, failure: TransientFailure, rng: random.Random) -> float:
        """Return the seconds to wait after the *attempt*-th failure, the first being 1."""
        backoff: float = min(self.longest_wait_s, self.first_wait_s * 2 ** (attempt - 1))
        return max(backoff * rng.uniform(0.5, 1.0), failure.retry_after_s or 0.0)


BeforeAttempt = Callable[[ChatRequest], ChatRequest]
"""Checks limits before each attempt: returns the request to send, or raises to end the investigation."""

AfterFailure = Callable[[TransientFailure, ChatRequest, float], Awaitable[None]]
"""Gets a failed attempt, its request, and the seconds of the wait that follows."""


async def complete(
    model: ChatModel,
    request: ChatRequest,
    *,
    policy: RetryPolicy = RetryPolicy(),
    rng: random.Random,
    before: BeforeAttempt = lambda request: request,
    after: AfterFailure | None = None,
) -> ChatReply:
    """Return the model's reply; tries again after each TransientFailure as the policy says.

    Raises what :meth:`ChatModel.complete` and *before* raise, and ModelUnavailable when the last attempt
    failed.
    """
    for attempt in range(1, policy.attempts + 1):
        asked = before(request)
        try:
            return await model.complete(asked)
        except TransientFailure as failure:
            wait_s = policy.wait_s(attempt, failure, rng)
            last = attempt == policy.attempts or wait_s > policy.longest_wait_s
            if after is not None:
                await after(failure, asked, 0.0 if last else wait_s)
            if last:
                raise ModelUnavailable(_given_up(model, failure, attempt, wait_s, policy)) from failure
        await asyncio.sleep(wait_s)
    raise AssertionError("the last attempt returns or raises")


def _given_up(
    model: ChatModel, failure: TransientFailure, attempt: int, wait_s: float, policy: RetryPolicy
) -> str:
    tries = "1 attempt" if attempt == 1 else f"{attempt} attempts"
    longer = (
        f"; it asks to wait {wait_s:g} s, the longest wait is {policy.longest_wait_s:g} s"
        if wait_s > policy.longest_wait_s
        else ""
    )
    return f"the model {model.name} does not answer ({tries}): {failure}{longer}"
