"""Imports a folder of the importable layout as a recording."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from pytest_otel_diag import arrow
from pytest_otel_diag.errors import RecordingError
from pytest_otel_diag.model.base import Nanos
from pytest_otel_diag.model.windows import NANOS_PER_SECOND, Window, iso
from pytest_otel_diag.recordings.format.columns import batches, in_time_order, nanoseconds, open_parquet
from pytest_otel_diag.recordings.format.layout import BY_TABLE
from pytest_otel_diag.recordings.format.manifest import ControlWindow, RecordingManifest
from pytest_otel_diag.recordings.format.writer import sha256_of, write_recording
from pytest_otel_diag.recordings.labelled_cases import CASES, Cases, read_cases
from pytest_otel_diag.recordings.quiet_windows import coverage, cut_controls, quiet_windows, without_telemetry

IMPORT_VERSION = 3
"""Increases when an import of the same input changes, so that caches are not reused."""

_SOURCE_FILES: Mapping[str, str] = {
    "traces.parquet": "otel_traces",
    "logs.parquet": "otel_logs",
    "metrics.parquet": "otel_metrics_gauge",
}


def content_key(folder: Path) -> str:
    """Return the SHA-256 of all input of an import, as 64 hex digits."""
    digest = hashlib.sha256(f"import {IMPORT_VERSION}".encode())
    for name in (CASES, *_SOURCE_FILES):
        path = folder / name
        digest.update(f"{name} {sha256_of(path) if path.is_file() else '-'}\n".encode())
    return digest.hexdigest()


def import_cases(folder: Path, destination: Path) -> RecordingManifest:
    """Write *folder* (``cases.json`` and Parquet) as a recording at *destination*; return its manifest.

    Raises RecordingError that names the invalid file, column and row, or incident and field.
    """
    sources = {name: table for name, table in _SOURCE_FILES.items() if _rows(folder / name)}
    if not sources:
        raise RecordingError(
            f"{folder} has no telemetry; beside {CASES} there must be {', '.join(_SOURCE_FILES)}"
        )
    scrapes = (
        sorted(_distinct(folder / "metrics.parquet", "TimeUnix")) if "metrics.parquet" in sources else []
    )
    cases = read_cases(folder, scrapes=scrapes)
    covered = coverage(_densest_seconds(folder, sources), cases.policy.gap_s)
    known = covered if cases.quiet is None else _within(covered, cases.quiet)
    quiet = quiet_windows(known, cases.incidents, cases.policy)
    certain = quiet_windows(known, cases.incidents, cases.policy, strict=True)
    described = _describe(folder, cases, quiet=quiet, controls=_controls(cases, certain))
    silent = without_telemetry(covered, cases.incidents)
    described = described.model_copy(update={"notes": (*described.notes, *silent)})
    tables = {table: _stream(folder / name, table, cases.hidden_keys) for name, table in sources.items()}
    return write_recording(destination, described, tables)


def _describe(
    folder: Path, cases: Cases, *, quiet: tuple[Window, ...], controls: tuple[ControlWindow, ...]
) -> RecordingManifest:
    """Return the manifest without files; raises RecordingError if the labels contradict each other."""
    try:
        return RecordingManifest(
            id=_name(cases, content_key(folder)),
            title=_title(cases),
            source=cases.source,
            systems=cases.systems,
            start_ns=0,
            end_ns=0,
            policy=cases.policy,
            quiet=quiet,
            controls=controls,
            incidents=cases.incidents,
            notes=(*cases.notes, *_notes(folder)),
        )
    except ValidationError as error:
        raise RecordingError(f"{folder / CASES}: {error.errors()[0]['msg']}") from error


def _rows(path: Path) -> int:
    if not path.exists():
        return 0
    with open_parquet(path) as file:
        rows: int = file.metadata.num_rows
        return rows


def _densest_seconds(folder: Path, sources: Mapping[str, str]) -> set[int]:
    """Return the UTC seconds with spans, or with metric points in a recording without spans.

    In a recording with spans, minutes with metrics but without spans do not count: they are unlabelled, and
    sources withhold incidents.
    """
    name = next(iter(sources))
    column = BY_TABLE[sources[name]].time
    return {instant // NANOS_PER_SECOND for instant in _distinct(folder / name, column, per=NANOS_PER_SECOND)}


def _distinct(path: Path, column: str, *, per: int = 1) -> set[Nanos]:
    """Return the distinct times of a column, truncated to multiples of *per* ns."""
    pa, pc = arrow.arrow(), arrow.compute()
    found: set[Nanos] = set()
    for batch in _columns(path, column):
        times = pc.multiply(pc.divide(nanoseconds(batch.column(0)), pa.scalar(per)), pa.scalar(per))
        found.update(pc.unique(pc.drop_null(times)).to_pylist())
    return found


def _columns(path: Path, column: str) -> Iterator[Any]:
    with open_parquet(path) as file:
        schema = file.schema_arrow
    index = schema.get_field_index(column)
    if index < 0:
        raise RecordingError(f"{path}: column {column} is missing; found {', '.join(schema.names)}")
    if not arrow.arrow().types.is_timestamp(schema.field(index).type):
        raise RecordingError(
            f"{path}: column {column} has type {schema.field(index).type}, must be a timestamp"
        )
    return batches(path, columns=[column])


def _within(covered: tuple[Window, ...], allowed: tuple[Window, ...]) -> tuple[Window, ...]:
    pieces = [
        Window(start_ns=max(a.start_ns, b.start_ns), end_ns=min(a.end_ns, b.end_ns))
        for a in covered
        for b in allowed
        if a.overlaps(b)
    ]
    return tuple(sorted(pieces, key=lambda window: window.start_ns))


def _controls(cases: Cases, quiet: tuple[Window, ...]) -> tuple[ControlWindow, ...]:
    return cut_controls(quiet, len(cases.incidents), system="-".join(cases.systems), policy=cases.policy)


def _name(cases: Cases, key: str) -> str:
    first = min(incident.start_ns for incident in cases.incidents)
    return f"{'-'.join(cases.systems).lower()}-{iso(first)[:10]}-{key[:8]}"


def _title(cases: Cases) -> str:
    starts = [incident.start_ns for incident in cases.incidents]
    days = f"{iso(min(starts))[:10]} to {iso(max(starts))[:10]}"
    return f"{', '.join(cases.systems)}: {len(starts)} incidents, {days}"


def _notes(folder: Path) -> tuple[str, ...]:
    return (
        ("the source's graph.json is not part of the recording",) if (folder / "graph.json").is_file() else ()
    )


def _stream(path: Path, table: str, hidden: frozenset[str]) -> Iterator[Any]:
    layout = BY_TABLE[table]
    for batch in in_time_order(path, layout.time):
        yield without_keys(batch, hidden) if hidden else batch


def without_keys(batch: Any, hidden: frozenset[str]) -> Any:
    """Return the batch with the *hidden* keys removed from every map column."""
    pa, pc = arrow.arrow(), arrow.compute()
    arrays = []
    for array in batch.columns:
        if not pa.types.is_map(array.type):
            arrays.append(array)
            continue
        keep = pc.invert(pc.is_in(array.keys, value_set=pa.array(sorted(hidden), pa.string())))
        kept = pc.cumulative_sum(keep.cast(pa.int32())).to_pylist()
        offsets = [0 if offset == 0 else kept[offset - 1] for offset in array.offsets.to_pylist()]
        arrays.append(
            pa.MapArray.from_arrays(
                pa.array(offsets, pa.int32()), array.keys.filter(keep), array.items.filter(keep)
            )
        )
    return pa.RecordBatch.from_arrays(arrays, names=batch.schema.names)
