"""Edits of Arrow columns that keep their shape: maps, lists and what lies inside them.

Columns may be slices of longer ones; every function here reads through the slice.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from pytest_otel_diag.recordings.format import arrow

Edit = Callable[[Any], Any]
"""Takes a flat array, returns one of the same length and type."""


def inner(column: Any) -> Any:
    """Return the flat values of a list column, without those before or after its slice."""
    return column.flatten()


def offsets_from_zero(column: Any) -> Any:
    """Return the offsets of a list or map column, counted from the start of its slice."""
    pa, pc = arrow.arrow(), arrow.compute()
    offsets = column.offsets
    first = offsets[0].as_py() if len(offsets) else 0
    return pc.subtract(offsets, pa.scalar(first, offsets.type))


def parts_of_map(column: Any) -> tuple[Any, Any, Any]:
    """Return offsets, keys and values of a map column, all of the slice alone."""
    first, last = column.offsets[0].as_py(), column.offsets[-1].as_py()
    keys, values = column.keys, column.items
    return offsets_from_zero(column), keys.slice(first, last - first), values.slice(first, last - first)


def edit_list(column: Any, edit: Edit) -> Any:
    """Return the list column with *edit* made on its flat values."""
    pa = arrow.arrow()
    return pa.ListArray.from_arrays(offsets_from_zero(column), edit(inner(column)))


def edit_values(column: Any, edit: Edit) -> Any:
    """Return the map column with *edit* made on its values."""
    pa = arrow.arrow()
    offsets, keys, values = parts_of_map(column)
    return pa.MapArray.from_arrays(offsets, keys, edit(values))


def keep_keys(column: Any, keep: Edit) -> Any:
    """Return the map column with only the entries whose key *keep* (keys → booleans) holds for."""
    pa = arrow.arrow()
    offsets, keys, values = parts_of_map(column)
    mask = keep(keys)
    return pa.MapArray.from_arrays(kept_offsets(offsets, mask), keys.filter(mask), values.filter(mask))


def keep_items(column: Any, mask: Any) -> Any:
    """Return the list column with only the items that *mask*, one boolean for each flat value, holds for."""
    pa = arrow.arrow()
    return pa.ListArray.from_arrays(kept_offsets(offsets_from_zero(column), mask), inner(column).filter(mask))


def kept_offsets(offsets: Any, mask: Any) -> Any:
    """Return the offsets once only the items that *mask* holds for are left."""
    pa, pc = arrow.arrow(), arrow.compute()
    counts = pc.cumulative_sum(mask.cast(pa.int32()))
    before = pa.concat_arrays([pa.array([0], pa.int32()), counts.cast(pa.int32())])
    return before.take(offsets)


def any_in_row(offsets: Any, mask: Any) -> Any:
    """Return for each row whether *mask* holds for any of its items."""
    pa, pc = arrow.arrow(), arrow.compute()
    kept = kept_offsets(offsets, mask)
    return pc.greater(pc.subtract(kept.slice(1), kept.slice(0, len(kept) - 1)), pa.scalar(0, pa.int32()))
