"""Arrow columns of the exporter's tables. The one module of the receiver that imports pyarrow."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from itertools import accumulate, chain
from typing import TYPE_CHECKING, Any

from pytest_otel_diag.receiver import values

if TYPE_CHECKING:
    import pyarrow

Column = Any
"""A pyarrow.Array; the package has no types."""

_WRAP = 1 << 64
_NANOS_MAX = (1 << 63) - 1
_NO_IDS = frozenset({"0" * 16, "0" * 32})


class Groups:
    """The resources and scopes of a batch; their columns are built once each and repeated by row."""

    def __init__(self) -> None:
        self._groups: list[tuple[Any, Any]] = []
        self._rows: list[int] = []

    def add(self, of_resource: Any, of_scope: Any, rows: int) -> None:
        """Say that the next *rows* rows belong to this pair, such as ResourceSpans and ScopeSpans."""
        self._rows.extend([len(self._groups)] * rows)
        self._groups.append((of_resource, of_scope))

    def columns(self) -> Mapping[str, Column]:
        """Return the columns that all tables share, one value a row."""
        import pyarrow as pa  # noqa: PLC0415 - heavy, loaded on use

        rows = pa.array(self._rows, pa.int32())
        resources = [of_resource for of_resource, _ in self._groups]
        scopes = [of_scope for _, of_scope in self._groups]
        made = {
            "ServiceName": texts([_service(each.resource.attributes) for each in resources]),
            "ResourceAttributes": maps([each.resource.attributes for each in resources]),
            "ResourceSchemaUrl": texts([each.schema_url for each in resources]),
            "ScopeName": texts([each.scope.name for each in scopes]),
            "ScopeVersion": texts([each.scope.version for each in scopes]),
            "ScopeAttributes": maps([each.scope.attributes for each in scopes]),
            "ScopeDroppedAttrCount": integers([each.scope.dropped_attributes_count for each in scopes], "u4"),
            "ScopeSchemaUrl": texts([each.schema_url for each in scopes]),
        }
        return {name: column.take(rows) for name, column in made.items()}


def _service(attributes: Iterable[Any]) -> str:
    return next((values.text(entry.value) for entry in attributes if entry.key == "service.name"), "")


def table(columns: Mapping[str, Column]) -> pyarrow.Table:
    """Return the columns as a table."""
    import pyarrow as pa  # noqa: PLC0415 - heavy, loaded on use

    return pa.table(dict(columns))


def joined(tables: Sequence[pyarrow.Table]) -> pyarrow.Table:
    """Return tables of the same columns as one, in one piece: the store makes a part of each piece."""
    import pyarrow as pa  # noqa: PLC0415 - heavy, loaded on use

    return tables[0] if len(tables) == 1 else pa.concat_tables(tables).combine_chunks()


def texts(items: Sequence[str]) -> Column:
    """Return a column of texts."""
    import pyarrow as pa  # noqa: PLC0415 - heavy, loaded on use

    return pa.array(items, pa.string())


def ids(items: Iterable[bytes]) -> Column:
    """Return ids as hexadecimal text; one of zeros only is no id and becomes the empty text."""
    found = [item.hex() for item in items]
    if not _NO_IDS.isdisjoint(found):
        found = ["" if item in _NO_IDS else item for item in found]
    return texts(found)


def integers(items: Sequence[int], kind: str) -> Column:
    """Return a column of integers; *kind* is u1, u4, u8, i4 or i8. Values must fit."""
    import pyarrow as pa  # noqa: PLC0415 - heavy, loaded on use

    kinds = {"u1": pa.uint8, "u4": pa.uint32, "u8": pa.uint64, "i4": pa.int32, "i8": pa.int64}
    return pa.array(items, kinds[kind]())


def numbers(items: Sequence[float]) -> Column:
    """Return a column of floats."""
    import pyarrow as pa  # noqa: PLC0415 - heavy, loaded on use

    return pa.array(items, pa.float64())


def booleans(items: Sequence[bool]) -> Column:
    """Return a column of truth values."""
    import pyarrow as pa  # noqa: PLC0415 - heavy, loaded on use

    return pa.array(items, pa.bool_())


def instants(items: Sequence[int]) -> Column:
    """Return nanoseconds since 1970 as a column of times; what the type cannot hold wraps, as in Go."""
    import pyarrow as pa  # noqa: PLC0415 - heavy, loaded on use

    if items and max(items) > _NANOS_MAX:
        items = [item if item <= _NANOS_MAX else item - _WRAP for item in items]
    return pa.array(items, pa.int64()).cast(pa.timestamp("ns", tz="UTC"))


def maps(items: Sequence[Sequence[Any]]) -> Column:
    """Return lists of ``KeyValue`` as a column of maps of text; keys keep their order."""
    import pyarrow as pa  # noqa: PLC0415 - heavy, loaded on use

    keys: list[str] = []
    plain: list[str] = []
    for entries in items:
        for entry in entries:
            value = entry.value
            keys.append(entry.key)
            # most values are texts, and asking a value for its text is cheaper than asking for its kind
            plain.append(value.string_value or values.text(value))
    return pa.MapArray.from_arrays(_offsets(items), pa.array(keys, pa.string()), pa.array(plain, pa.string()))


def lists(items: Sequence[Sequence[Any]], column: Callable[[Sequence[Any]], Column]) -> Column:
    """Return a column of lists; *column* makes one column of all their elements."""
    import pyarrow as pa  # noqa: PLC0415 - heavy, loaded on use

    return pa.ListArray.from_arrays(_offsets(items), column(list(chain.from_iterable(items))))


def _offsets(items: Sequence[Sequence[Any]]) -> Column:
    import pyarrow as pa  # noqa: PLC0415 - heavy, loaded on use

    return pa.array(list(accumulate(map(len, items), initial=0)), pa.int32())
