"""Values of telemetry as strict JSON, without loss: a remote analyzer gets what one in process gets.

Texts, finite numbers, booleans, None, lists and dictionaries with text keys are written as themselves.
Everything else is an object ``{"$type": …, "value": …}``: ``float`` (NaN and infinities), ``tuple``,
``bytes`` (hexadecimal), ``decimal``, ``datetime``, ``date``, ``timedelta`` (microseconds), ``uuid``, ``ip``
and ``dict`` (pairs). Instances of subclasses arrive as instances of the base.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import fields
from datetime import date, datetime, timedelta
from decimal import Decimal
from ipaddress import IPv4Address, IPv6Address, ip_address
from typing import Any, TypeVar, cast, get_args
from uuid import UUID

from pydantic import BaseModel, TypeAdapter

from pytest_otel_diag.errors import QueryRejected, nearest
from pytest_otel_diag.model.questions import FOR_ANALYZERS, Latest, Question
from pytest_otel_diag.model.telemetry import QueryLimits, Table, TelemetrySchema

T = TypeVar("T")

_TYPE, _VALUE = "$type", "value"
_PLAIN = frozenset({str, int, bool, type(None)})
_MICROSECOND = timedelta(microseconds=1)

_WRITE: Mapping[type, tuple[str, Callable[[Any], Any]]] = {
    float: ("float", repr),
    tuple: ("tuple", lambda items: [encoded(item) for item in items]),
    dict: ("dict", lambda pairs: [[encoded(key), encoded(value)] for key, value in pairs.items()]),
    bytes: ("bytes", bytes.hex),
    Decimal: ("decimal", str),
    datetime: ("datetime", datetime.isoformat),
    date: ("date", date.isoformat),
    timedelta: ("timedelta", lambda length: length // _MICROSECOND),
    UUID: ("uuid", str),
    IPv4Address: ("ip", str),
    IPv6Address: ("ip", str),
}
_READ: Mapping[str, Callable[[Any], Any]] = {
    "float": float,
    "bytes": bytes.fromhex,
    "decimal": Decimal,
    "datetime": datetime.fromisoformat,
    "date": date.fromisoformat,
    "timedelta": lambda microseconds: microseconds * _MICROSECOND,
    "uuid": UUID,
    "ip": ip_address,
    "tuple": lambda items: tuple(map(decoded, items)),
    "dict": lambda pairs: {decoded(key): decoded(value) for key, value in pairs},
}
_BASES: tuple[tuple[type, Callable[[Any], Any]], ...] = (
    (BaseModel, dict),
    (str, str.__str__),
    (int, int),
    (float, float),
    (Mapping, dict),
    (Sequence, list),
)
"""How to make an instance of another type one of a known type."""


def encoded(value: Any) -> Any:
    """Return *value* as strict JSON; raises TypeError for a type that telemetry does not return."""
    kind = type(value)
    if kind in _PLAIN or (kind is float and math.isfinite(value)):
        return value
    if kind is list:
        return [encoded(item) for item in value]
    if kind is dict and _TYPE not in value and all(type(key) is str for key in value):
        return {key: encoded(item) for key, item in value.items()}
    if kind in _WRITE:
        name, write = _WRITE[kind]
        return _tagged(name, write(value))
    return encoded(_as_known(value))


def _as_known(value: Any) -> Any:
    for base, convert in _BASES:
        if isinstance(value, base):
            return convert(value)
    raise TypeError(f"a {type(value).__name__} cannot be sent")


def _tagged(name: str, value: Any) -> dict[str, Any]:
    return {_TYPE: name, _VALUE: value}


def decoded(value: Any) -> Any:
    """Return what :func:`encoded` wrote; raises ValueError for what it did not write."""
    if isinstance(value, list):
        return [decoded(item) for item in value]
    if not isinstance(value, dict):
        return value
    if _TYPE not in value:
        return {key: decoded(item) for key, item in value.items()}
    name = value[_TYPE]
    read = _READ.get(name) if isinstance(name, str) else None
    if read is None or value.keys() != {_TYPE, _VALUE}:
        raise ValueError(f"an object with {_TYPE} has a value and one of the types {', '.join(_READ)}")
    try:
        return read(value[_VALUE])
    except (TypeError, ArithmeticError) as error:
        raise ValueError(f"this is no {name}: {error}") from None


def encoded_table(table: Table) -> dict[str, Any]:
    """Return a table as ``{"names": …, "columns": …, "elapsed_s": …}``."""
    columns = [_column(column) for column in table.columns]
    return {"names": list(table.names), "columns": columns, "elapsed_s": table.elapsed_s}


def _column(column: Sequence[Any]) -> list[Any]:
    items = list(column)
    return items if _PLAIN.issuperset(map(type, items)) else [encoded(item) for item in items]


def decoded_table(body: Mapping[str, Any]) -> Table:
    """Return the table of :func:`encoded_table`; its columns are lists."""
    columns = tuple([decoded(cell) for cell in column] for column in body["columns"])
    return Table(tuple(body["names"]), columns, body["elapsed_s"])


def encoded_schema(schema: TelemetrySchema) -> dict[str, Any]:
    """Return a schema as ``{"database": …, "tables": {table: {column: type}}}``."""
    tables = {name: dict(columns) for name, columns in schema.tables.items()}
    return {"database": schema.database, "tables": tables}


def decoded_schema(body: Mapping[str, Any]) -> TelemetrySchema:
    """Return the schema of :func:`encoded_schema`."""
    return TelemetrySchema(body["database"], body["tables"])


def encoded_question(question: Question[Any]) -> dict[str, Any]:
    """Return a question as ``{"question": name, "arguments": {…}}``."""
    values = ((field.name, getattr(question, field.name)) for field in fields(question))
    arguments = {
        name: [encoded(item) for item in value] if isinstance(value, tuple) else encoded(value)
        for name, value in values
    }
    return {"question": question.name, "arguments": arguments}


def decoded_question(name: str, arguments: Mapping[str, Any]) -> Question[Any]:
    """Return a question that an analyzer may ask; raises QueryRejected and ValueError."""
    kinds = {kind.name: kind for kind in FOR_ANALYZERS}
    kind = kinds.get(name)
    if kind is None:
        known = ", ".join(kinds)
        raise QueryRejected(f"{name!r} is no question to telemetry{nearest(name, kinds)}; ask one of {known}")
    known_fields = [field.name for field in fields(kind)]
    for given in arguments:
        if given not in known_fields:
            text = f"{name} has no argument {given!r}{nearest(given, known_fields)}"
            raise QueryRejected(f"{text}; it takes {', '.join(known_fields)}")
    return TypeAdapter(kind).validate_python(decoded(dict(arguments)))


def encoded_answer(answer: Any) -> Any:
    """Return the answer to a question: a list of objects, or a number or None."""
    return encoded(list(answer)) if isinstance(answer, Sequence) else encoded(answer)


def decoded_answer(question: Question[T], body: Any) -> T:
    """Return the answer to *question*, rows as the models that it has in process."""
    if isinstance(question, Latest):
        return cast("T", body)
    row = _row_type(type(question))
    return cast("T", [row.model_construct(**decoded(fields_)) for fields_ in body])


def _row_type(kind: type[Question[Any]]) -> type[BaseModel]:
    """Return ``Row`` of a ``WindowQuestion[Sequence[Row]]``."""
    (base,) = kind.__orig_bases__  # type: ignore[attr-defined]  # of typing.Generic
    (rows,) = get_args(base)
    (row,) = get_args(rows)
    return cast("type[BaseModel]", row)


def encoded_limits(limits: QueryLimits | None) -> dict[str, Any] | None:
    """Return limits of a query as an object, None as None."""
    return None if limits is None else {name: encoded(value) for name, value in limits}


def decoded_limits(body: Mapping[str, Any] | None) -> QueryLimits | None:
    """Return limits of a query; the session brings them into its bounds. Raises ValueError."""
    if body is None:
        return None
    known = QueryLimits.model_fields
    for name, value in body.items():
        if name not in known:
            raise ValueError(f"there is no limit {name!r}{nearest(name, known)}; known: {', '.join(known)}")
        if not isinstance(decoded(value), int | float):
            raise ValueError(f"the limit {name} is {value!r}; give a number")
    usual = QueryLimits()
    return QueryLimits.model_construct(**{**dict(usual), **{key: decoded(one) for key, one in body.items()}})
