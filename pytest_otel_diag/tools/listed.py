"""The tools that there are, and the version of their texts."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence

from pytest_otel_diag.tools.contract import Tool
from pytest_otel_diag.tools.functions.aliases import LIST_DATABASES, LIST_TABLES, RUN_QUERY
from pytest_otel_diag.tools.functions.compare import COMPARE_WINDOWS
from pytest_otel_diag.tools.functions.describe import DESCRIBE_TABLES
from pytest_otel_diag.tools.functions.logs import LOG_TEMPLATES
from pytest_otel_diag.tools.functions.paths import CRITICAL_PATHS
from pytest_otel_diag.tools.functions.query import QUERY
from pytest_otel_diag.tools.functions.services import LIST_SERVICES
from pytest_otel_diag.tools.functions.submit import SUBMIT
from pytest_otel_diag.tools.functions.trace import GET_TRACE

TOOLS: tuple[Tool, ...] = (
    LIST_SERVICES,
    COMPARE_WINDOWS,
    CRITICAL_PATHS,
    LOG_TEMPLATES,
    GET_TRACE,
    DESCRIBE_TABLES,
    QUERY,
    SUBMIT,
)
"""The tools that a model is offered, in the order in which an investigation uses them."""

ALIASES: tuple[Tool, ...] = (RUN_QUERY, LIST_DATABASES, LIST_TABLES)
"""Tools under the names of mcp-clickhouse, for prompts that were written for it."""


def version_of(tools: Sequence[Tool]) -> str:
    """Return a digest of names, descriptions and argument schemas: what a model reads of the tools."""
    texts = [[tool.name, tool.description, tool.schema()] for tool in tools]
    return hashlib.sha256(json.dumps(texts, sort_keys=True).encode()).hexdigest()[:12]


TOOLS_VERSION = version_of(TOOLS)
"""Version of the tools' texts, part of the identity of analyzers that show them to a model."""
