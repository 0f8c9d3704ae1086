"""Calls tools by name over one investigation, and turns what goes wrong into text for a model."""

from __future__ import annotations

import re
import reprlib
from collections.abc import Mapping, Sequence
from typing import Any

from pydantic import ValidationError
from pydantic_core import ErrorDetails

from pytest_otel_diag.errors import BudgetExceeded, TelemetryError, nearest
from pytest_otel_diag.model.base import Model
from pytest_otel_diag.ports import Investigation, asked_by
from pytest_otel_diag.tools.cells import shortened
from pytest_otel_diag.tools.contract import Answers, Caps, Tool, ToolContext, ToolError
from pytest_otel_diag.tools.listed import ALIASES, TOOLS

_SHOWN_ERRORS = 5
_SHOWN_CHARACTERS = 100
_DEEPEST_PLACE = 6
_OF_PYTHON = re.compile(r",? or raise QueryLimits\.\w+")
"""Advice that only callers in Python can follow."""


class Toolbox:
    """The tools of one investigation; state such as the submitted diagnosis belongs to it.

    ``tools`` are listed to models. ``aliases`` can be called too, and are served to agents whose prompts were
    written for other servers. ``calls`` counts the calls so far, ``running`` those that have not ended.
    """

    def __init__(
        self,
        investigation: Investigation,
        *,
        caps: Caps = Caps(),  # noqa: B008 - immutable
        tools: Sequence[Tool] = TOOLS,
    ) -> None:
        self.tools = tuple(tools)
        self.aliases = tuple(one for one in ALIASES if any(one.alias_of == tool.name for tool in tools))
        self._by_name = {tool.name: tool for tool in (*self.tools, *self.aliases)}
        self._context = ToolContext(investigation, caps, Answers())
        self.calls = 0
        self.running = 0

    @property
    def submitted(self) -> Mapping[str, Any] | None:
        """The object of the last ``submit_diagnosis``, as it came; None before the first."""
        return self._context.answers.submitted

    @property
    def submissions(self) -> int:
        """How many diagnoses were accepted."""
        return self._context.answers.count

    async def call(self, name: str, arguments: Mapping[str, Any]) -> Model:
        """Return the result of a tool, within the caps.

        Raises ToolError for unknown tools, arguments that do not fit, failed queries and budgets that are
        used up; its text says what to do.
        """
        self.calls += 1
        self.running += 1
        try:
            return await self._call(name, arguments)
        finally:
            self.running -= 1

    async def _call(self, name: str, arguments: Mapping[str, Any]) -> Model:
        tool = self._by_name.get(name)
        if tool is None:
            known = ", ".join(self._by_name)
            shown = shortened(str(name), _SHOWN_CHARACTERS)
            raise ToolError(f"there is no tool {shown!r}{nearest(shown, self._by_name)}; call one of {known}")
        given = _validated(tool, arguments)
        calling = asked_by.set(tool.name)
        try:
            return await tool.run(self._context, given)
        except BudgetExceeded as error:
            raise ToolError(f"{error}; no further query is answered: call submit_diagnosis now") from error
        except TelemetryError as error:
            raise ToolError(_OF_PYTHON.sub("", str(error))) from error
        finally:
            asked_by.reset(calling)


def _validated(tool: Tool, arguments: Mapping[str, Any]) -> Model:
    if not isinstance(arguments, Mapping):
        kind = type(arguments).__name__
        raise ToolError(f"the arguments of {tool.name} are {kind}, not an object; {_takes(tool)}")
    try:
        return tool.arguments.model_validate(dict(arguments))
    except ValidationError as error:
        found = error.errors(include_url=False, include_context=False)
        lines = list(dict.fromkeys(_mistake(tool, item) for item in found))[:_SHOWN_ERRORS]
        raise ToolError(f"{'; '.join(lines)}; {_takes(tool)}") from error
    except RecursionError:
        raise ToolError(f"the arguments of {tool.name} are nested too deep; {_takes(tool)}") from None


def _takes(tool: Tool) -> str:
    fields = tool.arguments.model_fields.items()
    shown = ", ".join(f"{name} (required)" if field.is_required() else name for name, field in fields)
    return f"{tool.name} takes {shown}" if shown else f"{tool.name} takes no arguments"


def _mistake(tool: Tool, item: ErrorDetails) -> str:
    place = shortened(".".join(map(str, item["loc"][:_DEEPEST_PLACE])), _SHOWN_CHARACTERS) or "arguments"
    if item["type"] == "extra_forbidden":
        known = tool.arguments.model_fields if len(item["loc"]) == 1 else ()
        return f"unknown argument {place}{nearest(place, known)}"
    if item["type"] == "missing":
        return f"the argument {place} is missing"
    given = shortened(reprlib.repr(item["input"]), _SHOWN_CHARACTERS)
    return f"{place}: {item['msg'].removeprefix('Value error, ')} (it is {given})"
