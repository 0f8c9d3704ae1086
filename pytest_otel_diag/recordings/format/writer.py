"""Writes a recording atomically: its folder appears by one rename."""

from __future__ import annotations

import hashlib
import os
import shutil
import tempfile
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any

from pytest_otel_diag import arrow
from pytest_otel_diag.errors import RecordingError
from pytest_otel_diag.model.base import Nanos
from pytest_otel_diag.recordings.format.columns import conform, first_disorder, nanoseconds
from pytest_otel_diag.recordings.format.layout import BY_TABLE, ROW_GROUP_ROWS, FileLayout
from pytest_otel_diag.recordings.format.manifest import MANIFEST, RecordedFile, RecordingManifest

_HASH_BYTES = 1 << 20


def sha256_of(path: Path) -> str:
    """Return the SHA-256 of a file as 64 hex digits."""
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while piece := file.read(_HASH_BYTES):
            digest.update(piece)
    return digest.hexdigest()


def write_recording(
    folder: Path,
    manifest: RecordingManifest,
    tables: Mapping[str, Iterable[Any]],
    *,
    finish: Callable[[RecordingManifest], RecordingManifest] = lambda manifest: manifest,
) -> RecordingManifest:
    """Write a new recording and return its manifest with its files.

    *tables* maps exporter tables to record batches in order of time. *finish* may complete the manifest after
    all batches were read. The folder must not exist; readers never see a partial recording. Raises
    RecordingError and then leaves nothing behind.
    """
    if folder.exists():
        raise RecordingError(f"{folder} already exists; name another folder or remove it first")
    folder.parent.mkdir(parents=True, exist_ok=True)
    scratch = Path(tempfile.mkdtemp(prefix=f".{folder.name}-", dir=folder.parent))
    try:
        files = tuple(
            file
            for table, stream in tables.items()
            if (file := _write_table(scratch, table, stream)) is not None
        )
        complete = _with_files(finish(manifest), files)
        text = complete.model_dump_json(indent=2)
        (scratch / MANIFEST).write_text(text + "\n", encoding="utf-8")
        _publish(scratch, folder)
    finally:
        shutil.rmtree(scratch, ignore_errors=True)
    return complete


def _publish(scratch: Path, folder: Path) -> None:
    scratch.chmod(0o755)
    try:
        os.rename(scratch, folder)  # noqa: PTH104 - Path.rename also replaces an empty folder silently
    except OSError as error:
        raise RecordingError(
            f"{folder} appeared while it was being written ({error}); another process wrote it"
        ) from error


def _with_files(manifest: RecordingManifest, files: tuple[RecordedFile, ...]) -> RecordingManifest:
    if not files:
        raise RecordingError(f"recording {manifest.id!r} has no rows in any table")
    update = {
        "files": files,
        "start_ns": min(file.start_ns for file in files),
        "end_ns": max(file.end_ns for file in files) + 1,
    }
    return RecordingManifest.model_validate({**manifest.model_dump(), **update})


def _write_table(folder: Path, table: str, stream: Iterable[Any]) -> RecordedFile | None:
    """Write one file; returns None without a file when the stream has no rows."""
    layout = BY_TABLE.get(table)
    if layout is None:
        raise RecordingError(f"no file for table {table!r}; choose from {', '.join(BY_TABLE)}")
    path = folder / layout.name
    sink: Any = None
    rows = 0
    first: Nanos | None = None
    last: Nanos | None = None
    try:
        for batch in stream:
            if batch.num_rows == 0:
                continue
            conformed = conform(batch, layout)
            first_of_batch, last = _check_order(conformed, layout, rows, last)
            first = first_of_batch if first is None else first
            sink = sink or arrow.parquet().ParquetWriter(path, conformed.schema, compression="zstd")
            sink.write_batch(conformed, row_group_size=ROW_GROUP_ROWS)
            rows += conformed.num_rows
    finally:
        if sink is not None:
            sink.close()
    if first is None or last is None:
        return None
    columns = {field.name: str(field.type) for field in sink.schema}
    return RecordedFile(
        name=layout.name,
        table=table,
        rows=rows,
        sha256=sha256_of(path),
        columns=columns,
        start_ns=first,
        end_ns=last,
    )


def _check_order(batch: Any, layout: FileLayout, rows: int, last: Nanos | None) -> tuple[Nanos, Nanos]:
    times = nanoseconds(batch.column(layout.time))
    disorder = first_disorder(times, last)
    if disorder is not None:
        raise RecordingError(
            f"{layout.name}: column {layout.time} goes back in time in row {rows + disorder}; "
            "rows must be written in order of time"
        )
    return times[0].as_py(), times[-1].as_py()
