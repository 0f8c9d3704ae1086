"""Calls of tools through either door: one place that makes them and writes them into the transcript."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import suppress
from typing import Any

from pytest_otel_diag.errors import OtelDiagError
from pytest_otel_diag.gateway.access import Lease
from pytest_otel_diag.model.base import to_json
from pytest_otel_diag.tools import ToolError


async def call_tool(lease: Lease, name: str, arguments: Mapping[str, Any]) -> str:
    """Return the result of a tool as JSON; raises ToolError."""
    lease.calls += 1
    call = {"name": name, "id": str(lease.calls)}
    await _record(lease, "tool_call", {**call, "arguments": arguments})
    try:
        text = to_json(await lease.toolbox.call(name, arguments))
    except ToolError as error:
        await _record(lease, "tool_result", {**call, "text": str(error), "error": True})
        raise
    await _record(lease, "tool_result", {**call, "text": text})
    return text


async def _record(lease: Lease, kind: str, content: Mapping[str, Any]) -> None:
    with suppress(OtelDiagError):  # the transcript is for people; the call goes on without it
        await lease.investigation.transcript.add(kind, content)
