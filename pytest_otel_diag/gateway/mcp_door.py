"""MCP over streamable HTTP. It is imported and built with the first request, which takes seconds of CPU time.

The server is stateless, because agents open a new MCP session for every call: what belongs to an access hangs
on its token. Answers are event streams, because only those notice that a client has left.
"""

from __future__ import annotations

import asyncio
import importlib
from collections.abc import MutableMapping
from typing import TYPE_CHECKING, Any

from pytest_otel_diag.daemon import in_daemon
from pytest_otel_diag.errors import ConfigurationError
from pytest_otel_diag.extras import require
from pytest_otel_diag.gateway.access import Lease
from pytest_otel_diag.gateway.exchange import LEASE, Receive, Refused, Scope, Send, read_body

if TYPE_CHECKING:
    from pytest_otel_diag.gateway.mcp_server import McpServer


class McpDoor:
    """Serves the tools of an access over MCP."""

    def __init__(self) -> None:
        self._building: asyncio.Task[McpServer] | None = None

    async def serve(self, lease: Lease, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request of an MCP client; raises Refused and Disconnected."""
        if scope["method"] != "POST":
            text = "this server opens no streams and keeps no MCP sessions; send every message with POST"
            raise Refused(405, "wrong_method", text, headers=(("allow", "POST"),))
        body = await read_body(lease, scope, receive)
        server = await self._built()
        await server.handle({**scope, LEASE: lease}, _after(body, receive), send)

    async def close(self) -> None:
        """End what runs beside requests."""
        if self._building is not None and self._building.done() and self._building.exception() is None:
            await self._building.result().close()

    async def _built(self) -> McpServer:
        if self._building is None:
            self._building = asyncio.ensure_future(_build())
        try:
            return await asyncio.shield(self._building)
        except ConfigurationError as error:
            self._building = None
            raise Refused(501, "not_installed", str(error)) from error


def _after(body: bytes, receive: Receive) -> Receive:
    """Return a function that yields a body that was read, then what happens on the connection."""
    read: list[MutableMapping[str, Any]] = [{"type": "http.request", "body": body, "more_body": False}]

    async def receive_again() -> MutableMapping[str, Any]:
        return read.pop() if read else await receive()

    return receive_again


async def _build() -> McpServer:
    def load() -> type[McpServer]:
        require("mcp", "agents", "MCP for agents", alternative="use the JSON API")
        found: type[McpServer] = importlib.import_module("pytest_otel_diag.gateway.mcp_server").McpServer
        return found

    return await (await in_daemon(load, "otel-diag gateway imports mcp")).started()
