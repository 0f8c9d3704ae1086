"""Captured sessions: their recordings, and replays with the same verdict."""

from __future__ import annotations

import asyncio
import multiprocessing
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from pytest_otel_diag.config.settings import Settings
from pytest_otel_diag.errors import ConfigurationError, RecordingError
from pytest_otel_diag.model.session import Blame, SessionResult, Status
from pytest_otel_diag.model.windows import NANOS_PER_SECOND
from pytest_otel_diag.ports import TargetSession
from pytest_otel_diag.recordings.capture import Capture, describe, unfit
from pytest_otel_diag.recordings.format.manifest import RecordingManifest
from pytest_otel_diag.recordings.format.reader import read_recording
from pytest_otel_diag.recordings.format.writer import write_recording
from pytest_otel_diag.recordings.leaks import Leaks
from pytest_otel_diag.recordings.library import find_recordings
from pytest_otel_diag.recordings.rewrite import merge, rewrite
from pytest_otel_diag.recordings.time_shift import ANONYMOUS_NS, Shift
from pytest_otel_diag.recordings.validation import validate_recording
from pytest_otel_diag.runs.opening import open_capture
from pytest_otel_diag.targets.replay.target import NoTraffic
from pytest_otel_diag.targets.shop.target import ShopTarget
from tests.recordings.captured import FAULTS, Kept, capture_all, replay_all, run, verdict_of
from tests.recordings.recording_samples import T0, manifest, small_recording, traces
from tests.support.deadlines import deadline_s, eventually_async

PAYMENT = FAULTS[0]


@pytest.fixture(scope="module")
def cache(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("cache")


@pytest.fixture(scope="module")
def directory(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("captured")


@pytest.fixture(scope="module")
def kept(directory: Path, cache: Path) -> dict[str, Kept]:
    return capture_all(directory, cache)


@pytest.fixture(scope="module")
def replayed(kept: dict[str, Kept], directory: Path, cache: Path) -> dict[str, SessionResult]:
    return replay_all([directory], cache)


def _manifest(one: Kept) -> RecordingManifest:
    return read_recording(one.folder).manifest


def test_replays_give_the_verdict_of_the_session(
    kept: dict[str, Kept], replayed: dict[str, SessionResult]
) -> None:
    assert len(replayed) == len(kept) == len(FAULTS) + 1
    for one in kept.values():
        again = replayed[_manifest(one).captured[0].id]
        assert verdict_of(again) == verdict_of(one.result)
    quiet = [one.result for one in kept.values() if not one.result.scenario.faults]
    assert [result.verdict and result.verdict.detected for result in quiet] == [False]
    payment = kept[PAYMENT].result.verdict
    assert payment is not None
    assert (payment.detected, payment.service_rank, payment.mechanism_rank) == (True, 1, 1)


def test_replays_compare_the_same_windows(kept: dict[str, Kept], replayed: dict[str, SessionResult]) -> None:
    for one in kept.values():
        windows = replayed[_manifest(one).captured[0].id].windows
        assert windows.baseline == one.result.windows.baseline
        assert windows.incident == one.result.windows.incident
        assert windows.reference == one.result.windows.reference


def test_the_ground_truth_is_recorded(kept: dict[str, Kept]) -> None:
    one = kept[PAYMENT]
    result, found = one.result, _manifest(one)
    captured = found.captured[0]
    assert captured.scenario == result.scenario
    assert captured.flag_timeline == result.flag_timeline
    assert [moment.variant for moment in captured.flag_timeline] == ["off", "50%", "off"]
    assert captured.impact == result.impact
    assert captured.witnesses == result.witnesses
    assert captured.recovered is True
    assert captured.provenance == result.provenance
    assert captured.redacted is False
    assert set(captured.leaks) == {
        "flag_attributes",
        "flag_events",
        "flag_metrics",
        "flag_service",
        "flag_texts",
    }
    incident = found.incidents[0]
    assert (incident.flag, incident.variant, incident.service) == ("paymentFailure", "50%", "payment")
    assert incident.signals == ("traces", "logs", "metrics")
    assert incident.end_ns is not None
    assert incident.end_ns >= incident.telemetry_to_ns
    assert captured.telemetry[-1].end_ns > incident.end_ns, "the recovery is part of the telemetry"
    quiet = next(_manifest(one) for one in kept.values() if not one.result.scenario.faults)
    assert (len(quiet.controls), quiet.incidents) == (1, ())


def test_a_disabled_load_is_an_incident(kept: dict[str, Kept]) -> None:
    incident = _manifest(kept["loadGeneratorTraffic=off"]).incidents[0]
    assert (incident.flag, incident.variant) == ("loadGeneratorTraffic=off", "on")


def test_recordings_are_valid(kept: dict[str, Kept]) -> None:
    for one in kept.values():
        assert validate_recording(one.folder).errors == ()
        read_recording(one.folder).verify()


def test_counters_stay_counters(kept: dict[str, Kept]) -> None:
    sums = pq.read_table(kept[PAYMENT].folder / "metrics_sum.parquet", columns=["IsMonotonic"])
    assert set(sums.column("IsMonotonic").to_pylist()) == {True, False}


def _tables(folder: Path) -> dict[str, pa.Table]:
    return {path.name: pq.read_table(path) for path in sorted(folder.glob("*.parquet"))}


def _instants(column: pa.ChunkedArray) -> list[int]:
    flat = column.combine_chunks()
    while pa.types.is_list(flat.type):
        flat = flat.flatten()
    return flat.cast(pa.int64()).to_pylist()


def _is_time(kind: pa.DataType) -> bool:
    return pa.types.is_timestamp(kind) or (pa.types.is_list(kind) and pa.types.is_timestamp(kind.value_type))


def test_one_constant_shifts_every_signal(kept: dict[str, Kept], tmp_path: Path, cache: Path) -> None:
    one = kept[PAYMENT]
    wanted_ns = 1_600_000_000 * NANOS_PER_SECOND
    moved = rewrite(one.folder, tmp_path / "moved", shift=Shift(wanted_ns))
    old = _manifest(one)
    step_ns = moved.start_ns - old.start_ns
    assert wanted_ns <= moved.start_ns < wanted_ns + NANOS_PER_SECOND
    assert step_ns % NANOS_PER_SECOND == 0
    seen = set()
    after = _tables(tmp_path / "moved")
    for name, table in _tables(one.folder).items():
        for column in table.column_names:
            before, later = table.column(column), after[name].column(column)
            if _is_time(before.type):
                pairs = zip(_instants(before), _instants(later), strict=True)
                assert {b - a for a, b in pairs if a} <= {step_ns}, (name, column)
                seen.add(column)
            else:
                assert before.equals(later), (name, column)
    assert {"Timestamp", "Events.Timestamp", "TimeUnix", "StartTimeUnix"} <= seen
    captured, old_captured = moved.captured[0], old.captured[0]
    assert [
        b.at_ns - a.at_ns for a, b in zip(old_captured.flag_timeline, captured.flag_timeline, strict=True)
    ]
    assert captured.windows.incident == old_captured.windows.incident.moved(step_ns)  # type: ignore[union-attr]  # it is set
    assert captured.telemetry == tuple(window.moved(step_ns) for window in old_captured.telemetry)
    again = replay_all([tmp_path / "moved"], cache)
    assert [verdict_of(result) for result in again.values()] == [verdict_of(one.result)]


def test_leaks_of_the_flag_can_be_redacted(kept: dict[str, Kept], tmp_path: Path) -> None:
    one = kept[PAYMENT]
    made = rewrite(one.folder, tmp_path / "cut", shift=Shift(ANONYMOUS_NS, secret=True), redact=True)
    assert made.captured[0].redacted
    assert "start at 2000-01-01" in made.notes[-1]
    leaks = Leaks(["paymentFailure"])
    for table in _tables(tmp_path / "cut").values():
        for batch in table.to_batches():
            leaks.count(batch)
    assert leaks.counts == {}
    rows = {file.name: file.rows for file in made.files}
    before = {file.name: file.rows for file in _manifest(one).files}
    assert 0 < rows["traces.parquet"] < before["traces.parquet"]
    assert validate_recording(tmp_path / "cut").errors == ()


def test_merged_sessions_replay_as_before(kept: dict[str, Kept], tmp_path: Path, cache: Path) -> None:
    names = ("control-quiet", PAYMENT)
    for name in names:  # at the same time, like sessions of one seed
        rewrite(kept[name].folder, tmp_path / "parts" / kept[name].folder.name, shift=Shift(ANONYMOUS_NS))
    made = merge(find_recordings(tmp_path / "parts"), tmp_path / "merged")
    assert made.notes == ("1 sessions were shifted in time so that they do not overlap",)
    assert validate_recording(tmp_path / "merged").errors == ()
    assert sum(file.rows for file in made.files) == sum(
        file.rows for name in names for file in _manifest(kept[name]).files
    )
    again = replay_all([tmp_path / "merged"], cache)
    for name in names:
        assert verdict_of(again[_manifest(kept[name]).captured[0].id]) == verdict_of(kept[name].result)


def test_only_captured_sessions_are_merged(kept: dict[str, Kept], tmp_path: Path) -> None:
    foreign = small_recording(tmp_path / "foreign")
    with pytest.raises(RecordingError, match="was not captured from sessions"):
        merge([foreign], tmp_path / "merged")
    with pytest.raises(RecordingError, match="no recordings to merge"):
        merge([], tmp_path / "merged")
    one = kept[PAYMENT].folder
    with pytest.raises(RecordingError, match="ids are used twice"):
        merge([one, one], tmp_path / "merged")
    assert not (tmp_path / "merged").exists()


def test_a_session_is_recorded_once(kept: dict[str, Kept]) -> None:
    one = kept[PAYMENT]
    with pytest.raises(RecordingError, match="already exists"):
        rewrite(one.folder, one.folder, redact=True)


@pytest.mark.parametrize(
    ("update", "reason"),
    [
        ({"status": Status.INVALID, "reason": "NO_EFFECT"}, "invalid: NO_EFFECT"),
        ({"status": Status.ERROR, "blame": Blame.INFRASTRUCTURE, "reason": "x"}, "error: x"),
        ({"status": Status.ERROR, "blame": Blame.ANALYZER}, "replay is a recording already"),
    ],
)
async def test_sessions_without_ground_truth_are_not_recorded(
    kept: dict[str, Kept],
    tmp_path: Path,
    caplog: pytest.LogCaptureFixture,
    update: dict[str, object],
    reason: str,
) -> None:
    result = kept[PAYMENT].result.model_copy(update=update)
    session = TargetSession(clock=None, flags=None, telemetry=object(), traffic=NoTraffic())  # type: ignore[arg-type]  # not reached
    assert reason in unfit(session, result)
    capture = Capture(tmp_path / "none")
    await capture(session, result)
    assert reason in capture.kept[0].reason
    assert reason in caplog.text
    assert not (tmp_path / "none").exists()
    no_baseline = result.windows.model_copy(update={"baseline": None})
    unseen = kept[PAYMENT].result.model_copy(update={"windows": no_baseline})
    assert "no baseline" in unfit(session, unseen)


def test_several_faults_are_one_incident(kept: dict[str, Kept]) -> None:
    result = kept[PAYMENT].result
    fault = result.scenario.faults[0]
    both = result.scenario.model_copy(
        update={"faults": (fault.model_copy(update={"variant": None}), replace_flag(fault, "adFailure"))}
    )
    later = kept[PAYMENT].result.windows.incident
    assert later is not None
    found = describe(result.model_copy(update={"scenario": both, "flag_timeline": ()}), until_ns=later.end_ns)
    incident = found.incidents[0]
    assert (incident.flag, incident.variant) == ("paymentFailure=50%+adFailure=50%", "on")
    assert incident.end_ns is None
    assert set(incident.expectation.flags) >= {"paymentFailure", "adFailure"}


def test_a_fault_that_no_flag_makes_is_an_incident_with_its_truth(kept: dict[str, Kept]) -> None:
    result = kept[PAYMENT].result
    own = result.scenario.model_copy(update={"faults": (), "external": "a slow disk"})
    made = result.model_copy(update={"scenario": own, "flag_timeline": (), "witnesses": ()})
    later = result.windows.incident
    assert later is not None
    incident = describe(made, until_ns=later.end_ns).incidents[0]
    assert (incident.flag, incident.fault_type, incident.label) == ("none", "external", "a slow disk")
    assert incident.expectation.root_causes == result.scenario.expectation.root_causes


def replace_flag(fault: object, flag: str) -> object:
    return fault.model_copy(update={"flag": flag})  # type: ignore[attr-defined]  # a fault


def test_a_replay_cannot_be_recorded() -> None:
    with pytest.raises(ConfigurationError, match="is a recording already"):
        open_capture(Settings(target="replay:x", record="y"))
    assert open_capture(Settings(target="shop")) is None
    made = open_capture(Settings(target="shop", record="y"))
    assert made is not None
    assert made.directory == Path("y").absolute()


async def test_a_capture_may_redact_and_shift(tmp_path: Path, cache: Path) -> None:
    target = ShopTarget.from_settings(
        "reference_s=60,settle_s=20", settings=Settings(cache=str(cache)), worker=""
    )
    capture = Capture(tmp_path / "kept", shift=Shift(ANONYMOUS_NS, secret=True), redact=True)
    fault = next(scenario for scenario in target.scenarios() if scenario.id == PAYMENT)
    timing = fault.timing.model_copy(update={"baseline_s": 60.0, "observe_s": 20.0, "recover_timeout_s": 0.0})
    try:
        result = await run(target, fault.model_copy(update={"timing": timing}), capture)
    finally:
        target.close()
    made = capture.kept[0].manifest
    assert made is not None, (result.reason, result.notes)
    assert made.start_ns // NANOS_PER_SECOND == ANONYMOUS_NS // NANOS_PER_SECOND
    assert made.captured[0].redacted
    assert made.captured[0].recovered is None, "the capture did not wait for the recovery"
    assert made.captured[0].leaks["flag_service"] > 0, "counted before they were cut"
    assert made.notes == (
        "all times were shifted by one constant so that they start at 2000-01-01T00:00:00.000Z",
    )
    assert validate_recording(tmp_path / "kept" / capture.kept[0].folder.name).errors == ()  # type: ignore[union-attr]  # it was kept


async def test_a_cancelled_capture_leaves_no_folder(tmp_path: Path, cache: Path) -> None:
    target = ShopTarget.from_settings(
        "reference_s=60,settle_s=20", settings=Settings(cache=str(cache)), worker=""
    )
    quiet = target.scenario_for(())
    assert quiet is not None
    capture = Capture(tmp_path / "cut")

    async def cut_short(session: TargetSession, result: SessionResult) -> None:
        task = asyncio.ensure_future(capture(session, result))
        while not (tmp_path / "cut").exists():  # noqa: ASYNC110 - a thread makes it, not a task
            await asyncio.sleep(0)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task

    try:
        session = quiet.model_copy(
            update={"timing": quiet.timing.model_copy(update={"baseline_s": 30.0, "observe_s": 20.0})}
        )
        result = await run(target, session, cut_short)  # type: ignore[arg-type]  # any hook will do
        assert result.status is Status.SCORED
        assert result.notes == ()
        # The thread ends at its next batch and removes its folder.
        assert await eventually_async(lambda: not list((tmp_path / "cut").iterdir()))
    finally:
        target.close()
    assert capture.kept == []


def _write_until_killed(folder: Path, begun: object) -> None:
    def endless() -> Iterator[pa.RecordBatch]:
        yield traces([T0 + i for i in range(100)])
        begun.set()  # type: ignore[attr-defined]  # an event between processes
        time.sleep(60)

    write_recording(folder, manifest(), {"otel_traces": endless()})


def test_a_killed_capture_is_not_found_as_a_recording(tmp_path: Path) -> None:
    context = multiprocessing.get_context("spawn")
    begun = context.Event()
    process = context.Process(target=_write_until_killed, args=(tmp_path / "half", begun))
    process.start()
    assert begun.wait(deadline_s(20))
    process.kill()
    process.join(deadline_s(20))
    left = list(tmp_path.iterdir())
    assert [path.name.startswith(".half-") for path in left] == [True]
    (left[0] / "recording.json").write_text("{}")  # even one that got this far
    with pytest.raises(RecordingError, match="no recording in"):
        find_recordings(tmp_path)


def test_reference_in_the_past_only(kept: dict[str, Kept]) -> None:
    from pytest_otel_diag.targets.replay.timeline import replay_of_incident, scenario_of  # noqa: PLC0415 - beside its use

    recording = read_recording(kept[PAYMENT].folder)
    incident = recording.manifest.incidents[0]
    replay = replay_of_incident(recording, incident)
    timing = scenario_of(replay).timing
    assert replay.reference(timing, past_only=True) == incident.reference
    later = replace(replay, compared=(incident.reference[0].moved(10**15),))  # type: ignore[index]  # it has one
    assert later.reference(timing, past_only=True) == ()
    assert len(later.reference(timing)) == 1
