"""The tools of an access as an MCP server of the ``mcp`` package."""

from __future__ import annotations

import asyncio
import json
import logging
import threading
from typing import Any

from mcp.server.context import ServerRequestContext
from mcp.server.lowlevel import Server
from mcp.server.streamable_http_manager import StreamableHTTPSessionManager
from mcp_types import (
    CallToolRequestParams,
    CallToolResult,
    ListToolsResult,
    PaginatedRequestParams,
    TextContent,
    Tool,
    ToolAnnotations,
)

from pytest_otel_diag.gateway.access import Lease
from pytest_otel_diag.gateway.calls import call_tool
from pytest_otel_diag.gateway.exchange import LEASE, MOST_BODY_BYTES, Receive, Scope, Send
from pytest_otel_diag.tools import ToolError

_NAME = "otel-diag"
_SUBMIT = "submit_diagnosis"
_INSTRUCTIONS = (
    "Telemetry of one incident: traces, logs and metrics of OpenTelemetry in ClickHouse. The present is the "
    "end of the incident window, not the time of the machine. Investigate with the tools, then call "
    "submit_diagnosis once."
)
_TALKATIVE = ("mcp.server.streamable_http", "mcp.server.streamable_http_manager")

_Context = ServerRequestContext[Any, Any]


class McpServer:
    """One MCP server for all accesses, running on the loop that made it."""

    def __init__(self) -> None:
        server: Server[Any] = Server(
            _NAME,
            instructions=_INSTRUCTIONS,
            on_list_tools=_list_tools,
            on_call_tool=_call_tool,
            get_tool_input_schema=lambda _: None,  # no argument travels in a header
        )
        server.middleware.clear()  # it emits spans, which could reach the system under diagnosis
        self._manager = StreamableHTTPSessionManager(
            server, stateless=True, json_response=False, max_request_body_size=MOST_BODY_BYTES
        )
        self._stopping = asyncio.Event()
        self._ready = asyncio.Event()
        self._task = asyncio.ensure_future(self._run())

    @classmethod
    async def started(cls) -> McpServer:
        """Return a server that is ready for requests."""
        server = cls()
        for name in _TALKATIVE:
            logging.getLogger(name).addFilter(_Quiet(threading.get_ident()))
        await server._ready.wait()
        return server

    async def handle(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one HTTP request."""
        await self._manager.handle_request(scope, receive, send)

    async def close(self) -> None:
        """End every call and the server."""
        self._stopping.set()
        await self._task

    async def _run(self) -> None:
        async with self._manager.run():
            self._ready.set()
            await self._stopping.wait()


class _Quiet(logging.Filter):
    """Drops what the server's thread logs about ordinary requests."""

    def __init__(self, thread: int) -> None:
        super().__init__()
        self._thread = thread

    def filter(self, record: logging.LogRecord) -> bool:
        return record.thread != self._thread or record.levelno >= logging.WARNING


def _lease(context: _Context) -> Lease:
    assert context.request is not None
    lease: Lease = context.request.scope[LEASE]
    return lease


async def _list_tools(context: _Context, _: PaginatedRequestParams | None) -> ListToolsResult:
    toolbox = _lease(context).toolbox
    tools = [
        Tool(
            name=tool.name,
            description=tool.description,
            input_schema=tool.schema(),
            output_schema=tool.result_schema(),
            annotations=ToolAnnotations(read_only_hint=tool.name != _SUBMIT, destructive_hint=False),
        )
        for tool in (*toolbox.tools, *toolbox.aliases)
    ]
    return ListToolsResult(tools=tools)


async def _call_tool(context: _Context, call: CallToolRequestParams) -> CallToolResult:
    """Return the result as text and as structured content; errors are text that a model can act on."""
    try:
        text = await call_tool(_lease(context), call.name, call.arguments or {})
    except ToolError as error:
        return _failed(str(error))
    except Exception as error:
        return _failed(f"the tool failed: {type(error).__name__}: {error}")
    return CallToolResult(content=[TextContent(text=text)], structured_content=json.loads(text))


def _failed(text: str) -> CallToolResult:
    return CallToolResult(content=[TextContent(text=text)], is_error=True)
