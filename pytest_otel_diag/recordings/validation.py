"""Validates a recording in bounded memory; each finding names file, column and row.

Errors make a recording unusable or its results wrong: missing or changed files, missing or mistyped columns,
nulls where the exporter writes none, rows out of order, incidents without telemetry, controls in disturbed
time. Warnings are oddities of real systems that analyzers have to handle: NaN and infinite metric values,
negative durations, spans and points without a service.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from pytest_otel_diag import arrow
from pytest_otel_diag.errors import RecordingError
from pytest_otel_diag.model.base import Nanos
from pytest_otel_diag.model.windows import NANOS_PER_SECOND, Window, iso
from pytest_otel_diag.recordings.format.columns import batches, first_disorder, nanoseconds, open_parquet
from pytest_otel_diag.recordings.format.layout import BY_NAME, FileLayout, schema_mistakes
from pytest_otel_diag.recordings.format.manifest import MANIFEST, RecordedFile, RecordingManifest
from pytest_otel_diag.recordings.format.reader import Recording, read_recording
from pytest_otel_diag.recordings.format.writer import sha256_of
from pytest_otel_diag.recordings.labelled_cases import CASES, is_cases_folder
from pytest_otel_diag.recordings.quiet_windows import coverage, without_telemetry
from pytest_otel_diag.statements.spellings import KNOWN_STATUSES

_ROWS = 8_192  # few enough that a batch of large values fits into memory


@dataclass(frozen=True, slots=True)
class ValidationFinding:
    """One finding; ``row`` (from 0) is the first of ``count`` rows with it."""

    severity: Literal["error", "warning"]
    file: str
    message: str
    column: str | None = None
    row: int | None = None
    count: int = 1

    def __str__(self) -> str:
        place = "".join(
            [
                f", column {self.column}" if self.column else "",
                f", row {self.row}" if self.row is not None else "",
                f" and {self.count - 1} more" if self.count > 1 else "",
            ]
        )
        return f"{self.severity}: {self.file}{place}: {self.message}"


@dataclass(frozen=True, slots=True)
class Validation:
    """All findings about one recording."""

    folder: Path
    findings: tuple[ValidationFinding, ...]

    @property
    def errors(self) -> tuple[ValidationFinding, ...]:
        """Findings that make the recording unusable."""
        return tuple(finding for finding in self.findings if finding.severity == "error")

    @property
    def warnings(self) -> tuple[ValidationFinding, ...]:
        """Findings that do not prevent the use of the recording."""
        return tuple(finding for finding in self.findings if finding.severity == "warning")


def validate_recording(folder: Path) -> Validation:
    """Check manifest, checksums, columns and values of a recording; invalid content never raises.

    Raises RecordingError only when pyarrow is not installed.
    """
    arrow.arrow()
    if not (folder / MANIFEST).exists() and is_cases_folder(folder):
        message = (
            f"this folder can be imported but is not a recording yet: it has no {MANIFEST}; run: "
            f"otel-diag recordings import {folder} DESTINATION, then validate DESTINATION"
        )
        return Validation(folder, (ValidationFinding("error", CASES, message),))
    try:
        return Validation(folder, tuple(_findings(folder)))
    except RecordingError as error:
        return Validation(folder, (ValidationFinding("error", MANIFEST, str(error)),))
    except (arrow.arrow().ArrowException, RecursionError, ArithmeticError, ValueError) as error:
        message = (
            f"holds values that cannot be read ({type(error).__name__}: {error}); copy the recording again"
        )
        return Validation(folder, (ValidationFinding("error", folder.name, message),))


def _findings(folder: Path) -> list[ValidationFinding]:
    recording = read_recording(folder)
    seconds: set[int] = set()
    findings = [*_timeline(recording.manifest), *_unlisted(recording)]
    for file in recording.manifest.files:
        findings.extend(_file(recording, file, seconds))
    manifest = recording.manifest
    inside = [one for one in manifest.incidents if manifest.start_ns <= one.start_ns < manifest.end_ns]
    silent = without_telemetry(coverage(seconds, manifest.policy.gap_s), inside) if seconds else ()
    return [*findings, *(ValidationFinding("error", MANIFEST, message) for message in silent)]


def _unlisted(recording: Recording) -> Iterator[ValidationFinding]:
    listed = {file.name for file in recording.manifest.files}
    for path in sorted(recording.folder.glob("*.parquet")):
        if path.name not in listed:
            yield ValidationFinding("warning", path.name, f"not listed in {MANIFEST}; it is ignored")


def _timeline(manifest: RecordingManifest) -> Iterator[ValidationFinding]:
    for incident in manifest.incidents:
        if not manifest.start_ns <= incident.start_ns < manifest.end_ns:
            yield ValidationFinding(
                "error",
                MANIFEST,
                f"incident {incident.id!r} starts at {iso(incident.start_ns)}, but telemetry is from "
                f"{iso(manifest.start_ns)} to {iso(manifest.end_ns)}",
            )
    controls = [(f"control {control.id!r}", control.window) for control in manifest.controls]
    quiet = [(f"quiet window {window}", window) for window in manifest.quiet]
    yield from _disturbed(manifest, controls, strict=True)
    yield from _disturbed(manifest, quiet, strict=False)


def _disturbed(
    manifest: RecordingManifest, calm: Iterable[tuple[str, Window]], *, strict: bool
) -> Iterator[ValidationFinding]:
    holes = [
        (incident.id, incident.disturbed(manifest.policy, strict=strict)) for incident in manifest.incidents
    ]
    for name, window in calm:
        hit = next((key for key, hole in holes if hole.overlaps(window)), None)
        if hit is not None:
            yield ValidationFinding(
                "error", MANIFEST, f"{name} overlaps the time disturbed by incident {hit!r}"
            )


def _file(recording: Recording, file: RecordedFile, seconds: set[int]) -> Iterator[ValidationFinding]:
    path, layout = recording.path(file), BY_NAME[file.name]
    if not path.is_file():
        yield ValidationFinding("error", file.name, "missing; the recording is incomplete, copy it again")
        return
    found = sha256_of(path)
    if found != file.sha256:
        yield ValidationFinding("error", file.name, f"SHA-256 is {found}, {MANIFEST} says {file.sha256}")
    try:
        with open_parquet(path) as parquet:
            schema, rows = parquet.schema_arrow, parquet.metadata.num_rows
    except RecordingError as error:
        yield ValidationFinding("error", file.name, str(error))
        return
    mistakes = schema_mistakes(schema, layout)
    yield from (ValidationFinding("error", file.name, message, column) for column, message in mistakes)
    if layout.table != file.table:
        yield ValidationFinding(
            "error", file.name, f"{MANIFEST} says table {file.table!r}, must be {layout.table!r}"
        )
    if rows != file.rows:
        yield ValidationFinding("error", file.name, f"has {rows} rows, {MANIFEST} says {file.rows}")
    if not mistakes:
        yield from _values(path, file, layout, seconds)


def _values(path: Path, file: RecordedFile, layout: FileLayout, seconds: set[int]) -> list[ValidationFinding]:
    """Return what is wrong with the values of a file; adds the UTC seconds of its rows to *seconds*."""
    check = _Values(file, layout, seconds)
    try:
        for batch in batches(path, rows=_ROWS):
            check.look(batch)
    except RecordingError as error:
        check.note("error", None, str(error), [check.rows])
    return check.findings()


@dataclass
class _Values:
    """Checks the batches of one file; equal findings are counted, not listed."""

    file: RecordedFile
    layout: FileLayout
    seconds: set[int]
    rows: int = 0
    last_ns: Nanos | None = None
    first_ns: Nanos | None = None
    _found: dict[tuple[str, str | None, str], tuple[int, int]] = field(default_factory=dict)

    def look(self, batch: Any) -> None:
        """Check one batch."""
        pa, pc = arrow.arrow(), arrow.compute()
        for name in batch.schema.names:
            column = batch.column(name)
            if name in self.layout.required and column.null_count:
                self._where("error", name, "null, but the exporter always writes a value", pc.is_null(column))
            if pa.types.is_floating(column.type):
                self._where("warning", name, "not a finite number", pc.invert(pc.is_finite(column)))
            if name == "Duration" and pa.types.is_signed_integer(column.type):
                self._where("warning", name, "negative duration, treated as 0", pc.less(column, 0))
            if name == "ServiceName":
                text = column.dictionary_decode() if pa.types.is_dictionary(column.type) else column
                self._where("warning", name, "empty", pc.equal(text, ""))
            if name == "StatusCode":
                self._statuses(column)
        self._times(arrow.compute().drop_null(nanoseconds(batch.column(self.layout.time))))
        self.rows += batch.num_rows

    def note(self, severity: str, column: str | None, message: str, rows: Iterable[int]) -> None:
        """Count rows with the same finding."""
        key = (severity, column, message)
        for row in rows:
            first, count = self._found.get(key, (row, 0))
            self._found[key] = (first, count + 1)

    def findings(self) -> list[ValidationFinding]:
        """Return each distinct finding once, those of the whole file last."""
        found = [
            ValidationFinding(
                "error" if severity == "error" else "warning", self.file.name, message, column, row, count
            )
            for (severity, column, message), (row, count) in self._found.items()
        ]
        span = (self.first_ns, self.last_ns)
        if self.rows and span != (self.file.start_ns, self.file.end_ns):
            said = f"{iso(self.file.start_ns)} to {iso(self.file.end_ns)}"
            found.append(
                ValidationFinding(
                    "error",
                    self.file.name,
                    f"times are not from {said} as {MANIFEST} says",
                    self.layout.time,
                )
            )
        return found

    def _where(self, severity: str, column: str, message: str, mask: Any) -> None:
        pc = arrow.compute()
        count = pc.sum(mask).as_py() or 0
        if count:
            first, before = self._found.get((severity, column, message), (self.rows + _first(mask), 0))
            self._found[(severity, column, message)] = (first, before + count)

    def _statuses(self, column: Any) -> None:
        """Report spellings of a status that count as no error because nobody knows them."""
        pa, pc = arrow.arrow(), arrow.compute()
        text = pc.utf8_upper(column.cast(pa.string()))
        unknown = pc.invert(pc.is_in(text, value_set=pa.array(sorted(KNOWN_STATUSES))))
        self._where("warning", "StatusCode", "unknown spelling of a status, counted as no error", unknown)

    def _times(self, times: Any) -> None:
        pa, pc = arrow.arrow(), arrow.compute()
        self.seconds.update(pc.unique(pc.divide(times, pa.scalar(NANOS_PER_SECOND, pa.int64()))).to_pylist())
        disorder = first_disorder(times, self.last_ns)
        if disorder is not None:
            self.note("error", self.layout.time, "earlier than the row before it", [self.rows + disorder])
        if len(times):
            self.first_ns = times[0].as_py() if self.first_ns is None else self.first_ns
            self.last_ns = times[-1].as_py()


def _first(mask: Any) -> int:
    index: int = arrow.compute().index(mask, value=True).as_py()
    return index
