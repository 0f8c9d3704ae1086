"""The tools of one investigation as the loop calls them: results as text, repeated calls from memory."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

from pytest_otel_diag.analyzers.investigator.loop.diagnostic_query import ReservedTelemetry
from pytest_otel_diag.analyzers.investigator.loop.hypotheses import HypothesisLog
from pytest_otel_diag.analyzers.investigator.loop.protocols import ParsedCall
from pytest_otel_diag.errors import BudgetExceeded
from pytest_otel_diag.model.base import to_json
from pytest_otel_diag.ports import Investigation
from pytest_otel_diag.tools import TOOLS, Caps, Tool, Toolbox, ToolError

SUBMIT = "submit_diagnosis"


@dataclass(frozen=True)
class Result:
    """The result of a call as text for the model; ``out_of_queries`` when the budget refused it."""

    text: str
    error: bool = False
    out_of_queries: bool = False


class Toolkit:
    """The functions that the door offers to every agent, and those that record hypotheses."""

    def __init__(self, investigation: Investigation, log: HypothesisLog, caps: Caps) -> None:
        own = log.tools()
        telemetry = ReservedTelemetry(investigation.telemetry, investigation.budget.queries)
        offered = sorted((*TOOLS, *own), key=lambda tool: tool.name == SUBMIT)
        self._box = Toolbox(replace(investigation, telemetry=telemetry), caps=caps, tools=offered)
        self._unlike = {SUBMIT, *(tool.name for tool in own)}
        self._memory: dict[str, tuple[int, str]] = {}
        self._calls = 0

    @property
    def tools(self) -> tuple[Tool, ...]:
        """All tools."""
        return self._box.tools

    @property
    def submit_only(self) -> tuple[Tool, ...]:
        """The tool of the last turn."""
        return tuple(tool for tool in self._box.tools if tool.name == SUBMIT)

    @property
    def submitted(self) -> Mapping[str, Any] | None:
        """The last diagnosis that was submitted, as it came."""
        return self._box.submitted

    async def call(self, call: ParsedCall) -> Result:
        """Return the result of one call. A call that was answered before is answered from memory."""
        if call.problem:
            return Result(f"{call.problem}; send the arguments as one JSON object", error=True)
        self._calls += 1
        key = _key(call)
        if key in self._memory:
            number, text = self._memory[key]
            return Result(f"This repeats call {number}, and telemetry has not changed. Its result:\n{text}")
        try:
            result = await self._box.call(call.name, call.arguments)
        except ToolError as error:
            return Result(str(error), error=True, out_of_queries=isinstance(error.__cause__, BudgetExceeded))
        text = to_json(result)
        if call.name not in self._unlike:
            self._memory[key] = (self._calls, text)
        return Result(text)


def _key(call: ParsedCall) -> str:
    """Return what identical calls share; white space in SQL does not matter."""
    arguments = {
        name: " ".join(value.split()).rstrip("; ") if isinstance(value, str) else value
        for name, value in call.arguments.items()
    }
    return f"{call.name} {json.dumps(arguments, sort_keys=True, default=str)}"
