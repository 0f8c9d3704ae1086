"""``<reports>/<run-id>/``: written so that a crash loses no session that ended, and read back."""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Sequence
from pathlib import Path
from types import TracebackType
from typing import Self, TypeVar

from pydantic import BaseModel, ValidationError

from pytest_otel_diag.model.base import Nanos, to_json
from pytest_otel_diag.model.session import SessionResult
from pytest_otel_diag.runs.document import RunDocument
from pytest_otel_diag.runs.files import RunUnreadable, write_atomically
from pytest_otel_diag.runs.manifest import Manifest
from pytest_otel_diag.runs.migrations import current_version, migrated, readable_versions
from pytest_otel_diag.scoring.gate import GateSettings
from pytest_otel_diag.scoring.scorecard import Scorecard, build_scorecard
from pytest_otel_diag.scoring.text import count

RUN_FILE = "run.json"
SESSIONS_FILE = "sessions.jsonl"
SCORECARD_FILE = "scorecard.json"

_M = TypeVar("_M", bound=BaseModel)


def begin_run(directory: Path, make: Callable[[], Manifest]) -> Manifest:
    """Create the folder of a run with its ``run.json`` and return the manifest.

    Every process of a run may call this: the first one stores the manifest it *makes*, the others read it.
    Raises RunUnreadable when the folder cannot be written.
    """
    file = directory / RUN_FILE
    try:
        directory.mkdir(parents=True, exist_ok=True)
        if not file.exists():
            write_atomically(file, make())
    except OSError as problem:
        raise RunUnreadable(
            f"{directory} cannot be written ({problem}); choose another folder for reports"
        ) from problem
    return _load(Manifest, file)


def has_ended(directory: Path) -> bool:
    """Whether the run in *directory* is over; raises RunUnreadable for a folder without a run."""
    return _load(Manifest, directory / RUN_FILE).ended_at_ns is not None


class RunWriter:
    """Writes the sessions, the scorecard and the end of a run; one process of a run does.

    Every session is on the disk when :meth:`append` returns, and :meth:`finish` adds the end time and the
    scorecard.
    """

    def __init__(self, directory: Path, manifest: Manifest) -> None:
        """Raise RunUnreadable when the run has a writer already, or its folder cannot be written."""
        self.directory = directory
        self.manifest = manifest
        self._sessions: list[SessionResult] = []
        try:
            self._stream = (directory / SESSIONS_FILE).open("xb")
        except FileExistsError:
            raise RunUnreadable(
                f"{directory} exists already; run ids are unique, so choose another or delete the folder"
            ) from None
        except OSError as problem:
            raise RunUnreadable(
                f"{directory} cannot be written ({problem}); choose another folder for reports"
            ) from problem

    @classmethod
    def start(cls, reports: Path, manifest: Manifest) -> RunWriter:
        """Begin a run in ``reports/<run-id>/``; raises RunUnreadable when that is taken or cannot be made."""
        directory = reports / manifest.run_id
        return cls(directory, begin_run(directory, lambda: manifest))

    @property
    def sessions(self) -> Sequence[SessionResult]:
        """Sessions appended so far."""
        return tuple(self._sessions)

    def update(self, manifest: Manifest) -> None:
        """Replace ``run.json``, for what is known only once the run is under way (the analyzers)."""
        write_atomically(self.directory / RUN_FILE, manifest)
        self.manifest = manifest

    def append(self, session: SessionResult) -> None:
        """Add one ended session; it is on the disk when this returns."""
        self._stream.write(to_json(session).encode() + b"\n")
        self._stream.flush()
        os.fsync(self._stream.fileno())
        self._sessions.append(session)

    def finish(self, ended_at_ns: Nanos, settings: GateSettings | None = None) -> RunDocument:
        """Write the end of the run and its scorecard, close, and return the document."""
        self.close()
        self.manifest = self.manifest.model_copy(update={"ended_at_ns": ended_at_ns})
        scorecard = build_scorecard(self._sessions, _as_ended(settings, self.manifest))
        write_atomically(self.directory / SCORECARD_FILE, scorecard)
        write_atomically(self.directory / RUN_FILE, self.manifest)
        return RunDocument(manifest=self.manifest, sessions=tuple(self._sessions), scorecard=scorecard)

    def close(self) -> None:
        """Close the file of sessions; may be called twice."""
        self._stream.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        problem: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()


def read_run(directory: Path, settings: GateSettings | None = None) -> RunDocument:
    """Read a run directory, of this release or an older one.

    A last line torn by a crash is left out with a warning; the scorecard is built anew from the
    sessions when there is none yet, when *settings* are given, and (with a warning) when the stored
    one counts other sessions than the file holds. Raises RunUnreadable.
    """
    manifest = _load(Manifest, directory / RUN_FILE)
    sessions, warnings = _read_sessions(directory / SESSIONS_FILE)
    if manifest.ended_at_ns is None:
        warnings.append(f"run {manifest.run_id} did not end; these are the sessions that did")
    stored = directory / SCORECARD_FILE
    scorecard = None
    if settings is None and stored.is_file() and manifest.ended_at_ns is not None:
        scorecard = _load(Scorecard, stored)
        if scorecard.sessions != len(sessions):
            warnings.append(
                f"{stored} counts {count(scorecard.sessions, 'session')}, {SESSIONS_FILE} holds "
                f"{len(sessions)}; this report covers the latter alone"
            )
            scorecard = None
    if scorecard is None:
        scorecard = build_scorecard(sessions, _as_ended(settings, manifest))
    return RunDocument(
        manifest=manifest, sessions=tuple(sessions), scorecard=scorecard, warnings=tuple(warnings)
    )


def _as_ended(settings: GateSettings | None, manifest: Manifest) -> GateSettings | None:
    """Return the settings of the gate for a run that may have been interrupted."""
    if not manifest.interrupted:
        return settings
    return (settings or GateSettings()).model_copy(update={"interrupted": manifest.interrupted})


def _read_sessions(file: Path) -> tuple[list[SessionResult], list[str]]:
    try:
        # Split at \n alone: JSON may hold other line separators (U+2028) inside of strings.
        lines = file.read_bytes().split(b"\n")
    except FileNotFoundError:
        return [], [f"{file} is missing: no session of this run can be read"]
    except OSError as problem:
        raise RunUnreadable(f"{file} cannot be read: {problem}") from problem
    torn = lines.pop()
    sessions, warnings = [], []
    for number, line in enumerate(lines, start=1):
        if line.strip():
            sessions.append(_parse(SessionResult, line, f"{file}, line {number}"))
    if torn.strip():
        # Without its newline the line was being written when the run died.
        warnings.append(f"{file}, line {len(lines) + 1} is torn (the run died while writing it) and left out")
    return sessions, warnings


def _load(model: type[_M], file: Path) -> _M:
    try:
        content = file.read_bytes()
    except FileNotFoundError:
        raise RunUnreadable(
            f"{file} is missing; give the folder of a run, which holds {RUN_FILE} and {SESSIONS_FILE}"
        ) from None
    except OSError as problem:
        raise RunUnreadable(f"{file} cannot be read: {problem}") from problem
    return _parse(model, content, str(file))


def _parse(model: type[_M], content: bytes, where: str) -> _M:
    try:
        raw = json.loads(content)
    except ValueError as problem:
        raise RunUnreadable(f"{where} is no JSON ({problem}); the file was changed or cut") from None
    version = raw.get("schema_version") if isinstance(raw, dict) else None
    if version not in readable_versions(model):
        raise RunUnreadable(
            f"{where} has schema version {version!r}, this release reads {current_version(model)} and older; "
            "read it with the release that wrote it"
        )
    try:
        return model.model_validate(migrated(model, raw))
    except ValidationError as problem:
        first = problem.errors()[0]
        place = ".".join(str(part) for part in first["loc"])
        raise RunUnreadable(f"{where}, field {place}: {first['msg']}") from None
