"""Reads and writes OTLP/JSON, which differs from protobuf's own JSON mapping.

Trace and span ids are hexadecimal where protobuf expects base64, and one odd value must not cost a whole
request. So a document is checked here against the fields of the message, and protobuf gets plain data that
fits: a record with a value that its field cannot hold is left out and reported, a value is never emptied.
Unknown fields are ignored, and so is everything in them.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import cache
from typing import Any

from pytest_otel_diag.receiver import packages
from pytest_otel_diag.receiver.json_values import OddValue, hexadecimal, scalar, shown

_ANY_VALUE = "AnyValue"
_IDS = frozenset({"trace_id", "span_id", "parent_span_id"})
_GROUPS = (
    "ResourceSpans",
    "ScopeSpans",
    "ResourceLogs",
    "ScopeLogs",
    "ResourceMetrics",
    "ScopeMetrics",
    "Metric",
)
_RECORDS = frozenset({"spans", "logRecords", "log_records", "dataPoints", "data_points"})
_DEEPEST = 90  # protobuf refuses messages that are nested more than 100 levels deep
_REPORTED = 5  # names of unknown fields, and reasons of rejected records, that a response repeats


@dataclass(slots=True)
class Reading:
    """A request that was read, and what its document has beside it.

    ``rewritten`` says that the body is no longer what the message is. ``rejected`` counts the records left
    out because of a value that its field cannot hold; ``reasons`` name the first of these fields.
    ``unknown`` are names of ignored fields.
    """

    message: Any = None
    rewritten: bool = False
    rejected: int = 0
    reasons: list[str] = field(default_factory=list)
    unknown: list[str] = field(default_factory=list)
    _place: list[str] = field(default_factory=list)

    def ignore(self, name: str) -> None:
        """Note an unknown field."""
        if len(self.unknown) < _REPORTED and name not in self.unknown:
            self.unknown.append(name)

    def enter(self, item: str) -> None:
        """Note that a record, or a group of records, is read next."""
        self._place.append(item)

    def leave(self) -> None:
        """Note that the innermost record or group is read."""
        self._place.pop()

    def reject(self, odd: OddValue, records: int) -> None:
        """Leave out *records* records because of a value."""
        self.rejected += records
        if len(self.reasons) < _REPORTED:
            self.reasons.append(odd.at(".".join(self._place)))


def read(body: bytes, request: Any) -> Reading:
    """Parse *body* as a message of class *request*; raises ValueError when it is not OTLP/JSON.

    A document of which every record has to be left out is not OTLP/JSON either.
    """
    try:
        document = json.loads(body)
        reading = Reading(rewritten=True)
        tree = _shape(request.DESCRIPTOR)(document, reading, 1)
        if reading.rejected and not _records(tree):
            raise ValueError("; ".join(reading.reasons))
        reading.message = request(**tree)
    except OddValue as odd:
        raise ValueError(f"not OTLP/JSON: {odd.at('')}") from odd
    except RecursionError as error:
        raise ValueError("not OTLP/JSON: nested too deeply") from error
    except ValueError as error:
        raise ValueError(f"not OTLP/JSON: {error}") from error
    return reading


def write(message: Any) -> bytes:
    """Return a message as JSON."""
    text: str = packages.json_format().MessageToJson(message, indent=None)
    return text.encode()


_Convert = Callable[[Any, Reading, int], Any]
"""Returns the plain data of a value for protobuf; the last argument is the value's depth."""


@dataclass(frozen=True, slots=True)
class _Field:
    name: str
    convert: _Convert
    choice: str  # the oneof that the field belongs to


class _Shape:
    """Converts objects to the fields of one kind of message."""

    def __init__(self, descriptor: Any) -> None:
        self._descriptor = descriptor
        self._fields: Mapping[str, _Field] = {}
        self._any_value = descriptor.name == _ANY_VALUE

    def __call__(self, value: Any, reading: Reading, depth: int) -> dict[str, Any]:
        if type(value) is not dict:
            raise OddValue(f"{shown(value)} where an object belongs")
        if depth > _DEEPEST:
            raise OddValue("nested too deeply")
        fields = self._fields or self._read_fields()
        made: dict[str, Any] = {}
        chosen: dict[str, str] = {}
        for key, item in value.items():
            known = fields.get(key)
            if known is None:
                reading.ignore(key)
                continue
            if item is None:
                continue
            try:
                made[known.name] = known.convert(item, reading, depth + 1)
            except OddValue as odd:
                odd.within(key)
                raise
            if known.choice and chosen.setdefault(known.choice, key) != key:
                raise OddValue(f"both {chosen[known.choice]} and {key}, where one of them belongs")
        if value and self._any_value and fields.keys().isdisjoint(value):
            raise OddValue(f"no known kind of value: {', '.join(value)[:80]}")
        return made

    def _read_fields(self) -> Mapping[str, _Field]:
        """Return the fields by their names in JSON and in protobuf; on first use, as AnyValue has itself."""
        found: dict[str, _Field] = {}
        for each in self._descriptor.fields:
            choice = each.containing_oneof.name if each.containing_oneof else ""
            found[each.json_name] = found[each.name] = _Field(each.name, _converter(each), choice)
        self._fields = found
        return found


class _Items:
    """Converts lists; a null among values of attributes is a value that is not set."""

    def __init__(self, convert: _Convert, *, nullable: bool) -> None:
        self._convert = convert
        self._nullable = nullable

    def __call__(self, value: Any, reading: Reading, depth: int) -> list[Any]:
        made: list[Any] = []
        convert = self._convert
        for item in _list(value):
            try:
                made.append({} if item is None and self._nullable else convert(item, reading, depth))
            except OddValue as odd:
                odd.within(f"[{len(made)}]")
                raise
        return made


class _Groups:
    """Converts lists of records, or of groups of records, and leaves out those with odd values."""

    def __init__(self, convert: _Convert, name: str) -> None:
        self._convert = convert
        self._name = name

    def __call__(self, value: Any, reading: Reading, depth: int) -> list[Any]:
        made: list[Any] = []
        for number, item in enumerate(_list(value)):
            rejected = reading.rejected
            reading.enter(f"{self._name}[{number}]")
            try:
                made.append(self._convert(item, reading, depth))
            except OddValue as odd:
                reading.rejected = rejected  # those inside of a group are among the group's
                reading.reject(odd, max(1, _records(item)))
            reading.leave()
        return made


def _list(value: Any) -> list[Any]:
    if type(value) is not list:
        raise OddValue(f"{shown(value)} where a list belongs")
    return value


def _records(node: Any) -> int:
    """Return the number of records in (a part of) a document."""
    if not isinstance(node, dict):
        return 0
    own = sum(len(items) for key, items in node.items() if key in _RECORDS and isinstance(items, list))
    inner = [
        item
        for key, value in node.items()
        if key not in _RECORDS
        for item in (value if isinstance(value, list) else [value])
        if isinstance(item, dict) and key != "attributes"
    ]
    return own + sum(map(_records, inner))


@cache
def _shape(descriptor: Any) -> _Shape:
    return _Shape(descriptor)


def _converter(described: Any) -> _Convert:
    """Return the conversion of a field's value."""
    kind = described.message_type
    one: _Convert
    if kind is None:
        one = _single(hexadecimal if described.name in _IDS else scalar(described))
    else:
        one = _shape(kind)
    if not described.is_repeated:
        return one
    if kind is not None and (kind.name in _GROUPS or described.json_name in _RECORDS):
        return _Groups(one, _place_of(described))
    return _Items(one, nullable=kind is not None and kind.name == _ANY_VALUE)


def _single(convert: Callable[[Any], Any]) -> _Convert:
    return lambda value, _reading, _depth: convert(value)


def _place_of(described: Any) -> str:
    """Return a list's name in messages; data points are named with their kind (``gauge.dataPoints``)."""
    owner: str = described.containing_type.name
    prefix = f"{owner[0].lower()}{owner[1:]}." if described.name == "data_points" else ""
    return f"{prefix}{described.json_name}"
