"""Opens the telemetry of a recording, of a kept session or of a store for queries by hand."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from pytest_otel_diag.errors import ConfigurationError, nearest
from pytest_otel_diag.model.session import SessionResult
from pytest_otel_diag.model.windows import Window, iso
from pytest_otel_diag.recordings.format.manifest import MANIFEST, RecordingManifest
from pytest_otel_diag.recordings.format.reader import Recording
from pytest_otel_diag.recordings.library import find_recordings, open_recording
from pytest_otel_diag.runs.directory import RUN_FILE, read_run
from pytest_otel_diag.runs.kept_telemetry import kept_folder
from pytest_otel_diag.scoring.reasons import reason_of
from pytest_otel_diag.targets.replay.recording_store import MEMORY_DSN
from pytest_otel_diag.telemetry.dsn import ServerAddress, parse_dsn
from pytest_otel_diag.telemetry.store import Store

DATABASE = "telemetry"
"""Database into which a recording is loaded."""

SHOWN = 10
"""Incidents of a recording that its description lists."""


@dataclass(frozen=True)
class OpenTelemetry:
    """Telemetry that is open for queries by hand.

    ``about`` describes it in lines. ``parameters`` are values that every statement may use, as
    ``{incident_start:Int64}``: the windows of a session, in UTC nanoseconds.
    """

    store: Store
    database: str
    about: tuple[str, ...]
    parameters: Mapping[str, int] = field(default_factory=dict)

    def answer(self, sql: str, output: str | None) -> bytes:
        """Return the answer to a statement in ClickHouse's format *output*; raises TelemetryError."""
        return self.store.printed(self.database, sql, output, self.parameters)

    def words(self) -> Sequence[str]:
        """Return the names that a statement may contain: tables, columns, functions, keywords."""
        asked = (
            "SELECT name FROM system.tables WHERE database = currentDatabase()",
            "SELECT DISTINCT name FROM system.columns WHERE database = currentDatabase()",
            "SELECT name FROM system.functions",
            "SELECT keyword FROM system.keywords",
        )
        found = [self.answer(sql, "LineAsString").decode().split() for sql in asked]
        parameters = [f"{{{name}:Int64}}" for name in self.parameters]
        return sorted({*(word for words in found for word in words), *parameters})


@contextmanager
def opened(where: str, cache_dir: Path) -> Iterator[OpenTelemetry]:
    """Open *where*: a recording, a run with one kept session, ``RUN/SESSION``, or a store's DSN.

    Recordings are loaded into memory. Raises ConfigurationError that says what there is to choose from,
    RecordingError, TelemetryError.
    """
    if "://" in where:
        with Store.open(where) as store:
            yield OpenTelemetry(store, _database(where, store), (store.dsn,))
        return
    recording = open_recording(recording_folder(Path(where)), cache_dir)
    with Store.open(MEMORY_DSN) as store:
        store.create_database(DATABASE)
        for file in recording.manifest.files:
            store.ingest_parquet(DATABASE, file.table, recording.path(file))
        about, parameters = tuple(_about(recording)), _windows(recording.manifest)
        try:
            yield OpenTelemetry(store, DATABASE, about, parameters)
        finally:
            store.drop_database(DATABASE)


def recording_folder(path: Path) -> Path:
    """Return the folder of the recording that *path* names; see :func:`opened`."""
    if (path / RUN_FILE).is_file():
        return _only_kept(path)
    if not path.exists() and (path.parent / RUN_FILE).is_file():
        return _kept(path.parent, path.name)
    found = find_recordings(path)
    if len(found) > 1:
        raise ConfigurationError(
            f"{path} holds {len(found)} recordings; choose one:{_listed(map(str, found))}"
        )
    return found[0]


def _only_kept(run: Path) -> Path:
    sessions = read_run(run).sessions
    kept = [one for one in sessions if (kept_folder(run, one.session_id) / MANIFEST).is_file()]
    if len(kept) == 1:
        return kept_folder(run, kept[0].session_id)
    if not kept:
        raise ConfigurationError(f"{run} keeps no telemetry: {_why_not_kept(sessions)}")
    choices = _listed(f"{run}/{one.session_id}  {one.scenario.id}: {reason_of(one)}" for one in kept)
    raise ConfigurationError(f"{run} keeps the telemetry of {len(kept)} sessions; choose one:{choices}")


def _kept(run: Path, wanted: str) -> Path:
    """Return where the telemetry of the session is whose id begins with *wanted*."""
    sessions = read_run(run).sessions
    ids = [one.session_id for one in sessions if one.session_id.startswith(wanted)]
    if len(ids) != 1:
        known = [one.session_id for one in sessions]
        raise ConfigurationError(
            f"{run} has {len(ids)} sessions whose id begins with {wanted!r}{nearest(wanted, known)}; "
            f"choose from:{_listed(f'{one.session_id}  {one.scenario.id}' for one in sessions)}"
        )
    folder = kept_folder(run, ids[0])
    if not (folder / MANIFEST).is_file():
        chosen = [one for one in sessions if one.session_id == ids[0]]
        raise ConfigurationError(f"the telemetry of {wanted} was not kept: {_why_not_kept(chosen)}")
    return folder


def _why_not_kept(sessions: Sequence[SessionResult]) -> str:
    if sessions and all(session.target == "replay" for session in sessions):
        return "its sessions replayed a recording; open that recording"
    return "run pytest with --otel-diag-keep (failed sessions) or --otel-diag-keep=all"


def _listed(choices: Iterator[str] | Sequence[str]) -> str:
    return "".join(f"\n  {choice}" for choice in choices)


def _database(dsn: str, store: Store) -> str:
    """Return the database that the DSN names, else the only one with telemetry."""
    address = parse_dsn(dsn)
    if isinstance(address, ServerAddress) and address.database:
        return address.database
    found = sorted({table.database for table in store.exporter_tables()})
    if len(found) != 1:
        raise ConfigurationError(
            f"{store.dsn} has {len(found)} databases with telemetry; name one in the DSN, "
            f"as in clickhouse://host:8123/otel{_listed(found)}"
        )
    return found[0]


def _about(recording: Recording) -> Iterator[str]:
    manifest = recording.manifest
    yield f"{manifest.title} ({os.path.relpath(recording.folder)})"
    for captured in manifest.captured:
        for moment in captured.flag_timeline:
            yield f"flag      {iso(moment.at_ns)}  {moment.flag}={moment.variant}"
    judged = _judged(manifest)
    for name, window, _ in judged[:SHOWN]:
        yield f"incident  {iso(window.start_ns)} to {iso(window.end_ns)}  {name}"
    if len(judged) > SHOWN:
        yield f"incident  and {len(judged) - SHOWN} more"
    for file in manifest.files:
        yield f"table     {file.table}, {file.rows:,} rows"


def _judged(manifest: RecordingManifest) -> list[tuple[str, Window, Window | None]]:
    """Return incidents and controls: name, window, and baseline where the recording states one."""
    incidents = [
        (
            one.label or one.id,
            Window(start_ns=one.telemetry_from_ns, end_ns=one.telemetry_to_ns),
            one.baseline,
        )
        for one in manifest.incidents
    ]
    return [*incidents, *((one.id, one.window, one.baseline) for one in manifest.controls)]


def _windows(manifest: RecordingManifest) -> dict[str, int]:
    """Return the bounds of baseline and incident as parameters, where the recording has one of each."""
    judged = _judged(manifest)
    if len(judged) != 1:
        return {}
    _, incident, baseline = judged[0]
    named = {"incident": incident, "baseline": baseline}
    return {
        f"{name}_{end}": moment
        for name, window in named.items()
        if window is not None
        for end, moment in (("start", window.start_ns), ("end", window.end_ns))
    }
