"""Tools by which a model records hypotheses as it goes, so that the first and the last one are measured."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, replace
from typing import Any, Literal

from pydantic import Field

from pytest_otel_diag.model.base import Model
from pytest_otel_diag.model.diagnosis import Hypothesis, Mechanism
from pytest_otel_diag.tools import Tool, ToolContext, ToolError

Record = Callable[[Mapping[str, Any]], Awaitable[None]]

MOST = 50
"""Hypotheses that one investigation may propose."""


class ProposeArguments(Model):
    """Arguments of ``propose_hypothesis``."""

    statement: str = Field(description="What may be wrong, in one sentence.", min_length=1, max_length=500)
    service: str = Field(
        description="Service that would be the root cause, as telemetry spells it.",
        min_length=1,
        max_length=200,
    )
    mechanism: Mechanism | None = Field(default=None, description="How it would fail.")
    reason: str = Field(default="", description="What you saw that suggests it.", max_length=2000)


class DecideArguments(Model):
    """Arguments of ``eliminate_hypothesis`` and ``keep_hypothesis``."""

    id: str = Field(description="Id of the hypothesis, such as h1.")
    reason: str = Field(
        description="What telemetry shows for or against it, with figures.", min_length=1, max_length=2000
    )


class Noted(Model):
    """The hypothesis was recorded."""

    id: str
    open: tuple[str, ...]


@dataclass(frozen=True)
class _Proposed:
    statement: str
    service: str
    mechanism: Mechanism | None
    status: Literal["kept", "eliminated"] | None = None
    reason: str = ""


class HypothesisLog:
    """The hypotheses of one investigation in the order of their proposal."""

    def __init__(self, record: Record) -> None:
        self._proposed: dict[str, _Proposed] = {}
        self._record = record

    def tools(self) -> tuple[Tool, ...]:
        """Return the tools that write to this log."""
        return (
            Tool(
                name="propose_hypothesis",
                description=(
                    "Record a hypothesis before you test it. Returns its id. Example: "
                    '{"statement": "service-a rejects requests of service-b", "service": "service-a", '
                    '"mechanism": "error", "reason": "service-b reports errors of its calls to service-a"}'
                ),
                arguments=ProposeArguments,
                result=Noted,
                run=self._propose,
            ),
            self._decision(
                "eliminate_hypothesis",
                "eliminated",
                "Record that telemetry speaks against a hypothesis. Example: "
                '{"id": "h1", "reason": "its error ratio is 0.4 % in incident and baseline alike"}',
            ),
            self._decision(
                "keep_hypothesis",
                "kept",
                "Record that a hypothesis withstood a test. Example: "
                '{"id": "h2", "reason": "12 of 19 calls failed, 0 of 40 in the baseline"}',
            ),
        )

    def hypotheses(self) -> tuple[Hypothesis, ...]:
        """Return what was proposed, in order; what was never decided is kept, and says so."""
        return tuple(
            Hypothesis(
                statement=one.statement,
                service=one.service,
                mechanism=one.mechanism,
                status=one.status or "kept",
                reason=one.reason if one.status else "not tested",
            )
            for one in self._proposed.values()
        )

    def _decision(self, name: str, status: Literal["kept", "eliminated"], description: str) -> Tool:
        async def decide(_: ToolContext, arguments: DecideArguments) -> Noted:
            return await self._decide(arguments, status)

        return Tool(name=name, description=description, arguments=DecideArguments, result=Noted, run=decide)

    async def _propose(self, _: ToolContext, arguments: ProposeArguments) -> Noted:
        if len(self._proposed) >= MOST:
            raise ToolError(f"{MOST} hypotheses are recorded, the most there can be; decide on these")
        key = f"h{len(self._proposed) + 1}"
        self._proposed[key] = _Proposed(arguments.statement, arguments.service, arguments.mechanism)
        await self._record({"id": key, "status": "proposed", **arguments.model_dump(mode="json")})
        return self._noted(key)

    async def _decide(self, arguments: DecideArguments, status: Literal["kept", "eliminated"]) -> Noted:
        found = self._proposed.get(arguments.id)
        if found is None:
            known = ", ".join(self._proposed) or "none yet; call propose_hypothesis first"
            raise ToolError(f"there is no hypothesis {arguments.id!r}; known: {known}")
        self._proposed[arguments.id] = replace(found, status=status, reason=arguments.reason)
        await self._record(
            {
                "id": arguments.id,
                "status": status,
                "service": found.service,
                "statement": found.statement,
                "reason": arguments.reason,
            }
        )
        return self._noted(arguments.id)

    def _noted(self, key: str) -> Noted:
        return Noted(id=key, open=tuple(name for name, one in self._proposed.items() if one.status is None))
