"""The tools that there are, and the version of their texts."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence

from pytest_otel_diag.tools.contract import Tool
from pytest_otel_diag.tools.query import QUERY
from pytest_otel_diag.tools.submit import SUBMIT

TOOLS: tuple[Tool, ...] = (QUERY, SUBMIT)
"""The tools that a model is offered, in the order in which an investigation uses them."""

ALIASES: tuple[Tool, ...] = ()
"""Tools under the names of mcp-clickhouse, for prompts that were written for it."""


def version_of(tools: Sequence[Tool]) -> str:
    """Return a digest of names, descriptions and argument schemas: what a model reads of the tools."""
    texts = [[tool.name, tool.description, tool.schema()] for tool in tools]
    return hashlib.sha256(json.dumps(texts, sort_keys=True).encode()).hexdigest()[:12]


TOOLS_VERSION = version_of(TOOLS)
"""Version of the tools' texts, part of the identity of analyzers that show them to a model."""
