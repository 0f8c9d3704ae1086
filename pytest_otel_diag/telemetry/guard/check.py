"""Which SQL an analyzer may run: one statement that reads the session's own tables.

The engine's own parser decides, not patterns over text. ``formatQuerySingleLine`` refuses several
statements and returns the canonical text without comments; ``EXPLAIN AST`` of that text gives the
tree that is checked; and the canonical text is what runs, so what was checked is what runs.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from pytest_otel_diag.errors import QueryRejected, nearest
from pytest_otel_diag.telemetry.engine.connection import Connection

MAX_SQL_CHARS = 200_000
TABLE_FUNCTIONS = frozenset(
    {
        "numbers",
        "numbers_mt",
        "zeros",
        "zeros_mt",
        "generateseries",
        "generate_series",
        "values",
        "view",
        "null",
    }
)
_ROOTS = (
    "SelectWithUnionQuery",
    "SelectIntersectExceptQuery",
    "Explain",
    "DescribeQuery",
    "ShowTables",
    "ShowColumns",
)
_QUERIES = frozenset(
    {
        "SelectQuery",
        "SelectWithUnionQuery",
        "SelectIntersectExceptQuery",
        "TablesInSelectQuery",
        "DescribeQuery",
    }
)
_EXPLAINS = frozenset({"EXPLAIN AST", "EXPLAIN SYNTAX"})
"""The forms that tell nothing but the statement: the others name the tables behind the views."""

_OUTSIDE_FUNCTIONS = re.compile(
    r"^(?:file|joinGet\w*|dict\w+|catboostEvaluate|evalMLMethod|getMacro|getServerSetting|getMergeTreeSetting|"
    r"hasColumnInTable|getClientHTTPHeader|sleep\w*|generateSerialID|showCertificate|addressTo\w+|remote\w*)$",
    re.IGNORECASE,
)
_IN_FUNCTIONS = frozenset(
    {
        "in",
        "notin",
        "globalin",
        "globalnotin",
        "nullin",
        "notnullin",
        "globalnullin",
        "globalnotnullin",
        "inignoreset",
        "notinignoreset",
        "globalinignoreset",
        "globalnotinignoreset",
    }
)
_NODE = re.compile(r"^(?P<indent> *)(?P<kind>\w+)(?: (?P<rest>.*))?$", re.DOTALL)
_CHILDREN = re.compile(r" \(children \d+\)$")
_ALIAS = re.compile(r" \(alias .*\)$", re.DOTALL)
_STRING = r"'(?:[^'\\]|\\.)*'"
_TOKEN = re.compile(rf"{_STRING}|`(?:[^`\\]|\\.)*`|\"(?:[^\"\\]|\\.)*\"|\w+|[^\s\w]", re.DOTALL)
_UNSENDABLE = re.compile("[\0\ud800-\udfff]")
_SETTINGS = re.compile(r"\bSETTINGS\s+\w+\s*=")
_IDENTIFIER_PARAMETER = re.compile(r"\{\s*\w+\s*:\s*Identifier\s*\}", re.IGNORECASE)


@dataclass(frozen=True, slots=True)
class Node:
    """One line of ``EXPLAIN AST``: depth in the tree, kind of node, what follows it."""

    depth: int
    kind: str
    rest: str


@dataclass(frozen=True, slots=True)
class StatementScope:
    """What the statement may name: the session's database, and which databases exist (asked when needed)."""

    database: str
    databases: Callable[[], frozenset[str]]

    @property
    def others(self) -> frozenset[str]:
        """The databases that the statement may not name."""
        return self.databases() - {self.database}


def check_text(sql: object, parameters: object) -> None:
    """Raise QueryRejected for what cannot be sent.

    That is a statement that is no text, parameters that are no mapping, or text with lone surrogates
    (no UTF-8) or NUL (ends a string).
    """
    if not isinstance(sql, str):
        raise QueryRejected(f"the statement must be text, this is {type(sql).__name__}; write one SELECT")
    if not isinstance(parameters, Mapping):
        raise QueryRejected(
            f"parameters must be a mapping of name to value, these are {type(parameters).__name__}"
        )
    _check_text("the statement", sql)
    for name, value in parameters.items():
        _check_text(f"the name of the parameter {name!r}", name)
        try:
            for text in _texts(value):
                _check_text(f"the parameter {name!r}", text)
        except RecursionError:
            raise QueryRejected(f"the parameter {name!r} is nested too deep to be sent; flatten it") from None


def _texts(value: object) -> Iterator[str]:
    """Yield every text in a value, however deep."""
    if isinstance(value, str):
        yield value
    elif isinstance(value, Mapping):
        for key, item in value.items():
            yield from _texts(key)
            yield from _texts(item)
    elif isinstance(value, list | tuple | set | frozenset):
        for item in value:
            yield from _texts(item)


def _check_text(where: str, text: object) -> None:
    found = _UNSENDABLE.search(text) if isinstance(text, str) else None
    if found:
        what = "a NUL character" if found.group() == "\0" else f"the lone surrogate {found.group()!r}"
        raise QueryRejected(
            f"{where} holds {what} at position {found.start()}, which cannot be sent; remove it, or "
            "compare with what is really stored (unhex, char)"
        )


def canonical(connection: Connection, sql: str) -> str:
    """Return the one statement in *sql* as the engine prints it; driver errors tell a syntax error."""
    if not sql.strip():
        raise QueryRejected("the statement is empty; write one SELECT")
    if len(sql) > MAX_SQL_CHARS:
        raise QueryRejected(f"the statement has {len(sql):,} characters, {MAX_SQL_CHARS:,} are allowed")
    text = str(connection.rows("SELECT formatQuerySingleLine({sql:String})", {"sql": sql})[0][0])
    _check_output(text)
    return text


def tree(connection: Connection, sql: str, parameters: Mapping[str, Any]) -> tuple[Node, ...]:
    """Return the syntax tree of a canonical statement."""
    return tuple(_nodes("\n".join(connection.lines(f"EXPLAIN AST {sql}", parameters))))


def check(sql: str, nodes: Sequence[Node], scope: StatementScope) -> None:
    """Raise QueryRejected unless the canonical statement only reads what the session may see."""
    root = nodes[0]
    if root.kind not in _ROOTS:
        raise QueryRejected(
            f"only SELECT, WITH, EXPLAIN, DESCRIBE and SHOW TABLES/COLUMNS may run here, this is {root.kind}"
        )
    if _IDENTIFIER_PARAMETER.search(_without_strings(sql)):
        raise QueryRejected(
            "parameters of type Identifier cannot be checked; write table and column names out"
        )
    _check_kind(sql, nodes)
    _check_settings(sql, nodes)
    for index, node in enumerate(nodes):
        if node.kind == "TableIdentifier":
            _check_table(node.rest, scope)
        elif node.kind == "Function":
            _check_function(node, _ancestry(nodes, index, most=1))
        elif node.kind == "Identifier" and root.kind.startswith("Show"):
            _check_shown(node.rest, scope)
        elif node.kind == "Identifier" and _right_of_in(nodes, index, _ancestry(nodes, index, most=2)):
            _check_in(node.rest, scope)
    if root.kind == "ShowColumns":
        _check_show_columns(sql, scope)


def _nodes(text: str) -> Iterator[Node]:
    for line in text.split("\n"):
        match = _NODE.match(line)
        if match:
            rest = _ALIAS.sub("", _CHILDREN.sub("", f" {match['rest'] or ''}")).strip()
            yield Node(len(match["indent"]), match["kind"], rest)


def _ancestry(nodes: Sequence[Node], index: int, *, most: int) -> list[Node]:
    """Return the parents of a node, nearest first, at most so many."""
    parents: list[Node] = []
    depth = nodes[index].depth
    for above in range(index - 1, -1, -1):
        if len(parents) == most or not depth:
            break
        if nodes[above].depth < depth:
            parents.append(nodes[above])
            depth = nodes[above].depth
    return parents


def _check_output(sql: str) -> None:
    """Refuse what would redirect the answer; before EXPLAIN, which would obey it."""
    tokens = _TOKEN.findall(sql)
    for token, following in zip(tokens, [*tokens[1:], ""], strict=True):
        if (token, following) == ("INTO", "OUTFILE"):
            raise QueryRejected("INTO OUTFILE is not allowed here; the rows are returned to the caller")
    for position in (len(tokens) - 2, tokens.index("SETTINGS") - 2 if "SETTINGS" in tokens else -1):
        if position > 0 and tokens[position] == "FORMAT" and tokens[position + 1].isalnum():
            raise QueryRejected("FORMAT is not allowed here; leave it out, rows are returned as a table")


def _check_kind(sql: str, nodes: Sequence[Node]) -> None:
    for node in nodes:
        if node.kind.endswith("Query") and node.kind not in _QUERIES:
            raise QueryRejected(f"only reading is allowed here, the statement holds {node.kind}")
    if nodes[0].kind == "Explain" and nodes[0].rest not in _EXPLAINS:
        raise QueryRejected(
            f"{nodes[0].rest} is not allowed here; allowed are {', '.join(sorted(_EXPLAINS))}"
        )
    if nodes[0].kind == "ShowTables" and not re.match(r"SHOW (?:FULL )?TABLES\b", sql):
        raise QueryRejected("of SHOW only SHOW TABLES and SHOW COLUMNS may run here")
    for token in _TOKEN.findall(sql):
        if token[0] in '`"' and "\\" in token:
            raise QueryRejected(f"the name {token} holds a quote or control character; use a plain alias")


def _check_settings(sql: str, nodes: Sequence[Node]) -> None:
    """Refuse SETTINGS wherever they stand; EXPLAIN's options are settings, too, and may stay."""
    explained = nodes[0].kind == "Explain"
    found = any(node.kind == "Set" and not (explained and node.depth == 1) for node in nodes)
    if found or _SETTINGS.search(_without_strings(sql)):
        raise QueryRejected("SETTINGS are not allowed here; leave them out, limits come from QueryLimits")


def _check_private(name: str) -> None:
    """Refuse names that start with an underscore: such tables steer what the session may see."""
    if name.rpartition(".")[2].startswith("_"):
        raise QueryRejected(
            f"the table {name!r} is private, like all whose name starts with '_'; SHOW TABLES lists those "
            "that may be read (a subquery or array of that name: give it another)"
        )


def _check_table(name: str, scope: StatementScope) -> None:
    _check_private(name)
    database, dot, _ = name.partition(".")
    own = name.startswith(f"{scope.database}.") and not _foreign(name, scope)
    if not dot or own:
        return
    hint = (
        "SHOW TABLES and DESCRIBE TABLE list tables and columns"
        if database.lower() == "system"
        else "write the table's name alone"
    )
    raise QueryRejected(f"table {name!r} is outside this session; {hint}")


def _check_function(node: Node, parents: Sequence[Node]) -> None:
    name = node.rest
    if parents and parents[0].kind == "TableExpression" and name.lower() not in TABLE_FUNCTIONS:
        raise QueryRejected(
            f"the table function {name!r} reaches outside this session{nearest(name, TABLE_FUNCTIONS)}; "
            f"allowed are {', '.join(sorted(TABLE_FUNCTIONS))}"
        )
    if _OUTSIDE_FUNCTIONS.match(name):
        raise QueryRejected(f"the function {name!r} reaches outside this session and is not allowed here")


def _right_of_in(nodes: Sequence[Node], index: int, parents: Sequence[Node]) -> bool:
    """Whether the identifier is the right-hand side of an IN: there it may name a table."""
    if len(parents) < 2 or parents[1].kind != "Function" or parents[1].rest.lower() not in _IN_FUNCTIONS:
        return False
    siblings = [n for n in nodes[index + 1 :] if n.depth <= nodes[index].depth]
    return not siblings or siblings[0].depth < nodes[index].depth


def _check_in(name: str, scope: StatementScope) -> None:
    _check_private(name)
    if _foreign(name, scope):
        _check_table(name, scope)


def _foreign(name: str, scope: StatementScope) -> bool:
    """Whether a dotted name may start with the name of another database (names may hold dots)."""
    parts = name.split(".")
    prefixes = {".".join(parts[:count]) for count in range(1, len(parts))}
    return bool(prefixes) and bool(prefixes & scope.others)


def _check_shown(name: str, scope: StatementScope) -> None:
    if name in scope.others:
        raise QueryRejected(f"database {name!r} is outside this session; write SHOW TABLES alone")


def _check_show_columns(sql: str, scope: StatementScope) -> None:
    for token in _TOKEN.findall(_without_strings(sql)):
        _check_private(token.strip('`"'))
        _check_shown(token.strip('`"'), scope)


def _without_strings(sql: str) -> str:
    return re.sub(_STRING, "''", sql, flags=re.DOTALL)
