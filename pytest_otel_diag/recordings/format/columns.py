"""Arrow columns: times as integers, sort order, and the cast to the exporter's types."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path
from typing import Any

from pytest_otel_diag import arrow
from pytest_otel_diag.errors import RecordingError
from pytest_otel_diag.model.base import Nanos
from pytest_otel_diag.recordings.format.layout import ROW_GROUP_ROWS, FileLayout, schema_mistakes

_MOST_EXPANSION, _FREE_BYTES = 1_000, 1 << 26

_SORT_CHUNK_ROWS = 1_000_000
"""Rows sorted in memory at once (about 0.3 GB of spans)."""


def open_parquet(path: Path) -> Any:
    """Open a ParquetFile; raises RecordingError for a missing, truncated or other file."""
    pa = arrow.arrow()
    try:
        return arrow.parquet().ParquetFile(path)
    except FileNotFoundError:
        raise RecordingError(
            f"{path} is missing; the recording is incomplete, import or copy it again"
        ) from None
    except (pa.ArrowInvalid, OSError) as error:
        raise RecordingError(
            f"{path} cannot be read as Parquet: it is truncated or in another format ({error}); copy it again"
        ) from error


def batches(path: Path, *, columns: list[str] | None = None, rows: int = ROW_GROUP_ROWS) -> Iterator[Any]:
    """Yield the record batches of a Parquet file, of at most *rows* rows.

    Raises RecordingError that names the damaged row, and for a file that expands to more than a thousand
    times its size: a few kilobytes can hold billions of equal values.
    """
    pa = arrow.arrow()
    row = 0
    with open_parquet(path) as file:
        room = _FREE_BYTES + _MOST_EXPANSION * path.stat().st_size
        stream = file.iter_batches(batch_size=rows, columns=columns)
        while True:
            try:
                batch = next(stream, None)
            except (pa.ArrowException, OSError) as error:
                raise RecordingError(
                    f"{path}: data after row {row} cannot be read ({error}); the file is damaged, "
                    "copy it again"
                ) from error
            if batch is None:
                return
            room -= batch.nbytes
            if room < 0:
                raise RecordingError(
                    f"{path} expands to more than {_MOST_EXPANSION:,} times its size within {row:,} rows; "
                    "it is no recording of a real system"
                )
            yield batch
            row += batch.num_rows


def nanoseconds(column: Any) -> Any:
    """Return a timestamp column as int64 nanoseconds since the epoch (naive timestamps are UTC)."""
    pa = arrow.arrow()
    return (
        column.cast(pa.timestamp("ns")).cast(pa.int64())
        if column.type.tz is None
        else column.cast(pa.timestamp("ns", "UTC")).cast(pa.int64())
    )


def first_disorder(times: Any, previous: Nanos | None) -> int | None:
    """Return the first index whose time is before the preceding one, None if all are in order."""
    pc = arrow.compute()
    if len(times) == 0:
        return None
    if previous is not None and times[0].as_py() < previous:
        return 0
    falls = pc.less(times.slice(1), times.slice(0, len(times) - 1))
    found: int = pc.index(falls, value=True).as_py()
    return None if found < 0 else found + 1


def conform(batch: Any, layout: FileLayout) -> Any:
    """Return the batch in the exporter's types, without unknown columns and negative durations.

    Raises RecordingError that names columns that are missing or mistyped, or have nulls or unfit values.
    """
    pa, pc = arrow.arrow(), arrow.compute()
    mistakes = schema_mistakes(batch.schema, layout)
    if mistakes:
        details = "; ".join(f"column {column} {message}" for column, message in mistakes)
        raise RecordingError(f"{layout.name}: {details}")
    arrays, names = [], []
    for name in [*layout.required, *layout.optional]:
        index = batch.schema.get_field_index(name)
        if index < 0:
            continue
        array = batch.column(index)
        target = _target(layout, name)
        if name in layout.required and array.null_count:
            row = pc.index(pc.is_null(array), value=True).as_py()
            raise RecordingError(
                f"{layout.name}: column {name} is null in row {row} of a batch; fill or drop the row"
            )
        if name == "Duration" and pa.types.is_signed_integer(array.type):
            array = pc.max_element_wise(array, pa.scalar(0, array.type))
        try:
            arrays.append(array.cast(target) if target is not None and array.type != target else array)
        except pa.ArrowException as error:
            raise RecordingError(
                f"{layout.name}: column {name} cannot be converted to {target} ({error})"
            ) from error
        names.append(name)
    return pa.RecordBatch.from_arrays(arrays, names=names)


def _target(layout: FileLayout, name: str) -> Any:
    """Return the Arrow type that a column is stored as, None to keep its type."""
    pa = arrow.arrow()
    wanted = {**layout.required, **layout.optional}[name]
    if name == "Duration":
        return pa.uint64()
    types = {
        "timestamp": pa.timestamp("ns", "UTC"),
        "string": pa.string(),
        "number": pa.float64(),
        "map": pa.map_(pa.string(), pa.string()),
    }
    return types.get(wanted)


def in_time_order(path: Path, time_column: str, *, chunk_rows: int = _SORT_CHUNK_ROWS) -> Iterator[Any]:
    """Yield the batches of a Parquet file sorted by time, in bounded memory.

    A sorted file is streamed. Otherwise time is split into ranges of about *chunk_rows* rows; each is read in
    a separate pass and sorted. Rows of equal time keep their order.
    """
    pa, pc = arrow.arrow(), arrow.compute()
    if _ordered(path, time_column):
        yield from batches(path)
        return
    times = pa.concat_arrays([nanoseconds(b.column(0)) for b in batches(path, columns=[time_column])])
    ordered = pc.take(times, pc.sort_indices(times))
    edges = [ordered[row].as_py() for row in range(0, len(ordered), chunk_rows)] + [ordered[-1].as_py() + 1]
    for start, end in pairwise(edges):
        chosen = [_between(batch, time_column, start, end) for batch in batches(path)]
        table = pa.Table.from_batches(chosen)
        indices = pc.sort_indices(nanoseconds(table.column(time_column).combine_chunks()))
        yield from table.take(indices).combine_chunks().to_batches(max_chunksize=ROW_GROUP_ROWS)


def _ordered(path: Path, time_column: str) -> bool:
    previous: Nanos | None = None
    for batch in batches(path, columns=[time_column]):
        times = nanoseconds(batch.column(0))
        if first_disorder(times, previous) is not None:
            return False
        previous = times[-1].as_py() if len(times) else previous
    return True


def _between(batch: Any, time_column: str, start: Nanos, end: Nanos) -> Any:
    pc = arrow.compute()
    times = nanoseconds(batch.column(time_column))
    return batch.filter(pc.and_(pc.greater_equal(times, start), pc.less(times, end)))
