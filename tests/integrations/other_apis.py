"""The APIs of Anthropic and OpenAI (Responses) over the policies of the scripted model.

Coding agents speak these instead of chat completions. Only what the agents need is served: each request
becomes the messages and tools of a :class:`Conversation`, and each part of the answer goes out in one piece.
"""

from __future__ import annotations

import json
from collections.abc import AsyncIterator, Iterator, Mapping
from typing import Any

from starlette.requests import Request
from starlette.responses import JSONResponse, Response, StreamingResponse
from starlette.routing import Route

from tests.support.scripted_model import Call, Conversation, Messages, Say, ScriptedModel, text_of

Json = dict[str, Any]
CODE_MODE = "functions__exec"


class EveryApi(ScriptedModel):
    """A scripted model with the other APIs beside chat completions."""

    def __init__(self, policy: Any) -> None:
        super().__init__(policy)
        self.app.router.routes += [
            Route("/v1/messages", self.anthropic, methods=["POST"]),
            Route("/v1/messages/count_tokens", self.count, methods=["POST"]),
            Route("/v1/responses", self.responses, methods=["POST"]),
        ]

    def says(self, messages: Messages, tools: tuple[str, ...], body: Json) -> Say:
        self.requests.append(body)
        answer = self.policy(Conversation(messages, tools, len(self.requests), body))
        assert isinstance(answer, Say), f"{answer} has no form in this API"
        return answer

    async def count(self, request: Request) -> Response:
        return JSONResponse({"input_tokens": len(await request.body()) // 4})

    async def anthropic(self, request: Request) -> Response:
        body = await request.json()
        tools = tuple(tool["name"] for tool in body.get("tools") or ())
        answer = self.says(list(of_anthropic(body)), tools, body)
        number = len(self.requests)
        content: list[Json] = [{"type": "text", "text": answer.content}] if answer.content else []
        content += [
            {"type": "tool_use", "id": f"toolu_{number}_{at}", "name": call.name, "input": call.arguments}
            for at, call in enumerate(answer.calls)
        ]
        message = {
            "id": f"msg_{number}",
            "type": "message",
            "role": "assistant",
            "model": body["model"],
            "content": content,
            "stop_reason": "tool_use" if answer.calls else "end_turn",
            "stop_sequence": None,
            "usage": {"input_tokens": 100, "output_tokens": 20},
        }
        return _streamed(anthropic_events(message)) if body.get("stream") else JSONResponse(message)

    async def responses(self, request: Request) -> Response:
        body = await request.json()
        offered = [*(body.get("tools") or ())]
        for item in body["input"]:
            offered += item.get("tools") or () if item.get("type") == "additional_tools" else ()
        tools, spaces = tuple(_names(offered)), _namespaces(offered)
        answer = self.says(list(of_responses(body)), tools, body)
        number = len(self.requests)
        output: list[Json] = []
        if answer.content:
            part = {"type": "output_text", "text": answer.content, "annotations": []}
            head = {"type": "message", "id": f"msg_{number}", "role": "assistant", "status": "completed"}
            output.append({**head, "content": [part]})
        for at, call in enumerate(answer.calls):
            keys = {"id": f"fc_{number}_{at}", "call_id": f"call_{number}_{at}", "status": "completed"}
            if CODE_MODE in spaces:
                script = {"name": "exec", "namespace": "functions", "input": in_code(call)}
                output.append({"type": "custom_tool_call", **keys, **script})
                continue
            where = spaces.get(call.name, {"name": call.name})
            output.append({"type": "function_call", **keys, **where, "arguments": call.text()})
        usage = {"input_tokens": 100, "output_tokens": 20, "total_tokens": 120}
        whole = {"id": f"resp_{number}", "object": "response", "status": "completed", "output": output}
        return _streamed(responses_events({**whole, "usage": usage}))


def _call(key: str, name: str, arguments: Any) -> Json:
    text = arguments if isinstance(arguments, str) else json.dumps(arguments)
    return {"id": key, "type": "function", "function": {"name": name, "arguments": text}}


def of_anthropic(body: Mapping[str, Any]) -> Iterator[Json]:
    """Yield the messages as chat completions have them."""
    yield {"role": "system", "content": text_of({"content": body.get("system") or ""})}
    for message in body["messages"]:
        content = message["content"]
        blocks = [{"type": "text", "text": content}] if isinstance(content, str) else content
        text = "".join(block["text"] for block in blocks if block["type"] == "text")
        calls = [_call(b["id"], b["name"], b["input"]) for b in blocks if b["type"] == "tool_use"]
        for block in blocks:
            if block["type"] == "tool_result":
                yield {"role": "tool", "tool_call_id": block["tool_use_id"], "content": block["content"]}
        if text or calls:
            yield {"role": message["role"], "content": text, **({"tool_calls": calls} if calls else {})}


def anthropic_events(message: Json) -> Iterator[tuple[str, Json]]:
    yield "message_start", {"message": {**message, "content": [], "stop_reason": None}}
    for index, block in enumerate(message["content"]):
        used = block["type"] == "tool_use"
        empty = {**block, "input": {}} if used else {**block, "text": ""}
        delta = (
            {"type": "input_json_delta", "partial_json": json.dumps(block["input"])}
            if used
            else {"type": "text_delta", "text": block["text"]}
        )
        yield "content_block_start", {"index": index, "content_block": empty}
        yield "content_block_delta", {"index": index, "delta": delta}
        yield "content_block_stop", {"index": index}
    reason = {"stop_reason": message["stop_reason"], "stop_sequence": None}
    yield "message_delta", {"delta": reason, "usage": {"output_tokens": 20}}
    yield "message_stop", {}


def _namespaces(tools: Any) -> Mapping[str, Json]:
    """Return how tools of a namespace are called, by one name for both; Codex groups tools of MCP servers."""
    return {
        f"{tool['name']}__{one['name']}": {"namespace": tool["name"], "name": one["name"]}
        for tool in tools
        for one in tool.get("tools") or ()
    }


def _names(tools: Any) -> Iterator[str]:
    yield from (tool.get("name") or tool["type"] for tool in tools if not tool.get("tools"))
    yield from _namespaces(tools)


def in_code(call: Call) -> str:
    """Return the call as JavaScript, which also lists the tools; some models of Codex have no other way."""
    return f"""text("all tools: " + ALL_TOOLS.map((tool) => tool.name).join(" ") + "\\n");
text(JSON.stringify((await tools.mcp__otel_diag__{call.name}({call.text()})).structuredContent));"""


def of_responses(body: Mapping[str, Any]) -> Iterator[Json]:
    """Yield the messages as chat completions have them."""
    yield {"role": "system", "content": body.get("instructions") or ""}
    for item in body["input"]:
        kind = item.get("type", "message")
        if kind == "message":
            yield {"role": item["role"], "content": item["content"]}
        elif kind == "function_call":
            call = _call(item["call_id"], item["name"], item["arguments"])
            yield {"role": "assistant", "content": "", "tool_calls": [call]}
        elif kind == "custom_tool_call":
            call = _call(item["call_id"], item["name"], {"script": item["input"]})
            yield {"role": "assistant", "content": "", "tool_calls": [call]}
        elif kind in {"function_call_output", "custom_tool_call_output"}:
            output = item["output"]
            text = output if isinstance(output, str) else text_of({"content": output})
            yield {"role": "tool", "tool_call_id": item["call_id"], "content": text}


def responses_events(response: Json) -> Iterator[tuple[str, Json]]:
    yield "response.created", {"response": {**response, "status": "in_progress", "output": []}}
    for index, item in enumerate(response["output"]):
        yield "response.output_item.added", {"output_index": index, "item": item}
        yield "response.output_item.done", {"output_index": index, "item": item}
    yield "response.completed", {"response": response}


def _streamed(events: Iterator[tuple[str, Json]]) -> Response:
    async def lines() -> AsyncIterator[bytes]:
        for name, data in events:
            yield f"event: {name}\ndata: {json.dumps({'type': name, **data})}\n\n".encode()

    return StreamingResponse(lines(), media_type="text/event-stream")
