"""Writes new recordings from existing ones: shifted in time, redacted, or merged."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from pytest_otel_diag.errors import RecordingError
from pytest_otel_diag.model.windows import NANOS_PER_SECOND, seconds_to_ns
from pytest_otel_diag.recordings.format.columns import batches
from pytest_otel_diag.recordings.format.layout import BY_TABLE
from pytest_otel_diag.recordings.format.manifest import QuietPolicy, RecordingManifest
from pytest_otel_diag.recordings.format.reader import Recording, read_recording
from pytest_otel_diag.recordings.format.writer import write_recording
from pytest_otel_diag.recordings.leaks import Leaks
from pytest_otel_diag.recordings.time_shift import Shift, note_of, shifted_batch, shifted_manifest, step_to

APART_S = 3_600.0
"""Minimal distance between sessions of a merged recording, so that none sees telemetry of another."""


def rewrite(
    folder: Path, destination: Path, *, shift: Shift | None = None, redact: bool = False
) -> RecordingManifest:
    """Write a copy of *folder*, shifted in time and, with *redact*, without leaks; return its manifest.

    Raises RecordingError when the recording is damaged or the destination exists.
    """
    recording = read_recording(folder)
    recording.verify()
    old = recording.manifest
    step_ns = step_to(old.start_ns, shift.wanted_ns) if shift else 0
    leaks = Leaks(old.flags) if redact else None
    moved = shifted_manifest(old, step_ns)
    notes = (*moved.notes, *((note_of(step_ns, secret=shift.secret),) if shift else ()))
    update: dict[str, Any] = {"notes": notes, "files": ()}
    if redact:
        update["captured"] = tuple(one.model_copy(update={"redacted": True}) for one in moved.captured)
    tables = {file.table: _stream(recording, file.name, step_ns, leaks) for file in old.files}
    return write_recording(destination, moved.model_copy(update=update), tables)


def _stream(recording: Recording, name: str, step_ns: int, leaks: Leaks | None) -> Iterator[Any]:
    for batch in batches(recording.folder / name):
        cut = leaks.redacted(batch) if leaks is not None else batch
        if cut.num_rows:
            yield shifted_batch(cut, step_ns)


def merge(folders: Sequence[Path], destination: Path, *, name: str = "") -> RecordingManifest:
    """Write captured sessions as one recording with many incidents; return its manifest.

    Sessions keep their baseline and reference, so each replays as before. They are sorted by time; a session
    that overlaps the previous one, as simulated sessions may, is shifted behind it. Only columns that all of
    them have are kept. Raises RecordingError.
    """
    recordings = [read_recording(folder) for folder in folders]
    for recording in recordings:
        recording.verify()
        _require_captured(recording)
    if not recordings:
        raise RecordingError("no recordings to merge; name a folder with recordings")
    placed = _placed(recordings)
    manifests = [shifted_manifest(recording.manifest, step_ns) for recording, step_ns in placed]
    moved = sum(1 for _, step_ns in placed if step_ns)
    first = manifests[0]
    try:
        manifest = RecordingManifest(
            id=name or destination.name,
            title=f"{len(manifests)} captured sessions",
            source=first.source,
            systems=tuple(dict.fromkeys(system for one in manifests for system in one.systems)),
            start_ns=first.start_ns,
            end_ns=manifests[-1].end_ns,
            policy=QuietPolicy(
                fault_s=0.0,
                settle_s=0.0,
                min_quiet_s=0.0,
                baseline_s=max(one.policy.baseline_s for one in manifests),
                reference_span_s=None,
            ),
            quiet=tuple(window for one in manifests for window in one.quiet),
            controls=tuple(control for one in manifests for control in one.controls),
            incidents=tuple(incident for one in manifests for incident in one.incidents),
            captured=tuple(captured for one in manifests for captured in one.captured),
            notes=(f"{moved} sessions were shifted in time so that they do not overlap",) if moved else (),
        )
    except ValidationError as error:
        raise RecordingError(f"{destination}: {error.errors()[0]['msg']}") from error
    return write_recording(destination, manifest, _merged_tables(placed))


def _require_captured(recording: Recording) -> None:
    manifest = recording.manifest
    baselines = [incident.baseline for incident in manifest.incidents]
    baselines += [control.baseline for control in manifest.controls]
    if not manifest.captured or None in baselines:
        raise RecordingError(
            f"{recording.folder} was not captured from sessions, so it has no windows to keep; "
            "name its folder beside the merged recording in the replay instead"
        )


def _placed(recordings: Sequence[Recording]) -> list[tuple[Recording, int]]:
    """Return the recordings in order of time, each with its time shift in nanoseconds."""
    placed: list[tuple[Recording, int]] = []
    free_ns = 0
    for recording in sorted(recordings, key=lambda one: (_span(one.manifest), one.manifest.id)):
        start_ns, end_ns = _span(recording.manifest)
        short_ns = max(0, free_ns - start_ns)
        step_ns = -(-short_ns // NANOS_PER_SECOND) * NANOS_PER_SECOND
        placed.append((recording, step_ns))
        free_ns = end_ns + step_ns + seconds_to_ns(APART_S)
    return placed


def _span(manifest: RecordingManifest) -> tuple[int, int]:
    """Return the first and the last instant of all sessions of the recording."""
    kept = [window for one in manifest.captured for window in one.telemetry]
    starts = [manifest.start_ns, *(window.start_ns for window in kept)]
    return min(starts), max([manifest.end_ns, *(window.end_ns for window in kept)])


def _merged_tables(placed: Sequence[tuple[Recording, int]]) -> Mapping[str, Iterator[Any]]:
    tables = {}
    for table, layout in BY_TABLE.items():
        having = [
            (recording, step_ns, file)
            for recording, step_ns in placed
            for file in recording.manifest.files
            if file.table == table
        ]
        if having:
            common = set.intersection(*(set(file.columns) for _, _, file in having))
            columns = [name for name in (*layout.required, *layout.optional) if name in common]
            parts = [(recording, step_ns) for recording, step_ns, _ in having]
            tables[table] = _one_after_another(parts, layout.name, columns)
    return tables


def _one_after_another(
    parts: Sequence[tuple[Recording, int]], name: str, columns: list[str]
) -> Iterator[Any]:
    for recording, step_ns in parts:
        for batch in batches(recording.folder / name, columns=columns):
            yield shifted_batch(batch, step_ns)
