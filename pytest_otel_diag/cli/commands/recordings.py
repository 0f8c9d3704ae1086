"""``otel-diag recordings``: imports, validates, lists, shifts and merges recordings."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated

import typer

from pytest_otel_diag.cli.commands.record import shift_of
from pytest_otel_diag.cli.options import takes_settings
from pytest_otel_diag.config.settings import Settings
from pytest_otel_diag.errors import ConfigurationError
from pytest_otel_diag.model.windows import iso
from pytest_otel_diag.recordings.format.reader import Recording
from pytest_otel_diag.recordings.library import find_recordings, import_recording, open_recordings
from pytest_otel_diag.recordings.rewrite import merge as merge_recordings
from pytest_otel_diag.recordings.rewrite import rewrite
from pytest_otel_diag.recordings.validation import validate_recording

app = typer.Typer(help="Recorded incidents: import, validate, list, shift, merge.", no_args_is_help=True)


@app.command("import")
def import_(
    source: Annotated[Path, typer.Argument(help="Folder with cases.json and Parquet files.")],
    destination: Annotated[Path, typer.Argument(help="New folder for the recording.")],
) -> None:
    """Convert recorded incidents from another layout into a recording."""
    manifest = import_recording(source, destination)
    rows = ", ".join(f"{file.rows:,} rows of {file.table}" for file in manifest.files)
    typer.echo(
        f"{destination}: {len(manifest.incidents)} incidents, {len(manifest.controls)} controls, {rows}"
    )
    for note in manifest.notes:
        typer.echo(f"  {note}")


@app.command()
def validate(
    path: Annotated[Path, typer.Argument(help="A recording, or a folder of recordings.")],
) -> None:
    """Check checksums, columns and values; exit code 1 when something is wrong."""
    unsound = False
    for folder in find_recordings(path):
        validation = validate_recording(folder)
        typer.echo(f"{folder}: {len(validation.errors)} errors, {len(validation.warnings)} warnings")
        for finding in (*validation.errors, *validation.warnings):
            typer.echo(f"  {finding}")
        unsound = unsound or bool(validation.errors)
    raise typer.Exit(int(unsound))


@app.command("list")
@takes_settings("cache")
def list_(
    settings: Settings,
    path: Annotated[Path, typer.Argument(help="A recording, or a folder of recordings.")],
    incidents: Annotated[bool, typer.Option("--incidents", help="List every incident.")] = False,
) -> None:
    """Show what recordings contain."""
    for recording in open_recordings([path], settings.cache_dir()):
        for line in _lines(recording):
            typer.echo(line)
        for incident in recording.manifest.incidents if incidents else ():
            typer.echo(
                f"    {incident.id}  {iso(incident.start_ns)}  {incident.service}  {incident.fault_type}"
            )


@app.command()
def shift(
    source: Annotated[Path, typer.Argument(help="A recording, or a folder of recordings.")],
    destination: Annotated[Path, typer.Argument(help="New folder.")],
    to: Annotated[str | None, typer.Option(help="New first instant, as 2026-01-31T08:00:00Z.")] = None,
    anonymise_time: Annotated[
        bool, typer.Option("--anonymise-time", help="Let each recording begin with the year 2000.")
    ] = False,
    redact: Annotated[bool, typer.Option("--redact", help="Remove what reveals which flag was on.")] = False,
) -> None:
    """Copy recordings with every instant moved by one constant each, and optionally redacted."""
    wanted = shift_of(to, anonymise_time)
    if wanted is None and not redact:
        raise ConfigurationError("nothing to change: give --to, --anonymise-time or --redact")
    for folder in find_recordings(source):
        new = destination if folder == source else destination / folder.name
        manifest = rewrite(folder, new, shift=wanted, redact=redact)
        typer.echo(f"{new}: {iso(manifest.start_ns)}..{iso(manifest.end_ns)}")


@app.command()
def merge(
    source: Annotated[Path, typer.Argument(help="Folder of captured sessions.")],
    destination: Annotated[Path, typer.Argument(help="New folder for the recording.")],
) -> None:
    """Merge captured sessions into one recording; each replays as it did alone."""
    manifest = merge_recordings(find_recordings(source), destination)
    typer.echo(f"{destination}: {len(manifest.incidents)} incidents, {len(manifest.controls)} controls")


def _lines(recording: Recording) -> Iterator[str]:
    manifest = recording.manifest
    kinds = Counter(incident.fault_type or "unknown" for incident in manifest.incidents)
    yield f"{manifest.id}  {', '.join(manifest.systems)}  {iso(manifest.start_ns)}..{iso(manifest.end_ns)}"
    yield f"  source     {manifest.source.title} ({manifest.source.licence or 'licence not stated'})"
    yield f"  sha256     {recording.sha256}"
    counted = ", ".join(f"{kind} {n}" for kind, n in kinds.most_common())
    yield f"  incidents  {len(manifest.incidents)}{counted and f': {counted}'}"
    quiet_s = sum(quiet.duration_s for quiet in manifest.quiet)
    yield f"  controls   {len(manifest.controls)}, quiet windows {len(manifest.quiet)}, {quiet_s:.0f} s"
    for file in manifest.files:
        yield f"  {file.name:<10} {file.rows:,} rows"
