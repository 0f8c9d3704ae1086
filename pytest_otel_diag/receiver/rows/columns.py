"""Builds the Arrow columns of the exporter's tables; the only module of the receiver that imports pyarrow."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from itertools import accumulate, chain
from typing import TYPE_CHECKING, Any

from pytest_otel_diag import arrow
from pytest_otel_diag.receiver.rows import values

if TYPE_CHECKING:
    import pyarrow

Column = Any
"""A ``pyarrow.Array``; pyarrow is not typed."""

_WRAP = 1 << 64
_NANOS_MAX = (1 << 63) - 1
_NO_IDS = frozenset({"0" * 16, "0" * 32})


class Groups:
    """The resources and scopes of a batch, each converted once and then repeated for its rows."""

    def __init__(self) -> None:
        self._groups: list[tuple[Any, Any]] = []
        self._rows: list[int] = []

    def add(self, resource_records: Any, scope_records: Any, rows: int) -> None:
        """Assign the next *rows* rows to a pair such as ``ResourceSpans`` and ``ScopeSpans``."""
        self._rows.extend([len(self._groups)] * rows)
        self._groups.append((resource_records, scope_records))

    def columns(self, names: Iterable[str] | None = None) -> Mapping[str, Column]:
        """Return the columns called *names*, or all, with one value per row."""
        pa = arrow.arrow()
        rows = pa.array(self._rows, pa.int32())
        wanted = _GROUP_COLUMNS if names is None else names
        return {name: _GROUP_COLUMNS[name](self._groups).take(rows) for name in wanted}


def _service(attributes: Iterable[Any]) -> str:
    return next((values.text(entry.value) for entry in attributes if entry.key == "service.name"), "")


def table(columns: Mapping[str, Column]) -> pyarrow.Table:
    """Return *columns* as a table."""
    pa = arrow.arrow()
    return pa.table(dict(columns))


def joined(tables: Sequence[pyarrow.Table]) -> pyarrow.Table:
    """Return tables with equal columns as one contiguous table: the store makes one part of each chunk."""
    pa = arrow.arrow()
    return tables[0] if len(tables) == 1 else pa.concat_tables(tables).combine_chunks()


def texts(items: Sequence[str]) -> Column:
    """Return a column of strings."""
    pa = arrow.arrow()
    return pa.array(items, pa.string())


def ids(items: Iterable[bytes]) -> Column:
    """Return ids as hexadecimal strings; an id of zeros is invalid and becomes the empty string."""
    found = [item.hex() for item in items]
    if not _NO_IDS.isdisjoint(found):
        found = ["" if item in _NO_IDS else item for item in found]
    return texts(found)


def integers(items: Sequence[int], kind: str) -> Column:
    """Return a column of integers of *kind* u1, u4, u8, i4 or i8 (bytes per value); values must fit."""
    pa = arrow.arrow()
    kinds = {"u1": pa.uint8, "u4": pa.uint32, "u8": pa.uint64, "i4": pa.int32, "i8": pa.int64}
    return pa.array(items, kinds[kind]())


def numbers(items: Sequence[float]) -> Column:
    """Return a column of floats."""
    pa = arrow.arrow()
    return pa.array(items, pa.float64())


def booleans(items: Sequence[bool]) -> Column:
    """Return a column of booleans."""
    pa = arrow.arrow()
    return pa.array(items, pa.bool_())


def instants(items: Sequence[int]) -> Column:
    """Return Unix nanoseconds as a column of timestamps; values above the type's range wrap, as in Go."""
    pa = arrow.arrow()
    if items and max(items) > _NANOS_MAX:
        items = [item if item <= _NANOS_MAX else item - _WRAP for item in items]
    return pa.array(items, pa.int64()).cast(pa.timestamp("ns", tz="UTC"))


def maps(items: Sequence[Sequence[Any]]) -> Column:
    """Return lists of ``KeyValue`` as a column of string maps; keys keep their order."""
    pa = arrow.arrow()
    keys: list[str] = []
    plain: list[str] = []
    for entries in items:
        for entry in entries:
            value = entry.value
            keys.append(entry.key)
            # Most values are strings, and reading string_value is cheaper than WhichOneof.
            plain.append(value.string_value or values.text(value))
    return pa.MapArray.from_arrays(_offsets(items), pa.array(keys, pa.string()), pa.array(plain, pa.string()))


def lists(items: Sequence[Sequence[Any]], column: Callable[[Sequence[Any]], Column]) -> Column:
    """Return a column of lists; *column* converts the elements of all lists at once."""
    pa = arrow.arrow()
    return pa.ListArray.from_arrays(_offsets(items), column(list(chain.from_iterable(items))))


def _offsets(items: Sequence[Sequence[Any]]) -> Column:
    pa = arrow.arrow()
    return pa.array(list(accumulate(map(len, items), initial=0)), pa.int32())


_GROUP_COLUMNS: Mapping[str, Callable[[Sequence[tuple[Any, Any]]], Column]] = {
    "ServiceName": lambda groups: texts([_service(records.resource.attributes) for records, _ in groups]),
    "ResourceAttributes": lambda groups: maps([records.resource.attributes for records, _ in groups]),
    "ResourceSchemaUrl": lambda groups: texts([records.schema_url for records, _ in groups]),
    "ScopeName": lambda groups: texts([records.scope.name for _, records in groups]),
    "ScopeVersion": lambda groups: texts([records.scope.version for _, records in groups]),
    "ScopeAttributes": lambda groups: maps([records.scope.attributes for _, records in groups]),
    "ScopeDroppedAttrCount": lambda groups: integers(
        [records.scope.dropped_attributes_count for _, records in groups], "u4"
    ),
    "ScopeSchemaUrl": lambda groups: texts([records.schema_url for _, records in groups]),
}
