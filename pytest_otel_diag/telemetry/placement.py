"""Where the exporter's tables lie: in which databases, on one server or spread over the shards of a cluster.

A ``Distributed`` table holds nothing itself; it asks the local tables of all shards. What that means for
questions about whole traces depends on its sharding key:

* ``cityHash64(TraceId)``, or another function of ``TraceId`` alone: all spans of a trace are on one shard, so
  statements over the *local* tables, run on every shard, see whole traces.
* anything else (``rand()``, no key, a key of other columns): spans of one trace may be on several shards.
  Statements over local tables would be wrong without an error. They are right over the Distributed table.

This package always asks the Distributed tables, so its answers do not depend on the key: its statements group
by trace instead of joining, and shards send what the windows hold to the server that was asked, never to
Python. Joins and ``IN`` of two Distributed tables are made ``GLOBAL`` (``distributed_product_mode``), where
the server would refuse them otherwise.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal

from pytest_otel_diag.statements import load
from pytest_otel_diag.telemetry.engine.connection import Connection

Traces = Literal["one server", "whole on a shard", "spread over shards"]

_ENGINE = re.compile(r"^Distributed\((?P<arguments>.*)\)", re.DOTALL)
_PIECE = re.compile(r"'(?:[^'\\]|\\.)*'|`(?:[^`\\]|\\.)*`|[(),]|[^'`(),]+", re.DOTALL)
_NAME = re.compile(r"[A-Za-z_]\w*(?!\w)(?!\s*\()")
_TRACE_COLUMNS = frozenset({"TraceId", "trace"})


@dataclass(frozen=True, slots=True)
class ExporterTable:
    """A table of the exporter's layout.

    ``cluster``, ``local`` (``database.table``) and ``sharding_key`` are those of a Distributed table, empty
    for others.
    """

    database: str
    name: str
    engine: str
    cluster: str = ""
    local: str = ""
    sharding_key: str = ""

    @property
    def distributed(self) -> bool:
        """Whether it only asks the tables of a cluster's shards."""
        return self.engine == "Distributed"

    @property
    def traces(self) -> Traces:
        """Where the spans of one trace are."""
        if not self.distributed:
            return "one server"
        names = {name.strip("`") for name in _NAME.findall(self.sharding_key)}
        by_trace = bool(names) and names <= _TRACE_COLUMNS
        return "whole on a shard" if by_trace else "spread over shards"


def exporter_tables(connection: Connection) -> tuple[ExporterTable, ...]:
    """Return the tables in all databases that the user may see, in order of database and name."""
    found = connection.rows(load(__package__, "exporter_tables").sql)
    return tuple(_table(*(str(cell) for cell in row)) for row in found)


def _table(database: str, name: str, engine: str, full: str) -> ExporterTable:
    match = _ENGINE.match(full) if engine == "Distributed" else None
    if match is None:
        return ExporterTable(database, name, engine)
    # Settings may follow in parentheses of their own; the arguments end where the first ones close.
    arguments = [*_arguments(match["arguments"])]
    cluster, remote_database, remote_table, *rest = (*arguments, "", "", "")[: max(3, len(arguments))]
    return ExporterTable(
        database,
        name,
        engine,
        cluster=_plain(cluster),
        local=f"{_plain(remote_database)}.{_plain(remote_table)}",
        sharding_key=rest[0] if rest else "",
    )


def _arguments(text: str) -> Iterator[str]:
    """Yield the arguments at the top level of an engine's parentheses."""
    depth, argument = 0, ""
    for piece in _PIECE.findall(text):
        if piece == "(":
            depth += 1
        elif piece == ")":
            depth -= 1
            if depth < 0:
                break
        if piece == "," and not depth:
            yield argument.strip()
            argument = ""
        else:
            argument += piece
    if argument.strip():
        yield argument.strip()


def _plain(argument: str) -> str:
    """Return a name without its quotes."""
    return re.sub(r"\\(.)", r"\1", argument.strip().strip("'`\""))
