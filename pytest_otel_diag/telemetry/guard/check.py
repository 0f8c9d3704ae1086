"""Which SQL an analyzer may run: one statement that reads the session's own tables.

``formatQuerySingleLine`` refuses several statements and returns one formatted text without comments. That
text, and the tree that the engine's analyzer builds of it, are checked, and that text is what runs. Statement
kinds, functions, table functions, tables and kinds of nodes are lists of what is allowed; everything else is
refused.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from itertools import pairwise
from typing import Any, Literal

from pytest_otel_diag.errors import QueryRejected, SchemaError, nearest
from pytest_otel_diag.telemetry.engine.connection import Connection
from pytest_otel_diag.telemetry.guard.functions import TABLE_FUNCTIONS, allowed, allowed_source
from pytest_otel_diag.telemetry.guard.text import (
    TYPED_FUNCTIONS,
    check_formatted,
    check_structure,
    check_type,
    computed_type,
    not_allowed,
    tokens,
    unquoted,
)
from pytest_otel_diag.telemetry.guard.tree import Node, parsed

Kind = Literal["select", "explain", "describe", "show tables", "show columns"]

_NAME = r"(?:\w+|`[^`\\]+`)"
_EXPLAIN = re.compile(
    r"EXPLAIN (?:AST|SYNTAX)(?: (?:oneline|run_query_tree_passes) = [01],?)* (?P<select>[(SW].*)", re.DOTALL
)
_DESCRIBE = re.compile(rf"(?:DESCRIBE|DESC) TABLE (?P<table>{_NAME}(?:\.{_NAME})?)")
_SHOW_TABLES = re.compile(r"SHOW TABLES")
_SHOW_COLUMNS = re.compile(rf"SHOW COLUMNS FROM (?P<table>{_NAME})")
_SELECT = re.compile(r"[(\s]*(?:SELECT|WITH)\b")
_TABLE_HEADINGS = frozenset(
    {"JOIN TREE", "TABLE EXPRESSION", "LEFT TABLE EXPRESSION", "RIGHT TABLE EXPRESSION"}
)
_IN_FUNCTIONS = frozenset(
    f"{prefix}{name}{suffix}".lower()
    for prefix in ("", "global")
    for name in ("in", "notIn", "nullIn", "notNullIn")
    for suffix in ("", "IgnoreSet")
)
_NO_ROWS_FROM = "system.one"
"""The table that the tree shows for a SELECT without FROM; the text of a statement may not name it."""


@dataclass(frozen=True, slots=True)
class Parsed:
    """A formatted statement: its kind, its text, the tree of its SELECT, the table that it describes."""

    kind: Kind
    text: str
    tokens: tuple[str, ...] = ()
    tree: Node | None = None
    table: str = ""


@dataclass(frozen=True, slots=True)
class StatementScope:
    """What the statement may name: the session's database, its tables, and which databases exist."""

    database: str
    tables: Callable[[], frozenset[str]]
    databases: Callable[[], frozenset[str]]

    @property
    def others(self) -> frozenset[str]:
        """The databases that the statement may not name."""
        return self.databases() - {self.database}

    @property
    def readable(self) -> frozenset[str]:
        """The tables that may be read: those whose name does not start with an underscore."""
        return frozenset(name for name in self.tables() if not name.startswith("_"))


def parse(connection: Connection, sql: str, parameters: Mapping[str, Any]) -> Parsed:
    """Return the statement as the engine understands it.

    Raises QueryRejected for what no session may run, and driver errors for bad syntax. *parameters* returns
    the values for the names in a formatted text.
    """
    if not sql.strip():
        raise QueryRejected("the statement is empty; write one SELECT")
    text = str(connection.rows("SELECT formatQuerySingleLine({sql:String})", {"sql": sql})[0][0])
    for pattern, kind in _INSPECTIONS:
        match = pattern.fullmatch(text)
        if match:
            table = match.groupdict().get("table", "")
            return Parsed(kind, text, table="".join(map(unquoted, tokens(table))))
    explained = _EXPLAIN.fullmatch(text)
    select = explained["select"] if explained else text
    if not _SELECT.match(select):
        raise QueryRejected(
            "only SELECT, WITH, EXPLAIN AST, EXPLAIN SYNTAX, DESCRIBE TABLE name, SHOW TABLES and "
            "SHOW COLUMNS FROM name may run here, without further clauses; "
            f"this is {' '.join(text.split()[:3])}"
        )
    found = check_formatted(select)
    lines = connection.lines(f"EXPLAIN QUERY TREE run_passes = 0 {select}", parameters)
    tree = parsed(lines)
    _check_tree(tree)
    return Parsed("explain" if explained else "select", text, tuple(found), tree)


_INSPECTIONS: tuple[tuple[re.Pattern[str], Kind], ...] = (
    (_SHOW_TABLES, "show tables"),
    (_SHOW_COLUMNS, "show columns"),
    (_DESCRIBE, "describe"),
)


def check(statement: Parsed, scope: StatementScope) -> None:
    """Raise QueryRejected or SchemaError unless the statement only reads what the session may see."""
    if statement.table:
        _check_table(statement.table, scope, frozenset())
    _check_names(statement.tokens, scope)
    if statement.tree is None:
        return
    nodes = list(statement.tree.walk())
    local = frozenset(node.get("cte_name") for node in nodes) | {
        node.get("alias") for node in nodes if node.kind in {"QUERY", "UNION"}
    }
    for node in nodes:
        if node.kind == "IDENTIFIER" and node.heading in _TABLE_HEADINGS:
            _check_table(node.get("identifier"), scope, local - {""})
        elif node.kind == "FUNCTION" and node.get("function_name").lower() in _IN_FUNCTIONS:
            _check_in(node.under("ARGUMENTS")[1:], scope)


def _check_tree(tree: Node) -> None:
    """Raise QueryRejected for functions and table functions that no session may use."""
    for node in tree.walk():
        if node.kind == "FUNCTION":
            _check_function(node)
        elif node.kind == "TABLE_FUNCTION":
            _check_source(node)
        elif node.kind == "CONSTANT":
            check_type(node.get("constant_value"), names_type=False)


def _check_function(node: Node) -> None:
    name = node.get("function_name")
    if name == "_CAST":  # how the engine writes a parameter
        return
    if not allowed(name):
        raise not_allowed(name)
    for argument in _named_type(node):
        if argument.kind != "CONSTANT":
            raise computed_type(name)
        check_type(argument.get("constant_value"))


def _named_type(call: Node) -> list[Node]:
    """Return the argument of the call that names a type, none where no argument does."""
    return call.under("ARGUMENTS")[1:2] if call.get("function_name").lower() in TYPED_FUNCTIONS else []


def _check_source(node: Node) -> None:
    name = node.get("table_function_name")
    if not allowed_source(name):
        raise QueryRejected(
            f"the table function {name!r} reaches outside this session{nearest(name, TABLE_FUNCTIONS)}; "
            f"allowed are {', '.join(sorted(TABLE_FUNCTIONS))}"
        )
    for argument in node.under("ARGUMENTS")[:1]:
        if name.lower() == "values" and argument.kind == "CONSTANT":
            check_structure(argument.get("constant_value"))


def _check_names(found: tuple[str, ...], scope: StatementScope) -> None:
    """Refuse private tables and other databases wherever their names stand, whatever the tree says."""
    private = scope.tables() - scope.readable
    followed = {unquoted(one) for one, after in pairwise(found) if after == "."}
    for token in found:
        if token[0] != "'" and unquoted(token) in private:
            raise _private(unquoted(token))
    for name in sorted(followed & scope.others) if followed else ():
        raise _outside(name)


def _check_table(name: str, scope: StatementScope, local: frozenset[str]) -> None:
    """Raise unless the name is a readable table of the session or a subquery of the statement."""
    if name == _NO_ROWS_FROM or name in local:
        return
    table = name.removeprefix(f"{scope.database}.")
    if table.startswith("_"):
        raise _private(table)
    if table in scope.readable:
        return
    if "." in name:
        raise _outside(name.partition(".")[0])
    readable = sorted(scope.readable)
    if not readable:
        raise SchemaError(
            f"table {name!r} does not exist; database {scope.database!r} holds no telemetry tables: point "
            "the DSN at the database that the collector's ClickHouse exporter writes to"
        )
    raise SchemaError(
        f"table {name!r} does not exist; known tables: {', '.join(readable)}{nearest(table, readable)}"
    )


def _check_in(right: list[Node], scope: StatementScope) -> None:
    """Refuse tables of others on the right-hand side of IN; a column or alias may stand there, too."""
    for node in right:
        name = node.get("identifier")
        if name.removeprefix(f"{scope.database}.").startswith("_"):
            raise _private(name)
        if _foreign(name, scope):
            raise _outside(name.partition(".")[0])


def _foreign(name: str, scope: StatementScope) -> bool:
    """Whether a dotted name may start with the name of another database (names may hold dots)."""
    parts = name.split(".")
    prefixes = {".".join(parts[:count]) for count in range(1, len(parts))}
    return bool(prefixes) and bool(prefixes & scope.others)


def _outside(database: str) -> QueryRejected:
    hint = (
        "SHOW TABLES and DESCRIBE TABLE list tables and columns"
        if database.lower() == "system"
        else "write the names of tables alone"
    )
    return QueryRejected(f"the database {database!r} is outside this session; {hint}")


def _private(name: str) -> QueryRejected:
    return QueryRejected(
        f"the table {name!r} is private, like all whose name starts with '_'; SHOW TABLES lists those "
        "that may be read (a subquery or array of that name: give it another)"
    )
