"""What a statement's text and parameters may hold, before and after the engine has formatted it.

The rules over the formatted text do not depend on the tree: calls of functions and names of databases are
refused here too, so that a part which the engine's dump of the tree left out would not run unseen.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping

from pytest_otel_diag.errors import QueryRejected, nearest
from pytest_otel_diag.telemetry.guard.functions import (
    aggregates,
    allowed,
    allowed_source,
    functions,
    names_aggregate,
)

MAX_SQL_CHARS = 200_000
MAX_PARAMETERS_CHARS = 1_000_000
"""Size of all values of a statement; a number counts as eight characters."""

_STRING = r"'(?:[^'\\]|\\.)*'"
_TOKEN = re.compile(rf"{_STRING}|`(?:[^`\\]|\\.)*`|\"(?:[^\"\\]|\\.)*\"|\w+|[^\s\w]", re.DOTALL)
_UNSENDABLE = re.compile("[\0\ud800-\udfff]")
_LIKE_ATTRIBUTE = re.compile(r",\s*[\w ]+: ")
_CONTROL_ESCAPE = re.compile(r"\\[^\\']")
_COLUMN_DEFAULT = re.compile(r"\b(?:DEFAULT|MATERIALIZED|EPHEMERAL|ALIAS|CODEC|TTL)\b", re.IGNORECASE)
_PARAMETER = "{}"
"""The token that stands for a parameter, whose value is not known here."""
_STATES = "AggregateFunction"
TYPED_FUNCTIONS = frozenset(
    {
        "cast",
        "accuratecast",
        "accuratecastornull",
        "accuratecastordefault",
        "dynamicelement",
        "variantelement",
    }
)
"""Functions whose second argument names a type, in lower case."""
_KEYWORDS = re.compile(
    "SELECT|FROM|WHERE|PREWHERE|AND|OR|NOT|IN|GLOBAL|ON|BY|OVER|USING|JOIN|ALL|DISTINCT|EXCEPT|INTERSECT|"
    "UNION|HAVING|QUALIFY|COLUMNS|REPLACE|APPLY|SETS|LIMIT|OFFSET|INTERPOLATE|AS|LIKE|ILIKE|BETWEEN|THEN|WHEN|ELSE|"
    "CASE|ROWS|RANGE|GROUPS|FILL|TO|STEP|STALENESS|ROLLUP|CUBE|WITH|ANY|STRICT|DIV|MOD|IS"
)
"""What may stand before a bracket without being called."""


def check_text(sql: object, parameters: object) -> None:
    """Raise QueryRejected for what cannot be sent.

    That is a statement that is no text, parameters that are no mapping or too large, or text with lone
    surrogates (no UTF-8) or NUL (ends a string).
    """
    if not isinstance(sql, str):
        raise QueryRejected(f"the statement must be text, this is {type(sql).__name__}; write one SELECT")
    if not isinstance(parameters, Mapping):
        raise QueryRejected(
            f"parameters must be a mapping of name to value, these are {type(parameters).__name__}"
        )
    if len(sql) > MAX_SQL_CHARS:
        raise QueryRejected(f"the statement has {len(sql):,} characters, {MAX_SQL_CHARS:,} are allowed")
    _check_sendable("the statement", sql)
    size = 0
    for name, value in parameters.items():
        _check_sendable(f"the name of the parameter {name!r}", name)
        try:
            for item in _items(value):
                size += len(item) if isinstance(item, str | bytes) else 8
                _check_size(name, size)
                _check_sendable(f"the parameter {name!r}", item)
        except RecursionError:
            raise QueryRejected(f"the parameter {name!r} is nested too deep to be sent; flatten it") from None


def tokens(text: str) -> list[str]:
    """Return the tokens of a formatted text, one for each parameter.

    Raises QueryRejected for a parameter that names a table, or whose type is a state.
    """
    found: list[str] = []
    inside = False
    for token in _TOKEN.findall(text):
        if inside and token.lower() == "identifier":
            raise QueryRejected(
                "parameters of type Identifier cannot be checked; write table and column names out"
            )
        if inside:
            check_type(token)
        if token in {"{", "}"}:
            inside = token == "{"  # noqa: S105 - a token of SQL
            found.extend([_PARAMETER] if inside else [])
        elif not inside:
            found.append(token)
    return found


def check_formatted(text: str) -> list[str]:
    """Return the tokens of a formatted statement; raises QueryRejected for what no statement may hold."""
    found = tokens(text)
    for token in found:
        _check_name(token)
    _check_computed_types(found)
    for index, (token, following) in enumerate(zip(found, [*found[1:], ""], strict=True)):
        previous = found[index - 1] if index else ""
        if (token, following) == ("INTO", "OUTFILE"):
            raise QueryRejected("INTO OUTFILE is not allowed here; the rows are returned to the caller")
        if token == "FORMAT" and following != "(" and previous != "AS":  # noqa: S105 - a token of SQL
            raise QueryRejected("FORMAT is not allowed here; leave it out, rows are returned as a table")
        if token == "SETTINGS" and previous != "AS":  # noqa: S105 - a token of SQL
            raise QueryRejected("SETTINGS are not allowed here; leave them out, limits come from QueryLimits")
        arrow = found[index + 1 : index + 3] == ["-", ">"]
        applied = previous == "APPLY" and token != "(" and not arrow  # noqa: S105 - a token of SQL
        if following == "(" or applied:
            _check_call(token, previous)
            _check_literal(token, [*found[index + 1 : index + 3], "", ""])
        if previous == "(" and token[0] == "'" and index > 1 and found[index - 2] in {"COLUMNS", "EXCEPT"}:
            _check_pattern(token)
    return found


def unquoted(token: str) -> str:
    """Return a name without its quotes."""
    return token.strip('`"')


def _check_call(token: str, previous: str) -> None:
    if not (token[0] in '`"' or token[0].isalpha() or token[0] == "_") or _KEYWORDS.fullmatch(token):
        return
    name = unquoted(token)
    if previous != "AS" and not allowed(name) and not allowed_source(name):
        raise not_allowed(name)


def _check_literal(token: str, following: list[str]) -> None:
    """Refuse a function's or column's name that is passed as text, unless it is a literal.

    *following* begins with the opening bracket and the first token of the first argument.
    """
    name, first = unquoted(token).lower(), following[1]
    literal = first[1:-1] if following[0] == "(" and first[:1] == "'" else ""
    if name.startswith("arrayreduce") and not names_aggregate(literal):
        raise QueryRejected(
            f"the first argument of {unquoted(token)} must be a literal, the name of an aggregate function"
        )
    if name == "values" and first == ")":
        raise _bad_values()


def check_type(text: str, *, names_type: bool = True) -> None:
    """Raise QueryRejected for a state of an aggregate function: the engine decodes it without checks.

    A text that *names_type* may not hide one behind an escape in a quoted name either.
    """
    hidden = names_type and "\\" in text and ("`" in text or '"' in text)
    if _STATES in text or hidden:
        raise QueryRejected("states of aggregate functions are not allowed here; aggregate the rows")


def check_structure(text: str) -> None:
    """Raise QueryRejected unless the first argument of ``values`` holds only names and types."""
    check_type(text)
    if _COLUMN_DEFAULT.search(text):
        raise _bad_values()


def _bad_values() -> QueryRejected:
    return QueryRejected("values() takes literals, and columns of a name and a type, without defaults")


def _check_computed_types(found: list[str]) -> None:
    """Refuse a parameter as the type of a cast or of columns; the tree shows it as if it were a literal."""
    calls: list[str] = []
    commas: list[int] = []
    for previous, token in zip(["", *found], found, strict=False):
        if token in {"(", "["}:
            calls.append(unquoted(previous).lower() if token == "(" else "")  # noqa: S105 - a token of SQL
            commas.append(0)
        elif token in {")", "]"} and calls:
            calls.pop()
            commas.pop()
        elif token == "," and calls:  # noqa: S105 - a token of SQL
            commas[-1] += 1
        elif token == _PARAMETER:
            for call, before in zip(calls, commas, strict=True):
                if call in TYPED_FUNCTIONS and before == 1:
                    raise computed_type(call)
                if call == "values" and before == 0:
                    raise _bad_values()


def computed_type(function: str) -> QueryRejected:
    """Return the error for a type that is not written as a literal."""
    return QueryRejected(f"the type in {function} must be a literal, such as 'UInt8'; write it out")


def not_allowed(name: str) -> QueryRejected:
    """Return the error for a function that may not be called."""
    known = sorted(functions() | aggregates()) if len(name) > 4 else []
    return QueryRejected(
        f"the function {name!r} is not allowed here{nearest(name, known, cutoff=0.8)}; allowed are functions "
        "of their arguments: of texts, numbers, times, arrays, maps and JSON, aggregates and window functions"
    )


def _check_name(token: str) -> None:
    if token[0] not in '`"':
        return
    if "\\" in token or _LIKE_ATTRIBUTE.search(token):
        raise QueryRejected(
            f"the name {token} holds a quote, a control character or ', word: '; use a plain alias"
        )


def _check_pattern(token: str) -> None:
    if _CONTROL_ESCAPE.search(token.replace("\\\\", "")):
        raise QueryRejected(f"the pattern {token} holds a control character; write one without")


def _check_size(name: object, size: int) -> None:
    if size > MAX_PARAMETERS_CHARS:
        raise QueryRejected(
            f"the parameters are too large: with {name!r} over {MAX_PARAMETERS_CHARS:,} characters; "
            "join or aggregate in SQL instead of sending values"
        )


def _items(value: object) -> Iterator[object]:
    """Yield every text and number in a value, however deep."""
    if isinstance(value, Mapping):
        for key, item in value.items():
            yield from _items(key)
            yield from _items(item)
    elif isinstance(value, list | tuple | set | frozenset):
        for item in value:
            yield from _items(item)
    else:
        yield value


def _check_sendable(where: str, text: object) -> None:
    found = _UNSENDABLE.search(text) if isinstance(text, str) else None
    if found:
        what = "a NUL character" if found.group() == "\0" else f"the lone surrogate {found.group()!r}"
        raise QueryRejected(
            f"{where} holds {what} at position {found.start()}, which cannot be sent; remove it, or "
            "compare with what is really stored (unhex, char)"
        )
