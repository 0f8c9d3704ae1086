"""The calls of mcp-clickhouse, so that prompts which were written for it work unchanged."""

from __future__ import annotations

from pydantic import Field

from pytest_otel_diag.errors import nearest
from pytest_otel_diag.model.base import Model
from pytest_otel_diag.tools.contract import Tool, ToolContext, ToolError
from pytest_otel_diag.tools.functions.describe import described
from pytest_otel_diag.tools.functions.query import QueryArguments, query
from pytest_otel_diag.tools.rows import Rows, listed

_EXPORTED = "default"
"""The database that the exporter writes to unless configured otherwise, under which prompts may ask."""


class RunQueryArguments(Model):
    """Arguments of ``run_query``."""

    query: str = Field(description="One ClickHouse SELECT; see the tool query.", min_length=1)


async def run_query(context: ToolContext, arguments: RunQueryArguments) -> Rows:
    """Run the statement as the tool ``query`` does."""
    return await query(context, QueryArguments(sql=arguments.query))


class NoArguments(Model):
    """No arguments."""


class Databases(Model):
    """The databases that can be read."""

    databases: tuple[str, ...]


async def list_databases(context: ToolContext, arguments: NoArguments) -> Databases:  # noqa: ARG001
    """Return the database of the session."""
    schema = await context.investigation.telemetry.schema()
    return Databases(databases=(schema.database,))


class ListTablesArguments(Model):
    """Arguments of ``list_tables``."""

    database: str = Field(default="", description="The database that list_databases names.")
    like: str = Field(default="", description="Only tables whose name contains this text.")


class Tables(Model):
    """The tables of the database, with columns and ClickHouse types."""

    database: str
    tables: Rows


async def list_tables(context: ToolContext, arguments: ListTablesArguments) -> Tables:
    """Return tables and columns; raises ToolError for another database."""
    schema = await context.investigation.telemetry.schema()
    known = (schema.database, _EXPORTED, "")
    if arguments.database not in known:
        raise ToolError(
            f"there is no database {arguments.database!r}{nearest(arguments.database, known)}; "
            f"the telemetry is in {schema.database}"
        )
    wanted = arguments.like.strip("%").lower()
    rows = [
        (table, [f"{column} {kind}" for column, kind in schema.tables[table].items()])
        for table in described(schema)
        if wanted in table.lower()
    ]
    return Tables(database=schema.database, tables=listed(("name", "columns"), rows, context.caps, share=0.9))


RUN_QUERY = Tool(
    name="run_query",
    description='The tool query under another name. Example: {"query": "SELECT count() FROM otel_traces"}',
    arguments=RunQueryArguments,
    result=Rows,
    run=run_query,
    alias_of="query",
)
LIST_DATABASES = Tool(
    name="list_databases",
    description="Name the database that holds the telemetry. Example: {}",
    arguments=NoArguments,
    result=Databases,
    run=list_databases,
    alias_of="describe_tables",
)
LIST_TABLES = Tool(
    name="list_tables",
    description=(
        "List tables with their columns and types; describe_tables also explains them. "
        'Example: {"like": "traces"}'
    ),
    arguments=ListTablesArguments,
    result=Tables,
    run=list_tables,
    alias_of="describe_tables",
)
