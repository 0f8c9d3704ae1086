"""A scripted OpenAI-compatible server: real HTTP, and a policy instead of a model.

A policy is a function of the :class:`Conversation` that returns what to answer, so that a test knows what a
model would do. It sees only what a model sees: messages and tools. Run by hand, to point an agent at it::

    python -m tests.support.scripted_model competent --port 8099
"""

from __future__ import annotations

import argparse
import asyncio
import json
import re
import threading
from collections.abc import AsyncIterator, Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import uvicorn
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, Response, StreamingResponse
from starlette.routing import Route

from tests.support.deadlines import deadline_s

Messages = list[dict[str, Any]]


@dataclass(frozen=True)
class Call:
    """A tool call; ``arguments`` may be a text, to send JSON that is broken."""

    name: str
    arguments: Mapping[str, Any] | str = field(default_factory=dict)

    def text(self) -> str:
        return self.arguments if isinstance(self.arguments, str) else json.dumps(self.arguments)


@dataclass(frozen=True)
class Say:
    """An answer of the model: text, tool calls, or a refusal."""

    content: str = ""
    calls: tuple[Call, ...] = ()
    refusal: str = ""
    finish: str = ""
    reasoning: str = ""
    cut_after: int | None = None
    """Break the connection after this many chunks of the stream, or before the end of a whole answer."""


@dataclass(frozen=True)
class Fail:
    """An error of the API."""

    status: int
    message: str = "scripted failure"
    code: str | None = None
    headers: Mapping[str, str] = field(default_factory=dict)
    body: Any = None


class Stall:
    """Never answer."""


Answer = Say | Fail | Stall


@dataclass(frozen=True)
class Conversation:
    """What the model sees; ``attempt`` is the number of requests of this server so far, from 1.

    ``offered`` are the names of the tools, as the request or the system prompt of a text protocol has them.
    """

    messages: Messages
    offered: tuple[str, ...]
    attempt: int
    body: Mapping[str, Any]

    @property
    def turn(self) -> int:
        """Number of the model's turn, from 1."""
        return 1 + sum(message["role"] == "assistant" for message in self.messages)

    def tool(self, name: str) -> str:
        """Return the offered tool of this name; agents may put a prefix before names of MCP tools."""
        return next((tool for tool in self.offered if tool == name or tool.endswith(f"_{name}")), name)

    def results(self) -> list[str]:
        """Return the results of tools so far, as texts."""
        return [
            text_of(message)
            for message in self.messages
            if message["role"] == "tool" or text_of(message).startswith("Result of ")
        ]

    def asked(self) -> str:
        """Return everything that system and user said."""
        return "\n".join(text_of(m) for m in self.messages if m["role"] in {"system", "developer", "user"})


Policy = Callable[[Conversation], Answer]


def text_of(message: Mapping[str, Any]) -> str:
    """Return the text of a message whose content is a text or a list of parts."""
    content = message.get("content") or ""
    if isinstance(content, list):
        return "".join(part.get("text", "") for part in content)
    return content


class ScriptedModel:
    """The ASGI application; ``requests`` holds the bodies that it got, ``headers`` their headers."""

    def __init__(self, policy: Policy, *, context_tokens: int = 1_000_000, tools: bool = True) -> None:
        self.policy = policy
        self.context_tokens = context_tokens
        self.tools = tools
        self.requests: list[dict[str, Any]] = []
        self.headers: list[dict[str, str]] = []
        self.stalled = 0
        self._lock = threading.Lock()
        path = "/v1/chat/completions"
        self.app = Starlette(
            routes=[
                Route(path, self.complete, methods=["POST"]),
                Route("/v1/models", self.models, methods=["GET"]),
            ]
        )

    async def models(self, request: Request) -> Response:
        return JSONResponse({"object": "list", "data": [{"id": "scripted", "object": "model"}]})

    async def complete(self, request: Request) -> Response:
        body = await request.json()
        with self._lock:
            self.requests.append(body)
            self.headers.append(dict(request.headers))
            attempt = len(self.requests)
        names = tuple(tool["function"]["name"] for tool in body.get("tools") or ())
        tokens = _tokens(body["messages"]) + _tokens(body.get("tools") or [])
        if refused := self._refused(body, names, tokens):
            return _error(refused)
        listed = re.findall(r"^([a-z_]+): .*\nArguments: ", text_of(body["messages"][0]), re.MULTILINE)
        answer = self.policy(Conversation(body["messages"], names or tuple(listed), attempt, body))
        if isinstance(answer, Fail):
            return _error(answer)
        if isinstance(answer, Stall):
            self.stalled += 1
            while not await request.is_disconnected():  # noqa: ASYNC110 - starlette has no event for it
                await asyncio.sleep(0.02)
            return Response(status_code=499)
        return _said(answer, attempt, tokens, body)

    def _refused(self, body: Mapping[str, Any], names: tuple[str, ...], tokens: int) -> Fail | None:
        """Return the error that a real API answers to this request."""
        if names and not self.tools:
            return Fail(400, "scripted does not support tools", "invalid_request_error")
        if tokens > self.context_tokens:
            text = (
                f"This model's maximum context length is {self.context_tokens} tokens. "
                f"However, your messages resulted in {tokens} tokens."
            )
            return Fail(400, text, "context_length_exceeded")
        problem = invalid(body)
        return Fail(400, problem, "invalid_request_error") if problem else None


def _said(answer: Say, attempt: int, tokens: int, body: Mapping[str, Any]) -> Response:
    usage = {"prompt_tokens": tokens, "completion_tokens": _tokens([answer.content, _wire(answer)])}
    usage["total_tokens"] = sum(usage.values())
    if body.get("stream"):
        return StreamingResponse(_events(answer, attempt, usage, body), media_type="text/event-stream")
    if answer.cut_after is not None:
        return StreamingResponse(
            iter([b'{"choices"']), headers={"content-length": "1000"}, media_type="application/json"
        )
    return JSONResponse(_whole(answer, attempt, usage))


def invalid(body: Mapping[str, Any]) -> str:
    """Return why OpenAI would refuse the messages: each tool call needs one result, after its turn."""
    open_calls: set[str] = set()
    for message in body["messages"]:
        if message["role"] == "tool":
            if message["tool_call_id"] not in open_calls:
                return f"tool result {message['tool_call_id']} answers no tool call before it"
            open_calls.discard(message["tool_call_id"])
            continue
        if open_calls:
            return f"tool calls without results: {', '.join(sorted(open_calls))}"
        for call in message.get("tool_calls") or ():
            try:
                json.loads(call["function"]["arguments"])
            except ValueError:
                return "the arguments of a tool call are not JSON"  # chat templates of vLLM need it
            open_calls.add(call["id"])
    return f"tool calls without results: {', '.join(sorted(open_calls))}" if open_calls else ""


def _tokens(parts: list[Any]) -> int:
    return sum(len(json.dumps(part)) // 4 + 4 for part in parts)


def _wire(answer: Say) -> list[dict[str, Any]]:
    return [{"name": call.name, "arguments": call.text()} for call in answer.calls]


def _finish(answer: Say) -> str:
    return answer.finish or ("tool_calls" if answer.calls else "stop")


def _message(answer: Say, attempt: int) -> dict[str, Any]:
    message: dict[str, Any] = {"role": "assistant", "content": answer.content or None}
    if answer.refusal:
        message["refusal"] = answer.refusal
    if answer.reasoning:
        message["reasoning_content"] = answer.reasoning
    if answer.calls:
        message["tool_calls"] = [
            {"id": f"call_{attempt}_{number}", "type": "function", "function": function}
            for number, function in enumerate(_wire(answer))
        ]
    return message


def _whole(answer: Say, attempt: int, usage: dict[str, int]) -> dict[str, Any]:
    choice = {"index": 0, "message": _message(answer, attempt), "finish_reason": _finish(answer)}
    return {
        "id": f"chatcmpl-{attempt}",
        "object": "chat.completion",
        "created": 1_700_000_000,
        "model": "scripted-1",
        "choices": [choice],
        "usage": usage,
    }


def _deltas(answer: Say, attempt: int) -> Iterator[dict[str, Any]]:
    """Yield the answer in pieces, arguments of calls split in the middle, as OpenAI does."""
    yield {"role": "assistant", "content": ""}
    message = _message(answer, attempt)
    for name in ("reasoning_content", "content", "refusal"):
        text = message.get(name) or ""
        yield from ({name: text[at : at + 7]} for at in range(0, len(text), 7))
    for index, call in enumerate(message.get("tool_calls", ())):
        arguments = call["function"]["arguments"]
        head = {**call, "index": index, "function": {**call["function"], "arguments": ""}}
        yield {"tool_calls": [head]}
        for at in range(0, len(arguments), 9):
            yield {"tool_calls": [{"index": index, "function": {"arguments": arguments[at : at + 9]}}]}


async def _events(
    answer: Say, attempt: int, usage: dict[str, int], body: Mapping[str, Any]
) -> AsyncIterator[bytes]:
    head = {"id": f"chatcmpl-{attempt}", "object": "chat.completion.chunk", "model": "scripted-1"}

    def event(choices: list[dict[str, Any]], **more: Any) -> bytes:
        return f"data: {json.dumps({**head, 'choices': choices, **more})}\n\n".encode()

    for number, delta in enumerate(_deltas(answer, attempt)):
        if answer.cut_after == number:
            return
        yield event([{"index": 0, "delta": delta, "finish_reason": None}])
    yield event([{"index": 0, "delta": {}, "finish_reason": _finish(answer)}])
    if (body.get("stream_options") or {}).get("include_usage"):
        yield event([], usage=usage)
    yield b"data: [DONE]\n\n"


def _error(failure: Fail) -> Response:
    kind = "invalid_request_error" if failure.status < 429 else "server_error"
    body = {"error": {"message": failure.message, "type": kind, "param": None, "code": failure.code}}
    found = body if failure.body is None else failure.body
    if isinstance(found, str):
        return Response(found, failure.status, dict(failure.headers), "text/html")
    return JSONResponse(found, failure.status, dict(failure.headers))


@dataclass(frozen=True)
class Served:
    """A running server: ``url`` ends in ``/v1``."""

    url: str
    model: ScriptedModel


@contextmanager
def served(model: ScriptedModel | Policy, port: int = 0) -> Iterator[Served]:
    """Serve on 127.0.0.1 while the block runs."""
    model = model if isinstance(model, ScriptedModel) else ScriptedModel(model)
    config = uvicorn.Config(
        model.app, host="127.0.0.1", port=port, log_level="error", lifespan="off", timeout_graceful_shutdown=1
    )
    server = uvicorn.Server(config)
    socket = config.bind_socket()
    socket.listen()  # from here on clients wait instead of being refused
    thread = threading.Thread(target=server.run, args=([socket],), daemon=True)
    thread.start()
    try:
        yield Served(f"http://127.0.0.1:{socket.getsockname()[1]}/v1", model)
    finally:
        server.should_exit = True
        thread.join(deadline_s(10))
        socket.close()


def main() -> None:
    """Serve a policy until interrupted."""
    from tests.support import model_policies  # noqa: PLC0415 - policies import this module

    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("policy", choices=sorted(model_policies.POLICIES))
    parser.add_argument("--port", type=int, default=0)
    arguments = parser.parse_args()
    with served(model_policies.POLICIES[arguments.policy], arguments.port) as server:
        print(server.url, flush=True)
        threading.Event().wait()


if __name__ == "__main__":
    main()
