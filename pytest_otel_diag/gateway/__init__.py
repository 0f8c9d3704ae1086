"""The doors to a session's telemetry for agents in processes of their own: MCP and JSON over HTTP.

One server a process listens on 127.0.0.1. :meth:`Gateway.access` opens it to one investigation, under a token
that is valid inside the block only.
"""

from pytest_otel_diag.gateway.access import Access, environment
from pytest_otel_diag.gateway.gateway import Gateway, shared_gateway

__all__ = ["Access", "Gateway", "environment", "shared_gateway"]
