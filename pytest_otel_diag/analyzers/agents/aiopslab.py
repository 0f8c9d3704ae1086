"""Agents written for AIOpsLab: ``get_action`` answers each observation with one call in a block of code.

The protocol is that of AIOpsLab's orchestrator (Chen et al., MLSys 2025): the agent may get the problem by
``init_context(problem_desc, instructions, apis)``, then a turn is one text with one call, its observation is
what the call returned, and ``submit(...)`` ends the problem. The APIs are the tools of an investigation.
"""

from __future__ import annotations

import ast
import hashlib
import inspect
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cache, partial
from importlib import resources
from string import Template
from typing import Any

from pytest_otel_diag.analyzers.agents.question import window_texts
from pytest_otel_diag.analyzers.agents.turns import Reply, diagnosed
from pytest_otel_diag.daemon import in_daemon
from pytest_otel_diag.errors import AnalyzerError, ConfigurationError
from pytest_otel_diag.model.diagnosis import Diagnosis, Usage
from pytest_otel_diag.ports import Investigation
from pytest_otel_diag.tools import Tool, Toolbox, ToolError

NEXT = "Please take the next action"
"""What AIOpsLab's orchestrator asks in the first turn, and after each observation."""

_SUBMIT = "submit"
_SUBMIT_TOOL = "submit_diagnosis"
_MOST_CHARACTERS = 200_000
_BLOCK = re.compile(r"```(?:[ \t]*[\w+-]*[ \t]*\n)?(.*?)```", re.DOTALL)
_YES, _NO = frozenset({"yes", "true"}), frozenset({"no", "none", "false", ""})


class NoCall(ValueError):
    """A text of the agent is not one call; the message says to the agent what to write."""


@dataclass(frozen=True)
class Call:
    """A call that an agent wrote."""

    name: str
    positional: Sequence[Any]
    named: Mapping[str, Any]


def read_call(text: str) -> Call:
    """Return the one call in a text: in a block of code, with or without a language, or the whole text.

    Raises NoCall for none, for several, and for arguments that are no literals.
    """
    blocks = [block.strip() for block in _BLOCK.findall(text[-_MOST_CHARACTERS:])] or [text.strip()]
    calls = [block for block in blocks if re.match(r"[A-Za-z_]\w*\s*\(", block)]
    if len(calls) != 1:
        raise NoCall(f"the text has {len(calls)} calls; write exactly one, in one block of code")
    try:
        node = ast.parse(calls[0][:_MOST_CHARACTERS], mode="eval").body
        if not isinstance(node, ast.Call) or not isinstance(node.func, ast.Name):
            raise NoCall("the block is no call; write NAME(arguments) and nothing else in it")
        if any(keyword.arg is None for keyword in node.keywords):
            raise NoCall("arguments cannot be unpacked with **; write each by its name")
        return Call(
            node.func.id,
            [ast.literal_eval(argument) for argument in node.args],
            {str(keyword.arg): ast.literal_eval(keyword.value) for keyword in node.keywords},
        )
    except NoCall:
        raise
    except (SyntaxError, ValueError, TypeError, RecursionError, MemoryError) as error:
        raise NoCall(f"the call cannot be read: {error}; arguments are Python literals") from error


def submitted(call: Call) -> Mapping[str, Any]:
    """Return the answer in a call of ``submit``, as :func:`.diagnosis_from` takes it; raises NoCall."""
    values = [*call.positional, *call.named.values()]
    value = values[0] if len(values) == 1 else values
    if isinstance(value, list | tuple):
        names = [str(name) for name in value]
        return {"detected": bool(names), "root_causes": [{"service": name} for name in names]}
    if isinstance(value, Mapping):
        # AIOpsLab's task of analysis asks for a level and a type of fault, and for no service
        return {"detected": True, "summary": str(dict(value))} if "fault_type" in value else value
    word = "" if value is None else str(value).strip()
    if isinstance(value, str | bool | None) and word.lower() in _YES | _NO:
        return {"detected": word.lower() in _YES}
    if isinstance(value, str) and re.fullmatch(r"[\w./:@ -]{1,200}", word):
        return {"detected": True, "root_causes": [{"service": word}]}
    raise NoCall(
        f'{word[:80]!r} is no answer; submit a list of services, a diagnosis, "Yes", "No" or nothing'
    )


class AIOpsLabAnalyzer:
    """Puts an AIOpsLab agent under test; *made* returns one for each investigation."""

    def __init__(self, spec: str, made: Callable[[], Any], *, steps: int) -> None:
        self._spec = spec
        self._made = made
        self._steps = steps
        self.__wrapped__ = made  # for inspect.unwrap: what the user wrote

    def describe(self) -> Mapping[str, str]:
        """Return protocol, agent, limit of turns and a digest of the texts that the agent gets."""
        digest = hashlib.sha256("\0".join(_texts()).encode()).hexdigest()[:12]
        return {"protocol": "AIOpsLab", "agent": self._spec, "steps": str(self._steps), "texts": digest}

    async def diagnose(self, investigation: Investigation) -> Diagnosis:
        """Return what the agent submits; raises AnalyzerError for one that submits nothing."""
        problem, instructions = _texts()
        text = Template(problem).substitute(window_texts(investigation))
        await investigation.transcript.add("message", {"role": "user", "text": f"{text}\n\n{instructions}"})
        channel = _Turns(self._made(), investigation, Toolbox(investigation), self._steps, instructions)
        return await diagnosed(investigation, channel, text)

    async def close(self) -> None:
        """Hold nothing between investigations."""


@dataclass
class _Turns:
    """One agent in one investigation; ``ask`` goes on until it submits."""

    agent: Any
    investigation: Investigation
    toolbox: Toolbox
    left: int
    instructions: str
    begun: bool = False

    async def ask(self, question: str) -> Reply:
        before = self.left
        observation = await self._begun(question)
        while self.left:
            self.left -= 1
            action = await _called(self.agent.get_action, observation)
            await self.investigation.transcript.add("message", {"role": "assistant", "text": str(action)})
            try:
                call = read_call(str(action))
                if call.name in (_SUBMIT, _SUBMIT_TOOL):
                    used = before - self.left
                    return Reply([submitted(call)], Usage(prompts=used, steps=used))
                found = await self._observed(call)
            except (NoCall, ToolError) as error:
                found = f"Error: {error}"
            observation = f"{found}\n{NEXT}"
        raise AnalyzerError(f"no answer: the agent submitted nothing in {before} turns")

    async def _begun(self, question: str) -> str:
        """Give the agent the problem, by ``init_context`` or in its first observation."""
        if self.begun:
            return f"{question}\n{NEXT}"
        self.begun = True
        apis = {tool.name: described(tool) for tool in self.toolbox.tools if tool.name != _SUBMIT_TOOL}
        apis[_SUBMIT] = "submit(solution): ends the investigation."
        if hasattr(self.agent, "init_context"):
            await _called(self.agent.init_context, question, self.instructions, apis)
            return NEXT
        listed = "\n".join(f"- {text}" for text in apis.values())
        return f"{question}\n\n{self.instructions}\n\n{listed}\n\n{NEXT}"

    async def _observed(self, call: Call) -> str:
        tool = next((one for one in self.toolbox.tools if one.name == call.name), None)
        names = list(tool.arguments.model_fields) if tool else []
        if len(call.positional) > len(names) and tool:
            raise NoCall(f"{call.name} takes {len(names)} arguments: {described(tool)}")
        arguments = {**dict(zip(names, call.positional, strict=False)), **call.named}
        await self.investigation.transcript.add("tool_call", {"name": call.name, "arguments": arguments})
        found = (await self.toolbox.call(call.name, arguments)).model_dump_json()
        await self.investigation.transcript.add("tool_result", {"name": call.name, "text": found})
        return found


def described(tool: Tool) -> str:
    """Return signature and description of a tool, as a line for the agent."""
    fields = tool.arguments.model_fields.items()
    signature = ", ".join(name if field.is_required() else f"{name}=…" for name, field in fields)
    return f"{tool.name}({signature}): {tool.description}"


def agent_factory(found: Any, spec: str) -> Callable[[], Any]:
    """Return what makes the agent for an investigation; raises ConfigurationError for no such agent.

    A class or a function is called without arguments for each investigation; an object serves all of them.
    """
    made = found if inspect.isclass(found) or inspect.isroutine(found) else lambda: found
    kind = found if inspect.isclass(found) or not inspect.isroutine(found) else None
    if kind is not None and not callable(getattr(kind, "get_action", None)):
        raise ConfigurationError(
            f"aiopslab:{spec} has no method get_action(observation); name a class, a function that returns "
            "an agent, or an agent"
        )
    return made


@cache
def _texts() -> tuple[str, str]:
    folder = resources.files(__package__)
    first, second = (
        folder.joinpath(name).read_text("utf-8") for name in ("aiopslab.md", "aiopslab_turns.md")
    )
    return first.strip(), second.strip()


async def _called(call: Callable[..., Any], *arguments: Any) -> Any:
    """Return what a method of the agent returns, sync or async; a sync one may block."""
    if inspect.iscoroutinefunction(call):
        return await call(*arguments)
    return await in_daemon(partial(call, *arguments), "otel-diag AIOpsLab agent")
