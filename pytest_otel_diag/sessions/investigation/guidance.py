"""Replies to attempts of an analyzer, and counts the replies as prompts of a person."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass

from pytest_otel_diag.model.diagnosis import Diagnosis
from pytest_otel_diag.model.scenario import Scenario
from pytest_otel_diag.model.session import Attempt
from pytest_otel_diag.ports import Person
from pytest_otel_diag.sessions.ending import writable

_CAUSE_CHARACTERS = 200

ON_CONTROLS = (
    "Compare error rate, latency and request rate of every service in the incident window with the same "
    "figures in the baseline and in each reference window.",
    "Judge each difference by how much the same figure varies between quiet windows, and by the number of "
    "calls behind it.",
    "Check whether differences in traffic, a deployment or a single garbage collection explain what is left.",
)
"""Hints after a wrong answer to a control. They neither state nor deny that something is wrong."""


@dataclass(frozen=True)
class Reply:
    """What an attempt is answered with: a hint, '' for none; whether it was right, None if not judged."""

    hint: str = ""
    right: bool | None = None


Replies = Callable[[Diagnosis | None], Awaitable[Reply]]


class Guide:
    """Guidance of one investigation: records each attempt and counts the hints that were given.

    The first reply without a hint is the last one: whoever asks further learns nothing more. ``replying_s``
    is how long the replies took, which is not the analyzer's time.
    """

    def __init__(self, replies: Replies, *, monotonic: Callable[[], float]) -> None:
        self._replies = replies
        self._monotonic = monotonic
        self._started_s = monotonic()
        self._over = False
        self._turn = asyncio.Lock()
        self.attempts: tuple[Attempt, ...] = ()
        self.replying_s = 0.0

    async def next(self, diagnosis: Diagnosis | None) -> str | None:
        """Return the next hint; see :meth:`pytest_otel_diag.ports.Guidance.next`."""
        async with self._turn:
            if self._over:
                return None
            asked_s = self._monotonic()
            elapsed_s = asked_s - self._started_s - self.replying_s
            try:
                reply = await self._replies(diagnosis)
            finally:
                self.replying_s += self._monotonic() - asked_s
            self._over = not reply.hint
            if reply.hint or reply.right is not None:
                self.attempts = (*self.attempts, _attempt(diagnosis, reply, elapsed_s))
            return reply.hint or None

    def counted(self, diagnosis: Diagnosis) -> Diagnosis:
        """Return the diagnosis with at least as many human prompts as hints were given."""
        given = sum(bool(attempt.hint) for attempt in self.attempts)
        if diagnosis.usage.human_prompts >= given:
            return diagnosis
        usage = diagnosis.usage.model_copy(update={"human_prompts": given})
        return diagnosis.model_copy(update={"usage": usage})


def _attempt(diagnosis: Diagnosis | None, reply: Reply, elapsed_s: float) -> Attempt:
    causes = diagnosis.root_causes if diagnosis is not None else ()
    return Attempt(
        elapsed_s=elapsed_s,
        detected=diagnosis is not None and diagnosis.detected,
        cause=writable(causes[0].service[:_CAUSE_CHARACTERS]) if causes else "",
        right=reply.right,
        hint=writable(reply.hint),
    )


class Hints:
    """Replies with the next of *hints* while attempts are wrong or missing.

    *right* judges an attempt. At most one attempt more is judged than there are hints.
    """

    def __init__(self, hints: Sequence[str], right: Callable[[Diagnosis], Awaitable[bool | None]]) -> None:
        self._left = list(hints)
        self._any = bool(hints)
        self._right = right

    async def __call__(self, diagnosis: Diagnosis | None) -> Reply:
        """Return the reply to one attempt."""
        if not self._any:
            return Reply()
        right = None if diagnosis is None else await self._right(diagnosis)
        unjudged = diagnosis is not None and right is None
        if right or unjudged or not self._left:
            return Reply(right=right)
        return Reply(self._left.pop(0), right)


def messages_of(person: Person) -> Replies:
    """Return replies that *person* writes; nothing is judged."""

    async def reply(diagnosis: Diagnosis | None) -> Reply:
        return Reply((await person(diagnosis)) or "")

    return reply


def hints_of(scenario: Scenario, most: int) -> tuple[str, ...]:
    """Return the first *most* hints of a scenario."""
    own = tuple(step.hint for step in scenario.investigation_path)
    return (own or (ON_CONTROLS if scenario.control else ()))[:most]
