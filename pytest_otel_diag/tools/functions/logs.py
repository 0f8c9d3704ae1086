"""The tool ``log_templates``: kinds of log lines, and how often each came before and after."""

from __future__ import annotations

from pydantic import Field

from pytest_otel_diag.model.base import Model
from pytest_otel_diag.tools.contract import Tool, ToolContext
from pytest_otel_diag.tools.functions import change
from pytest_otel_diag.tools.functions.asking import over_relations, unknown_service
from pytest_otel_diag.tools.rows import Rows, listed, per_minute
from pytest_otel_diag.tools.windows import AGAINST_TEXT, WINDOW_TEXT, Shown, WindowArgument, compared, seconds

_COLUMNS = (
    "service",
    "severity",
    "template",
    "lines",
    "lines_before",
    "per_min",
    "per_min_before",
    "trace_id",
)


class TemplatesArguments(Model):
    """Arguments of ``log_templates``."""

    window: WindowArgument = Field(default="incident", description=WINDOW_TEXT)
    against: WindowArgument | None = Field(default=None, description=AGAINST_TEXT)
    service: str = Field(default="", description="Only this service; default: all.")
    contains: str = Field(default="", description="Only templates with this text, in any case of letters.")
    severe_only: bool = Field(default=False, description="Only warnings and worse.")


class Templates(Model):
    """Templates of log lines; those whose number changed most come first."""

    window: Shown
    against: Shown
    templates: Rows = Field(description="trace_id: a trace with such a line in the window, or empty.")


async def log_templates(context: ToolContext, arguments: TemplatesArguments) -> Templates:
    """Return the templates of both windows."""
    window, against, after, before = compared(context.investigation, arguments.window, arguments.against)
    table = await over_relations(
        context,
        "log_templates",
        ["lines"],
        [*after, *before],
        late=len(after),
        service=arguments.service,
        contains=arguments.contains,
        severe_only=int(arguments.severe_only),
    )
    narrowed = arguments.contains or arguments.severe_only
    if arguments.service and not len(table) and not narrowed:
        raise await unknown_service(context, arguments.service, [*after, *before])
    late, early = seconds(after), seconds(before)
    rows = sorted(table.rows(), key=lambda row: -change.of_counts(row[3], row[4], late, early))
    shown = [(*row[:5], per_minute(row[3], late), per_minute(row[4], early), row[5]) for row in rows]
    return Templates(
        window=window, against=against, templates=listed(_COLUMNS, shown, context.caps, share=0.85)
    )


LOG_TEMPLATES = Tool(
    name="log_templates",
    description=(
        "List kinds of log lines (words with digits become <*>) in a window and in an earlier one, those "
        "whose number changed most first; lines_before 0 marks new ones. trace_id is one for get_trace. "
        'Example: {"window": "incident", "service": "service-a", "severe_only": true}'
    ),
    arguments=TemplatesArguments,
    result=Templates,
    run=log_templates,
    signals=("logs",),
)
