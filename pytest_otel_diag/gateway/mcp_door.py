"""MCP over streamable HTTP, imported and built with the first request: it takes seconds of CPU time."""

from __future__ import annotations

from pytest_otel_diag.gateway.access import Lease
from pytest_otel_diag.gateway.exchange import Receive, Refused, Scope, Send


class McpDoor:
    """Serves the tools of an access over MCP."""

    async def serve(self, lease: Lease, scope: Scope, receive: Receive, send: Send) -> None:  # noqa: ARG002 - later
        """Answer one request of an MCP client; raises Refused."""
        raise Refused(501, "not_implemented", "MCP is not served yet; use the JSON API")

    async def close(self) -> None:
        """End what runs beside requests."""
