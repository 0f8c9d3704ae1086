"""Forwards MCP from standard input and output to the gateway, for clients that only speak stdio.

Messages pass through unchanged, one a line. What the HTTP transport says in headers is taken from them.
"""

from __future__ import annotations

import asyncio
import json
import os
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import suppress
from typing import Any

import httpx

from pytest_otel_diag.daemon import start_thread
from pytest_otel_diag.secret import SecretText

_CANCELLED = "notifications/cancelled"
_VERSION_KEY = "io.modelcontextprotocol/protocolVersion"
_PARSE_ERROR, _INTERNAL_ERROR = -32700, -32603
_LAST_ANSWERS_S = 2.0
_CONNECT_S = 10.0
_MOST_SHOWN = 500


class Bridge:
    """One conversation; *write* sends a line to the client."""

    def __init__(self, url: str, token: SecretText, write: Callable[[str], None]) -> None:
        self._url = url
        self._write = write
        self._version = ""
        self._calls: dict[str, asyncio.Task[None]] = {}
        headers = {
            "authorization": f"Bearer {token.reveal()}",
            "accept": "application/json, text/event-stream",
            "content-type": "application/json",
        }
        timeout = httpx.Timeout(None, connect=_CONNECT_S)
        limits = httpx.Limits(max_connections=None)
        self._client = httpx.AsyncClient(headers=headers, timeout=timeout, limits=limits, trust_env=False)

    async def run(self, lines: AsyncIterator[str]) -> None:
        """Forward until *lines* end; calls that run then get little time to be answered."""
        async with self._client:
            async for line in lines:
                if line.strip():
                    await self._take(line)
            if self._calls:
                await asyncio.wait(self._calls.values(), timeout=_LAST_ANSWERS_S)
            for call in list(self._calls.values()):
                call.cancel()
            await asyncio.gather(*self._calls.values(), return_exceptions=True)

    async def _take(self, line: str) -> None:
        try:
            message = json.loads(line)
        except (ValueError, RecursionError) as error:
            self._fail(None, f"the line is not JSON: {error}", _PARSE_ERROR)
            return
        if not isinstance(message, dict):
            self._fail(None, "the line is no JSON object; send one message a line", _PARSE_ERROR)
            return
        method, number = message.get("method"), message.get("id")
        params = message.get("params")
        if method == _CANCELLED and isinstance(params, dict):
            call = self._calls.get(json.dumps(params.get("requestId")))
            if call is not None:
                call.cancel()  # closing its connection cancels the call at the gateway
            return
        key = json.dumps(number)
        call = asyncio.ensure_future(self._forward(line, message))
        if number is None:
            await call
            return
        self._calls[key] = call
        call.add_done_callback(lambda _: self._calls.pop(key, None))
        if method == "initialize":  # its answer decides the header of the next messages
            await asyncio.wait({call})

    async def _forward(self, line: str, message: Mapping[str, Any]) -> None:
        """Send one message and write its answers, an error of the connection included."""
        number = message.get("id")
        try:
            headers = self._headers(message)
            async with self._client.stream("POST", self._url, content=line, headers=headers) as answer:
                if answer.headers.get("content-type", "").startswith("text/event-stream"):
                    await self._events(answer)
                else:
                    self._whole(answer, (await answer.aread()).decode("utf-8", "replace"), number)
        except Exception as error:
            why = str(error) or type(error).__name__
            self._fail(number, f"the gateway at {self._url} does not answer: {why}")

    async def _events(self, answer: httpx.Response) -> None:
        async for event in answer.aiter_lines():
            if event.startswith("data:") and event[5:].strip():
                self._answer(event[5:].strip())

    def _whole(self, answer: httpx.Response, body: str, number: object) -> None:
        with suppress(ValueError):
            found = json.loads(body)
            if isinstance(found, dict) and "jsonrpc" in found:
                self._answer(body)
                return
            if isinstance(found, dict) and isinstance(found.get("error"), dict):
                body = str(found["error"].get("message", body))
        if answer.is_error:
            self._fail(number, f"the gateway refused the call ({answer.status_code}): {body[:_MOST_SHOWN]}")

    def _answer(self, text: str) -> None:
        message = json.loads(text)
        result = message.get("result")
        if isinstance(result, dict) and isinstance(result.get("protocolVersion"), str):
            self._version = result["protocolVersion"]
        self._write(json.dumps(message))

    def _fail(self, number: object, text: str, code: int = _INTERNAL_ERROR) -> None:
        """Answer a request with an error; a notification has no answer."""
        if number is not None or code == _PARSE_ERROR:
            error = {"jsonrpc": "2.0", "id": number, "error": {"code": code, "message": text}}
            self._write(json.dumps(error))

    def _headers(self, message: Mapping[str, Any]) -> dict[str, str]:
        params = message.get("params")
        meta = params.get("_meta") if isinstance(params, dict) else None
        stated = meta.get(_VERSION_KEY) if isinstance(meta, dict) else None
        if not isinstance(stated, str):
            return {"mcp-protocol-version": self._version} if self._version else {}
        headers = {"mcp-protocol-version": stated, "mcp-method": str(message.get("method"))}
        name = params.get("name") if isinstance(params, dict) else None
        if isinstance(name, str) and name.isascii() and name.isprintable():
            headers["mcp-name"] = name
        return headers


async def lines_of(descriptor: int) -> AsyncIterator[str]:
    """Yield the lines that arrive on a descriptor; a thread reads it, since it may be any kind of file."""
    loop = asyncio.get_running_loop()
    arrived: asyncio.Queue[bytes] = asyncio.Queue()

    def read() -> None:
        with suppress(RuntimeError, OSError):  # the loop or the descriptor is closed: the command ends
            while True:
                piece = os.read(descriptor, 1 << 16)
                loop.call_soon_threadsafe(arrived.put_nowait, piece)
                if not piece:
                    return

    start_thread(read, "otel-diag mcp-bridge stdin")
    left = bytearray()
    while piece := await arrived.get():
        *whole, rest = piece.split(b"\n")
        for line in whole:
            yield (left + line).decode("utf-8", "replace")
            left.clear()
        left += rest
    yield left.decode("utf-8", "replace")
