"""``events.jsonl``: the events of a run's sessions, appended while they happen.

Every process of a run appends to the same file; a follower in any process reads it while the run goes on::

    for event in follow(Path("reports/20261123T120529Z-4f2a9c"), ended=process_is_gone):
        ...

The first line is a header with the schema version. Events of parallel sessions interleave.
"""

from __future__ import annotations

import json
import os
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any, Literal

from pydantic import ValidationError

from pytest_otel_diag.model.base import Model, to_json
from pytest_otel_diag.model.events import (
    EVENT,
    ImpactMeasured,
    PhaseEnded,
    SessionEnded,
    SessionEvent,
    SessionStarted,
    TargetOpened,
    VerdictReached,
)
from pytest_otel_diag.model.session import SessionResult
from pytest_otel_diag.model.windows import NANOS_PER_SECOND
from pytest_otel_diag.runs.files import LineAppender, RunUnreadable

EVENTS_FILE = "events.jsonl"
SCHEMA_VERSION = 1

_WALL_CLOCK_TOLERANCE_S = 5.0
"""A session whose target's clock advanced by no more than this beside wall time ran in wall time."""


class EventsHeader(Model):
    """The first line of ``events.jsonl``."""

    kind: Literal["run_events"] = "run_events"
    schema_version: int = SCHEMA_VERSION
    run_id: str


class EventWriter:
    """Appends the events of one process; creates the file, and its header, on first use.

    The folder must exist. An event is readable for other processes once :meth:`emit` returns.
    """

    def __init__(self, directory: Path) -> None:
        self._file = directory / EVENTS_FILE
        self._lines: LineAppender | None = None

    def emit(self, event: SessionEvent) -> None:
        """Append one event; raises OSError."""
        if self._lines is None:
            _create(self._file)
            self._lines = LineAppender(self._file)
        self._lines.append(event)

    def close(self) -> None:
        """Close the file; may be called twice."""
        if self._lines is not None:
            self._lines.close()


def _create(file: Path) -> None:
    """Create the file with its header, unless another process of the run has done so."""
    if file.exists():
        return
    header = to_json(EventsHeader(run_id=file.parent.name)).encode() + b"\n"
    part = file.with_name(f".{file.name}.{os.getpid()}.part")
    part.write_bytes(header)
    try:
        os.link(part, file)  # all or nothing, unlike creating the file and then writing to it
    except FileExistsError:
        pass
    except OSError:  # a file system without hard links
        with suppress(FileExistsError), file.open("xb") as stream:
            stream.write(header)
    finally:
        part.unlink(missing_ok=True)


class EventReader:
    """Reads the events of a run piece by piece, while processes append to the file.

    ``skipped`` counts lines that are no event: torn by a killed process, or of a kind that this release does
    not know.
    """

    def __init__(self, directory: Path) -> None:
        self._file = directory / EVENTS_FILE
        self._offset = 0
        self._rest = b""
        self.skipped = 0

    def poll(self) -> list[SessionEvent]:
        """Return the events appended since the last call; nothing while the file does not exist.

        A last line without its newline waits for the rest. Raises RunUnreadable for a file of a newer
        schema version, or one that cannot be read.
        """
        try:
            with self._file.open("rb") as stream:
                stream.seek(self._offset)
                data = stream.read()
        except FileNotFoundError:
            return []
        except OSError as problem:
            raise RunUnreadable(f"{self._file} cannot be read: {problem}") from problem
        self._offset += len(data)
        *lines, self._rest = (self._rest + data).split(b"\n")
        return [event for line in lines if (event := self._parse(line)) is not None]

    def _parse(self, line: bytes) -> SessionEvent | None:
        if not line.strip():
            return None
        try:
            raw = json.loads(line)
            if isinstance(raw, dict) and raw.get("kind") == "run_events":
                self._check(EventsHeader.model_validate(raw))
                return None
            return EVENT.validate_python(raw)
        except (ValueError, ValidationError):
            self.skipped += 1
            return None

    def _check(self, header: EventsHeader) -> None:
        if header.schema_version > SCHEMA_VERSION:
            raise RunUnreadable(
                f"{self._file} has schema version {header.schema_version}, this release reads up to "
                f"{SCHEMA_VERSION}; read it with the release that wrote it, or a later one"
            )


def read_events(directory: Path) -> list[SessionEvent]:
    """Return all events of a run; empty for runs of releases that kept none. Raises RunUnreadable."""
    return EventReader(directory).poll()


def follow(
    directory: Path, *, ended: Callable[[], bool], wait: Callable[[], None] = lambda: time.sleep(0.25)
) -> Iterator[SessionEvent]:
    """Yield the events of a run as they are appended, until the run has *ended* and all are read.

    *wait* is called between two looks at the file. Raises RunUnreadable.
    """
    reader = EventReader(directory)
    while True:
        over = ended()  # before the look: whatever was written until then is read
        yield from reader.poll()
        if over:
            return
        wait()


def events_of(result: SessionResult) -> Iterable[SessionEvent]:
    """Yield the events that a finished session would have left, as far as its result knows them.

    For sessions whose process could not write to the run's folder, and to describe a result and a running
    session in the same words.
    """
    wall_ns = result.started_at_ns
    start_ns = result.phases[0].start_ns if result.phases else wall_ns
    end_ns = result.phases[-1].end_ns if result.phases else start_ns
    target_s = (end_ns - start_ns) / NANOS_PER_SECOND
    at: dict[str, Any] = {"session_id": result.session_id, "at_ns": start_ns, "wall_ns": wall_ns}
    yield SessionStarted(
        **at,
        scenario_id=result.scenario.id,
        faults=tuple(str(fault) for fault in result.scenario.faults),
        control=result.scenario.control,
        target=result.target,
        analyzer=result.analyzer,
        test_id=result.test_id,
        repeat=result.repeat,
        seed=result.seed,
        ungated=result.scenario.ungated,
    )
    if result.phases:
        yield TargetOpened(**at, virtual=abs(target_s - result.wall_s) >= _WALL_CLOCK_TOLERANCE_S)
    for record in result.phases:
        yield PhaseEnded(**{**at, "at_ns": record.end_ns}, record=record)
    at = {**at, "at_ns": end_ns, "wall_ns": wall_ns + round(result.wall_s * NANOS_PER_SECOND)}
    if result.impact is not None:
        yield ImpactMeasured(**at, impact=result.impact)
    if (verdict := result.verdict) is not None:
        yield VerdictReached(
            **at,
            detected=verdict.detected,
            fault_present=verdict.fault_present,
            service_rank=verdict.service_rank,
            solved=verdict.solved,
        )
    yield SessionEnded(
        **at,
        scenario_id=result.scenario.id,
        status=result.status,
        reason=result.reason,
        blame=result.blame,
        outcome=result.summary,
        wall_s=result.wall_s,
    )
