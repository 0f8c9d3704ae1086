"""A model whose calls count for the whole run: money, waits that the provider asks for, one preflight."""

from __future__ import annotations

import asyncio
import random
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import asynccontextmanager, suppress

from pytest_otel_diag.analyzers.investigator.chat_model import (
    ChatModel,
    ChatReply,
    ChatRequest,
    ToolsUnsupported,
    TransientFailure,
)
from pytest_otel_diag.analyzers.investigator.retries import RetryPolicy, complete
from pytest_otel_diag.analyzers.investigator.shared_calls import PreflightOutcome, SharedCalls
from pytest_otel_diag.analyzers.investigator.wrapped_model import WrappedModel
from pytest_otel_diag.errors import ConfigurationError, ModelUnavailable, OtelDiagError, SpendingLimitReached

_USUAL_WAIT_S = 2.0
"""How long all processes wait after a refusal for too many requests that names no time."""
_SPREAD_S = 1.0
"""Processes that waited for the same time go on within so many seconds, not all at once."""
_PREFLIGHT_TIMEOUT_S = 60.0
_PREFLIGHT_ATTEMPTS = 3
PREFLIGHT = ChatRequest(
    messages=({"role": "user", "content": "Call the tool `ready`."},),
    tools=(
        {
            "type": "function",
            "function": {
                "name": "ready",
                "description": "Confirms that tools can be called.",
                "parameters": {"type": "object", "properties": {}},
            },
        },
    ),
    max_output_tokens=256,
    timeout_s=_PREFLIGHT_TIMEOUT_S,
)
_KINDS: Mapping[str, type[OtelDiagError]] = {
    "configuration": ConfigurationError,
    "unavailable": ModelUnavailable,
    "spent": SpendingLimitReached,
}


class SharedModel(WrappedModel):
    """Asks *inner* within what *calls* knows of all processes of the run.

    *most_usd* limits the money of the run (None: no limit): a call is refused when its worst case exceeds
    what is left. No session begins that cannot pay *first_call*.
    """

    def __init__(
        self,
        inner: ChatModel,
        calls: SharedCalls,
        *,
        most_usd: float | None = None,
        first_call: ChatRequest = PREFLIGHT,
        wall: Callable[[], float] = time.time,
        sleep: Callable[[float], Awaitable[None]] = asyncio.sleep,
    ) -> None:
        super().__init__(inner)
        self._calls = calls
        self._most_usd = most_usd
        self._first_call = first_call
        self._wall = wall
        self._sleep = sleep
        self._rng = random.Random()  # noqa: S311 - spreads calls
        self._prepared = False

    async def complete(self, request: ChatRequest) -> ChatReply:
        """Make one attempt; raises SpendingLimitReached where the run may not pay for it."""
        await self._wait(request.timeout_s)
        async with self._paid(request) as settled:
            reply = await self._inner.complete(request)
            settled(reply.usage.cost_usd)
        return reply

    async def prepare(self) -> tuple[str, ...]:
        """Make sure, once a run, that the model answers and takes tools; return remarks.

        Raises ConfigurationError, ModelUnavailable, and SpendingLimitReached where a run has no money left.
        """
        needed = self._inner.worst_case_cost_usd(self._first_call)
        if self._most_usd is not None and needed is None:
            raise ConfigurationError(
                f"the price of {self.name} is not known, so --otel-diag-max-cost cannot be kept; state it in "
                f"US dollars per million tokens: …{self.name}#price=IN/OUT"
            )
        spent = self._calls.spent_usd()
        if self._most_usd is not None and spent + (needed or 0.0) > self._most_usd:
            raise SpendingLimitReached(
                f"--otel-diag-max-cost={self._most_usd:g}: {spent:.4g} USD of the run are spent or reserved, "
                f"and the first call of a session may cost {needed:.4g} USD"
            )
        if not self._prepared:
            await self._preflight()
            self._prepared = True
        unknown = f"the price of {self.name} is not known, so no budget limits its cost; state #price=IN/OUT"
        return (unknown,) if needed is None else ()

    async def _preflight(self) -> None:
        patience_s = (_PREFLIGHT_ATTEMPTS + 1) * _PREFLIGHT_TIMEOUT_S
        model = ", ".join(f"{key}={value}" for key, value in sorted(self.describe().items()))
        while True:
            known = self._calls.begin_preflight(model, self._wall(), patience_s)
            if known is None:
                known = await self._tried()
                self._calls.end_preflight(model, known)
            if known.outcome:
                break
            await self._sleep(0.2)
        if known.outcome in _KINDS:
            raise _KINDS[known.outcome](known.words)

    async def _tried(self) -> PreflightOutcome:
        policy = RetryPolicy(attempts=_PREFLIGHT_ATTEMPTS)
        try:
            with suppress(ToolsUnsupported):  # it answers; the investigator then uses its text protocol
                await complete(self, PREFLIGHT, policy=policy, rng=self._rng)
        except tuple(_KINDS.values()) as error:
            kind = next(name for name, each in _KINDS.items() if isinstance(error, each))
            return PreflightOutcome(kind, f"preflight of {self.name}: {error}")
        return PreflightOutcome("ok")

    async def _wait(self, patience_s: float) -> None:
        """Wait as long as the provider asked any process of the run to; raises TransientFailure beyond."""
        wait_s = self._calls.waits_until_s(self.name) - self._wall()
        if wait_s <= 0:
            return
        if wait_s > patience_s:
            raise TransientFailure(
                f"the provider of {self.name} asked this run to wait {wait_s:.0f} s", retry_after_s=wait_s
            )
        await self._sleep(wait_s + self._rng.uniform(0, _SPREAD_S))

    @asynccontextmanager
    async def _paid(self, request: ChatRequest) -> AsyncIterator[Callable[[float | None], None]]:
        """Reserve the worst case, and settle what the call cost: all of it where nobody can say."""
        worst = self._inner.worst_case_cost_usd(request) or 0.0
        call = self._calls.reserve(self.name, worst, self._most_usd)
        cost = worst

        def settled(known: float | None) -> None:
            nonlocal cost
            cost = worst if known is None else known

        try:
            yield settled
        except TransientFailure as failure:
            cost = worst if failure.billable else 0.0
            if failure.rate_limited:
                wait_s = failure.retry_after_s or _USUAL_WAIT_S
                self._calls.wait_until(self.name, self._wall() + wait_s)
            raise
        except Exception:  # refused: nothing to pay
            cost = 0.0
            raise
        finally:  # a cancelled call may be charged in full
            self._calls.settle(call, cost)
