"""The environment variables in which an agent finds its access to telemetry."""

from __future__ import annotations

import os
from collections.abc import Mapping

from pytest_otel_diag.errors import ConfigurationError
from pytest_otel_diag.secret import SecretText, hidden

URL = "OTEL_DIAG_URL"
MCP_URL = "OTEL_DIAG_MCP_URL"
TOKEN = "OTEL_DIAG_TOKEN"  # noqa: S105 - the name of a variable


def mcp_access(environ: Mapping[str, str] | None = None) -> tuple[str, SecretText]:
    """Return the address of MCP and the token; raises ConfigurationError where one is missing."""
    found = os.environ if environ is None else environ
    missing = [name for name in (MCP_URL, TOKEN) if not found.get(name)]
    if missing:
        raise ConfigurationError(
            f"{' and '.join(missing)} not set; an agent under test has the address of MCP and a token "
            "in its environment, and otel-diag serve prints both"
        )
    return found[MCP_URL], hidden(found[TOKEN])
