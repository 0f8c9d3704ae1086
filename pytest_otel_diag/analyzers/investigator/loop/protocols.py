"""How a model calls tools: by the provider's API, or as JSON in its text."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Protocol

from pytest_otel_diag.analyzers.investigator.chat_model import ChatReply, ToolCall
from pytest_otel_diag.tools import Tool

MOST_CALLS = 16
"""Tool calls that one turn may make."""

_SHOWN = 200
_FENCED = re.compile(r"```[ \t]*[\w-]*[ \t]*\n?(.*?)(?:```|\Z)", re.DOTALL)
_TAGGED = re.compile(r"<tool_call>(.*?)(?:</tool_call>|\Z)", re.DOTALL)
_THOUGHT = re.compile(
    r"<(think|thinking)>.*?(?:</\1>|\Z)|\A(?:(?!<think).)*?</(?:think|thinking)>", re.DOTALL
)
"""Thoughts in a text; chat templates may have written the opening tag already."""
_NAMES = ("tool", "name", "action", "function")
_ANSWER = {"detected", "root_causes"}
"""Fields of a diagnosis; an object with one of them is an answer."""
_ARGUMENTS = ("arguments", "args", "parameters", "input", "action_input")


@dataclass(frozen=True)
class ParsedCall:
    """A call as it can be run: ``arguments``, or the ``problem`` with what the model wrote."""

    id: str
    name: str
    arguments: Mapping[str, Any]
    problem: str = ""


class ToolProtocol(Protocol):
    """One way to call tools."""

    name: str

    def offered(self, tools: Sequence[Tool]) -> tuple[Mapping[str, Any], ...]:
        """Return the tools as the request carries them."""
        ...

    def calls(self, reply: ChatReply) -> tuple[ParsedCall, ...]:
        """Return the calls in a reply."""
        ...

    def turn(self, reply: ChatReply) -> Mapping[str, Any]:
        """Return the model's turn as the next request repeats it."""
        ...

    def results(self, results: Sequence[tuple[ParsedCall, str]]) -> tuple[Mapping[str, Any], ...]:
        """Return the messages that carry the results of calls."""
        ...


class NativeProtocol:
    """Tool calls of the chat API."""

    name = "native"

    def offered(self, tools: Sequence[Tool]) -> tuple[Mapping[str, Any], ...]:
        """Return the tools in OpenAI's shape."""
        return tuple(
            {
                "type": "function",
                "function": {
                    "name": tool.name,
                    "description": tool.description,
                    "parameters": tool.schema(),
                },
            }
            for tool in tools
        )

    def calls(self, reply: ChatReply) -> tuple[ParsedCall, ...]:
        """Return the calls; broken arguments are a problem of their call."""
        return tuple(_parsed(call, cut=reply.finish == "length") for call in reply.tool_calls)

    def turn(self, reply: ChatReply) -> Mapping[str, Any]:
        """Return the turn; arguments that are no JSON object are left out, since servers parse them again."""
        if not reply.tool_calls:
            return reply.message
        broken = {call.id for call in self.calls(reply) if call.problem}
        calls = [
            {**call, "function": {**call["function"], "arguments": "{}"}} if call["id"] in broken else call
            for call in reply.message["tool_calls"]
        ]
        return {**reply.message, "tool_calls": calls}

    def results(self, results: Sequence[tuple[ParsedCall, str]]) -> tuple[Mapping[str, Any], ...]:
        """Return one message a call."""
        return tuple({"role": "tool", "tool_call_id": call.id, "content": text} for call, text in results)


class TextProtocol:
    """One call a turn, as JSON in a fenced block: ``{"tool": NAME, "arguments": {…}}``."""

    name = "text"

    def offered(self, tools: Sequence[Tool]) -> tuple[Mapping[str, Any], ...]:
        """Return nothing: the system prompt lists the tools."""
        del tools
        return ()

    def calls(self, reply: ChatReply) -> tuple[ParsedCall, ...]:
        """Return the first call in the text; a block that is meant as one but cannot be read is a problem."""
        for text in _blocks(reply.content):
            found = _read(text)
            if isinstance(found, Mapping) and isinstance(found.get("function"), Mapping):
                found = found["function"]
            if isinstance(found, Mapping) and _ANSWER & found.keys():
                continue
            if isinstance(found, Mapping) and (name := _first(found, _NAMES)) is not None:
                arguments = _first(found, _ARGUMENTS)
                return (_checked("call", str(name), {} if arguments is None else arguments),)
            if found is None and '"tool"' in text:
                shown = " ".join(text.split())[:_SHOWN]
                return (ParsedCall("call", "", {}, f"the block is no JSON: {shown}"),)
        return ()

    def turn(self, reply: ChatReply) -> Mapping[str, Any]:
        """Return the text of the turn."""
        return {"role": "assistant", "content": reply.content}

    def results(self, results: Sequence[tuple[ParsedCall, str]]) -> tuple[Mapping[str, Any], ...]:
        """Return one message of the user with the result."""
        return tuple(
            {"role": "user", "content": f"Result of {call.name or 'the call'}:\n{text}"}
            for call, text in results
        )


def spoken(reply: ChatReply) -> ChatReply:
    """Return the reply with thoughts that the model wrote into its text moved to its reasoning.

    Servers without a parser for a model's thoughts leave them in the text, where a call or an answer that was
    only considered would count; models are not meant to see earlier thoughts again.
    """
    thoughts = [found[0] for found in _THOUGHT.finditer(reply.content)]
    if not thoughts:
        return reply
    content = _THOUGHT.sub("", reply.content).strip()
    return replace(
        reply,
        content=content,
        reasoning="\n".join(filter(None, (reply.reasoning, *thoughts))),
        message={**reply.message, "content": content},
    )


def tool_list(tools: Sequence[Tool]) -> str:
    """Return the tools as text, for the system prompt of the text protocol."""
    return "\n\n".join(
        f"{tool.name}: {tool.description}\nArguments: {json.dumps(tool.schema(), ensure_ascii=False)}"
        for tool in tools
    )


def _parsed(call: ToolCall, *, cut: bool) -> ParsedCall:
    try:
        arguments = json.loads(call.arguments or "{}")
    except (ValueError, RecursionError) as error:
        reason = "the reply reached its limit of output tokens" if cut else str(error)
        shown = call.arguments[:_SHOWN]
        return ParsedCall(call.id, call.name, {}, f"the arguments are no JSON ({reason}): {shown}")
    return _checked(call.id, call.name, arguments)


def _checked(key: str, name: str, arguments: Any) -> ParsedCall:
    if isinstance(arguments, str):  # some models write the object as a string in JSON
        arguments = _read(arguments)
    if isinstance(arguments, Mapping):
        return ParsedCall(key, name, arguments)
    return ParsedCall(key, name, {}, "the arguments are no JSON object")


def _blocks(text: str) -> Iterator[str]:
    """Yield the parts of a text that may be a call: tagged, fenced, or the whole text."""
    for pattern in (_TAGGED, _FENCED):
        for found in pattern.finditer(text):
            yield found.group(1).strip()
    if "{" in text:
        yield text[text.index("{") : text.rindex("}") + 1] if "}" in text else text[text.index("{") :]


def _read(text: str) -> Any:
    try:
        return json.loads(text)
    except (ValueError, RecursionError):
        return None


def _first(found: Mapping[str, Any], names: Sequence[str]) -> Any:
    return next((found[name] for name in names if name in found), None)
