"""``otel-diag recordings``: import, validate, list, shift, merge."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from pathlib import Path

from pytest_otel_diag.errors import ConfigurationError
from pytest_otel_diag.model.windows import iso
from pytest_otel_diag.recordings.format.reader import Recording
from pytest_otel_diag.recordings.library import find_recordings, open_recordings
from pytest_otel_diag.recordings.library import import_recording as import_into
from pytest_otel_diag.recordings.rewrite import merge as merge_recordings
from pytest_otel_diag.recordings.rewrite import rewrite as rewrite_recording
from pytest_otel_diag.recordings.time_shift import Shift
from pytest_otel_diag.recordings.validation import validate_recording

Echo = Callable[[str], object]


def import_recording(source: Path, destination: Path, echo: Echo) -> None:
    """Import *source* into the new folder *destination*; raises RecordingError."""
    manifest = import_into(source, destination)
    rows = ", ".join(f"{file.rows:,} rows of {file.table}" for file in manifest.files)
    echo(f"{destination}: {len(manifest.incidents)} incidents, {len(manifest.controls)} controls, {rows}")


def validate(path: Path, echo: Echo) -> int:
    """Print every finding; return 1 when there are errors among them."""
    validation = validate_recording(path)
    for finding in (*validation.errors, *validation.warnings):
        echo(str(finding))
    echo(f"{path}: {len(validation.errors)} errors, {len(validation.warnings)} warnings")
    return 1 if validation.errors else 0


def show(path: Path, cache_dir: Path, echo: Echo, *, incidents: bool) -> None:
    """Print what each recording under *path* holds, with *incidents* also each of them by its id."""
    for recording in open_recordings([path], cache_dir):
        for line in _lines(recording):
            echo(line)
        for incident in recording.manifest.incidents if incidents else ():
            echo(f"    {incident.id}  {iso(incident.start_ns)}  {incident.service}  {incident.fault_type}")


def rewrite(source: Path, destination: Path, shift: Shift | None, redact: bool, echo: Echo) -> None:
    """Write the recording, or each one below *source*, anew; raises RecordingError, ConfigurationError."""
    if shift is None and not redact:
        raise ConfigurationError("say what to change: --to, --anonymise-time, --redact")
    folders = find_recordings(source)
    for folder in folders:
        new = destination if folder == source else destination / folder.name
        manifest = rewrite_recording(folder, new, shift=shift, redact=redact)
        echo(f"{new}: {iso(manifest.start_ns)}..{iso(manifest.end_ns)}")


def merge(source: Path, destination: Path, echo: Echo) -> None:
    """Put the captured sessions below *source* into one recording; raises RecordingError."""
    manifest = merge_recordings(find_recordings(source), destination)
    echo(f"{destination}: {len(manifest.incidents)} incidents, {len(manifest.controls)} controls")


def _lines(recording: Recording) -> list[str]:
    manifest = recording.manifest
    kinds = Counter(incident.fault_type or "unknown" for incident in manifest.incidents)
    lines = [
        f"{manifest.id}  {', '.join(manifest.systems)}  {iso(manifest.start_ns)}..{iso(manifest.end_ns)}",
        f"  source     {manifest.source.title} ({manifest.source.licence or 'licence not stated'})",
        f"  sha256     {recording.sha256}",
        f"  incidents  {len(manifest.incidents)}: {', '.join(f'{k} {n}' for k, n in kinds.most_common())}",
        f"  controls   {len(manifest.controls)}, quiet windows {len(manifest.quiet)}, "
        f"{sum(quiet.duration_s for quiet in manifest.quiet):.0f} s",
    ]
    lines += [f"  {file.name:<10} {file.rows:,} rows" for file in manifest.files]
    return lines
