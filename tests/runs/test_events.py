"""The file of events: written by several processes, read while they write, folded into the run's state."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pytest_otel_diag.config.settings import Settings
from pytest_otel_diag.model.events import (
    BaselineMeasured,
    ImpactMeasured,
    PhaseStarted,
    ServiceSample,
    SessionEnded,
    SessionEvent,
    SessionStarted,
    SessionWaiting,
    TargetOpened,
)
from pytest_otel_diag.model.session import Impact, ImpactReason, Phase, Status
from pytest_otel_diag.runs.events import EventReader, EventWriter, events_of, follow, read_events
from pytest_otel_diag.runs.files import RunUnreadable
from pytest_otel_diag.runs.place import RunPlace
from pytest_otel_diag.runs.run import Run, begin
from pytest_otel_diag.runs.tracker import Follower, Tracker, state_of
from pytest_otel_diag.scoring.gate_outcome import EXIT_INFRASTRUCTURE
from tests.support.ended import FAULT, RIGHT, result

SECOND_NS = 1_000_000_000


def at(session_id: str = "a", seconds: int = 0) -> dict:
    return {"session_id": session_id, "at_ns": seconds * SECOND_NS, "wall_ns": seconds * SECOND_NS}


def started(session_id: str = "a") -> SessionStarted:
    return SessionStarted(**at(session_id), scenario_id="s", target="t", analyzer="x")


def phase(session_id: str = "a", name: Phase = Phase.BASELINE) -> PhaseStarted:
    return PhaseStarted(**at(session_id), phase=name)


def ended(session_id: str = "a") -> SessionEnded:
    return SessionEnded(**at(session_id, 9), scenario_id="s", status=Status.SCORED, wall_s=1.0)


@pytest.fixture
def writer(tmp_path: Path) -> Iterator[EventWriter]:
    writer = EventWriter(tmp_path)
    yield writer
    writer.close()


def test_events_read_back_in_order_after_the_header(tmp_path: Path, writer: EventWriter) -> None:
    events = [started(), phase(), ended()]
    for event in events:
        writer.emit(event)
    assert read_events(tmp_path) == events
    first = (tmp_path / "events.jsonl").read_text().splitlines()[0]
    assert '"schema_version":1' in first and f'"run_id":"{tmp_path.name}"' in first


def test_a_folder_without_the_file_has_no_events(tmp_path: Path) -> None:
    assert read_events(tmp_path) == []


def test_an_event_is_readable_once_it_was_emitted(tmp_path: Path, writer: EventWriter) -> None:
    reader = EventReader(tmp_path)
    assert reader.poll() == []
    for event in (started(), phase(), ended()):
        writer.emit(event)
        assert reader.poll() == [event]
    assert reader.poll() == []


@settings(max_examples=25)
@given(st.integers(1, 60))
def test_a_torn_last_line_is_left_out(tmp_path_factory: pytest.TempPathFactory, cut: int) -> None:
    folder = tmp_path_factory.mktemp("torn")
    writer = EventWriter(folder)
    for event in (started(), phase()):
        writer.emit(event)
    writer.close()
    file = folder / "events.jsonl"
    file.write_bytes(file.read_bytes()[:-cut])
    assert read_events(folder) == [started()]


def test_a_line_that_is_completed_later_is_read_then(tmp_path: Path, writer: EventWriter) -> None:
    writer.emit(started())
    file = tmp_path / "events.jsonl"
    whole = file.read_bytes()
    file.write_bytes(whole[:-20])
    reader = EventReader(tmp_path)
    assert reader.poll() == []
    with file.open("ab") as stream:
        stream.write(whole[-20:])
    assert reader.poll() == [started()]


def test_lines_that_are_no_event_are_skipped_and_counted(tmp_path: Path, writer: EventWriter) -> None:
    writer.emit(started())
    with (tmp_path / "events.jsonl").open("ab") as stream:
        stream.write(b'{"kind": "phase_sta\n\n{"kind": "of_a_later_release", "session_id": "a"}\n')
    writer.emit(phase())
    reader = EventReader(tmp_path)
    assert reader.poll() == [started(), phase()]
    assert reader.skipped == 2


def test_a_newer_schema_version_is_refused(tmp_path: Path) -> None:
    (tmp_path / "events.jsonl").write_text('{"kind": "run_events", "schema_version": 2, "run_id": "r"}\n')
    with pytest.raises(RunUnreadable, match="schema version 2, this release reads up to 1"):
        read_events(tmp_path)


def test_broken_text_survives(tmp_path: Path, writer: EventWriter) -> None:
    odd = SessionWaiting(**at(), reason="\ud800 \u2028\n")
    writer.emit(odd)
    assert read_events(tmp_path) == [odd]


WRITE = """
import sys
from pathlib import Path
from pytest_otel_diag.model.events import SessionWaiting
from pytest_otel_diag.runs.events import EventWriter

name, count = sys.argv[2], int(sys.argv[3])
writer = EventWriter(Path(sys.argv[1]))
for number in range(count):
    writer.emit(SessionWaiting(session_id=name, at_ns=number, wall_ns=number, reason=name * 2000))
"""


def test_processes_that_write_at_once_do_not_mix_their_lines(tmp_path: Path) -> None:
    command = [sys.executable, "-c", WRITE, str(tmp_path)]
    writers = [subprocess.Popen([*command, name, "200"]) for name in "ab"]
    assert [writer.wait() for writer in writers] == [0, 0]
    reader = EventReader(tmp_path)
    events = reader.poll()
    assert reader.skipped == 0
    for name in "ab":
        assert [event.at_ns for event in events if event.session_id == name] == list(range(200))
    assert sorted(file.name for file in tmp_path.iterdir()) == ["events.jsonl"]


def test_a_follower_reads_until_the_run_has_ended(tmp_path: Path, writer: EventWriter) -> None:
    """What is written between the last look and the end is read as well."""
    pending: list[SessionEvent] = [started(), phase(), ended()]

    def run_ended() -> bool:
        if pending:
            writer.emit(pending.pop(0))
        return not pending

    waits: list[None] = []
    events = list(follow(tmp_path, ended=run_ended, wait=lambda: waits.append(None)))
    assert events == [started(), phase(), ended()]
    assert len(waits) == 2


def test_the_tracker_moves_sessions_from_in_flight_to_ended() -> None:
    tracker = Tracker()
    for event in (started("a"), started("b"), phase("b", Phase.IMPACT), ended("a")):
        tracker.add(event)
    assert [(state.started.session_id, state.phase) for state in tracker.flights()] == [("b", Phase.IMPACT)]
    assert [state.started.session_id for state in tracker.ended()] == ["a"]
    assert tracker.has_ended("a") and not tracker.has_ended("b")
    tracker.add(ended("b"))
    assert [state.started.session_id for state in tracker.ended(since=1)] == ["b"]


def test_events_of_unknown_and_of_ended_sessions_change_nothing() -> None:
    tracker = Tracker()
    for event in (phase("x"), ended("x"), started("a"), ended("a"), phase("a"), ended("a"), started("a")):
        tracker.add(event)
    assert tracker.flights() == ()
    assert len(tracker.ended()) == 1


def test_the_state_keeps_the_series_of_each_service() -> None:
    def sample(service: str, second: int, rate: float) -> ServiceSample:
        return ServiceSample(
            service=service,
            bucket_start_ns=second * SECOND_NS,
            bucket_s=10.0,
            rate_per_s=rate,
            error_ratio=0.0,
        )

    impact = Impact(reason=ImpactReason.NO_EFFECT)
    tracker = Tracker()
    for event in (
        started(),
        BaselineMeasured(**at(), samples=(sample("ad", 0, 5.0), sample("cart", 0, 1.0))),
        ImpactMeasured(**at(), impact=impact, samples=(sample("ad", 20, 3.0), sample("ad", 10, 4.0))),
        ImpactMeasured(**at(), impact=impact, samples=(sample("ad", 20, 6.0),)),
    ):
        tracker.add(event)
    (state,) = tracker.flights()
    assert [one.rate_per_s for one in state.series["ad"]] == [5.0, 4.0, 6.0]
    assert [one.rate_per_s for one in state.series["cart"]] == [1.0]
    assert state.impact == impact


def test_virtual_time_counts_from_the_opening_of_the_target() -> None:
    opened = TargetOpened(**{**at(), "at_ns": 700 * SECOND_NS}, virtual=True)
    later = PhaseStarted(**{**at(), "at_ns": 820 * SECOND_NS}, phase=Phase.IMPACT)
    tracker = Tracker()
    for event in (started(), opened, later):
        tracker.add(event)
    (state,) = tracker.flights()
    assert state.target_s == 120.0


def test_a_result_has_the_state_that_its_events_lead_to(tmp_path: Path, writer: EventWriter) -> None:
    session = result(verdict=RIGHT)
    for event in events_of(session):
        writer.emit(event)
    (state,) = Follower(tmp_path).refresh().ended()
    assert state == state_of(session)
    assert state.started.faults == ("paymentFailure=50%",)
    assert state.verdict is not None and state.verdict.solved
    assert state.ended is not None and state.ended.outcome == session.summary
    assert FAULT.id == state.started.scenario_id


def test_a_run_goes_on_when_its_events_cannot_be_read(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    place = RunPlace.new(tmp_path, 1)
    run = Run(Settings(), place, begin(place, Settings(), tmp_path, {"name": "t"}))
    (place.directory / "events.jsonl").mkdir()
    run.add(run.lose("test_a", "the worker process died"))
    run.complete_events(result(verdict=RIGHT))
    assert run.finish() == EXIT_INFRASTRUCTURE
    assert "events of the run are incomplete" in caplog.text
