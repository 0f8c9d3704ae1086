"""``otel-diag mcp-bridge``: MCP over standard input and output, forwarded to the gateway of a run."""

from __future__ import annotations

import asyncio
import sys
from contextlib import suppress

from pytest_otel_diag.config.agent_access import mcp_access
from pytest_otel_diag.extras import require


def command() -> None:
    """Forward MCP between standard input and output and a run, for agents that only speak stdio.

    The address and the token come from the environment variables OTEL_DIAG_MCP_URL and OTEL_DIAG_TOKEN, which
    an agent under test has. Ends when standard input closes.
    """
    url, token = mcp_access()
    bridge = require(
        "pytest_otel_diag.gateway.bridge", "agents", "the bridge between stdio and MCP over HTTP"
    )

    def write(line: str) -> None:
        sys.stdout.write(f"{line}\n")
        sys.stdout.flush()

    with suppress(BrokenPipeError, KeyboardInterrupt):
        asyncio.run(bridge.Bridge(url, token, write).run(bridge.lines_of(sys.stdin.fileno())))
