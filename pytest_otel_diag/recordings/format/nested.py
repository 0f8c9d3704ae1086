"""Edits of nested Arrow columns (maps and lists) that keep their structure.

Columns may be slices of longer ones; all functions respect the slice.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from pytest_otel_diag import arrow

Edit = Callable[[Any], Any]
"""A function from a flat array to one of the same length and type."""


def inner(column: Any) -> Any:
    """Return the flat values of a list column within its slice."""
    return column.flatten()


def offsets_from_zero(column: Any) -> Any:
    """Return the offsets of a list or map column relative to the start of its slice."""
    pa, pc = arrow.arrow(), arrow.compute()
    offsets = column.offsets
    first = offsets[0].as_py() if len(offsets) else 0
    return pc.subtract(offsets, pa.scalar(first, offsets.type))


def parts_of_map(column: Any) -> tuple[Any, Any, Any]:
    """Return offsets, keys and values of a map column within its slice."""
    first, last = column.offsets[0].as_py(), column.offsets[-1].as_py()
    keys, values = column.keys, column.items
    return offsets_from_zero(column), keys.slice(first, last - first), values.slice(first, last - first)


def edit_list(column: Any, edit: Edit) -> Any:
    """Return the list column with *edit* applied to its flat values."""
    pa = arrow.arrow()
    return pa.ListArray.from_arrays(offsets_from_zero(column), edit(inner(column)))


def edit_values(column: Any, edit: Edit) -> Any:
    """Return the map column with *edit* applied to its values."""
    pa = arrow.arrow()
    offsets, keys, values = parts_of_map(column)
    return pa.MapArray.from_arrays(offsets, keys, edit(values))


def keep_keys(column: Any, keep: Edit) -> Any:
    """Return the map column with only the entries whose keys *keep* (keys → booleans) selects."""
    pa = arrow.arrow()
    offsets, keys, values = parts_of_map(column)
    mask = keep(keys)
    return pa.MapArray.from_arrays(kept_offsets(offsets, mask), keys.filter(mask), values.filter(mask))


def keep_items(column: Any, mask: Any) -> Any:
    """Return the list column with only the items that *mask* (one boolean per flat value) selects."""
    pa = arrow.arrow()
    return pa.ListArray.from_arrays(kept_offsets(offsets_from_zero(column), mask), inner(column).filter(mask))


def kept_offsets(offsets: Any, mask: Any) -> Any:
    """Return the offsets of the items that *mask* selects."""
    pa, pc = arrow.arrow(), arrow.compute()
    counts = pc.cumulative_sum(mask.cast(pa.int32()))
    before = pa.concat_arrays([pa.array([0], pa.int32()), counts.cast(pa.int32())])
    return before.take(offsets)


def any_in_row(offsets: Any, mask: Any) -> Any:
    """Return per row whether *mask* selects any of its items."""
    pa, pc = arrow.arrow(), arrow.compute()
    kept = kept_offsets(offsets, mask)
    return pc.greater(pc.subtract(kept.slice(1), kept.slice(0, len(kept) - 1)), pa.scalar(0, pa.int32()))
