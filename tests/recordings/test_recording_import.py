"""Import of labelled incidents in both shapes; attributes that reveal the answer are removed."""

import json
import shutil
import subprocess
import sys
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from pytest_otel_diag.errors import RecordingError
from pytest_otel_diag.model.diagnosis import Mechanism, Signal
from pytest_otel_diag.model.windows import iso
from pytest_otel_diag.recordings.importer import without_keys
from pytest_otel_diag.recordings.library import (
    find_recordings,
    import_recording,
    open_recording,
    open_recordings,
)
from pytest_otel_diag.recordings.validation import validate_recording
from tests.recordings.recording_samples import (
    ATTRIBUTES,
    SECOND,
    T0,
    cases_folder,
    gauges,
    small_recording,
    traces,
)
from tests.recordings.sample_cases import INCIDENT_SECONDS, START_S, write_sample_cases
from tests.support.deadlines import deadline_s

INJECTION = {
    "id": "x-1",
    "system": "Shop",
    "service": "cart",
    "inject_time": "2023-11-14T22:30:00Z",
    "fault_type": "network_delay",
}
ISSUE = {
    "id": "issue-1",
    "system": "PetShop",
    "service": "search",
    "window": [1_700_100_000, 1_700_101_200],
    "baseline": [1_700_000_000, 1_700_086_400],
    "target": {"node": "site", "metric": "latency", "timestamp": 1_700_100_480},
    "command": "put-parameter --name searchdelay --value 1000",
}


def imported(tmp_path, cases, **files):
    return open_recording(cases_folder(tmp_path / "source", cases, **files), tmp_path / "cache").manifest


def injections(tmp_path, **change):
    times = [T0 + i * SECOND for i in range(0, 1200, 5)]
    return imported(tmp_path, [{**INJECTION, **change}], spans=traces(times)).incidents[0]


def issues(tmp_path, *changes):
    times = [*range(1_700_000_000, 1_700_086_401, 300), *range(1_700_100_000, 1_700_101_201, 300)]
    revealing = pa.array([[("statistic", "p99"), ("split", "test"), ("issue", "1")]] * len(times), ATTRIBUTES)
    points = gauges([time * SECOND for time in times], Attributes=revealing)
    cases = [{**ISSUE, "id": f"issue-{index}", **change} for index, change in enumerate(changes or ({},))]
    return imported(tmp_path, cases, points=points)


def test_a_folder_of_injections_becomes_a_valid_recording(tmp_path):
    recording = open_recording(write_sample_cases(tmp_path / "source"), tmp_path / "cache")
    manifest = recording.manifest
    assert validate_recording(recording.folder).findings == ()
    assert {file.table: file.rows for file in manifest.files} == {
        "otel_traces": 5 * 230 + 4 * 120 + 5 * 110,
        "otel_logs": 460,
        "otel_metrics_gauge": 60,
    }
    first, second = manifest.incidents
    assert (first.service, first.instance, first.fault_type) == ("cart", "cart-0", "network_delay")
    assert first.start_ns == (START_S + INCIDENT_SECONDS[0]) * SECOND
    assert (first.label_uncertainty_s, first.guard_s, second.guard_s) == (60, 10, 60)
    assert first.signals == ("traces", "logs", "metrics")
    assert first.expectation.root_causes[0].mechanisms == (Mechanism.NETWORK,)
    assert second.expectation.root_causes[0].mechanisms == (Mechanism.ERROR,)
    assert manifest.source.importer == "cases/injection"
    assert len(manifest.controls) >= len(manifest.incidents)


def test_the_incident_lasts_until_the_scrape_that_closes_its_last_minute(tmp_path):
    manifest = open_recording(write_sample_cases(tmp_path / "source"), tmp_path / "cache").manifest
    scrape = (START_S + INCIDENT_SECONDS[0] + 120) * SECOND
    assert manifest.incidents[0].telemetry_to_ns == scrape + 1_000_000


def test_an_incident_whose_first_moments_are_missing_starts_with_the_scrape_before_its_telemetry(tmp_path):
    source = write_sample_cases(tmp_path / "source")
    cases = json.loads((source / "cases.json").read_text())
    cases[0]["traces_from"] = iso((START_S + 300) * SECOND + 400_000_000)
    cases[1]["traces_from"] = iso((START_S + 890) * SECOND)
    (source / "cases.json").write_text(json.dumps(cases))
    first, second = open_recording(source, tmp_path / "cache").manifest.incidents
    assert first.telemetry_from_ns == (START_S + 300) * SECOND
    assert second.telemetry_from_ns == (START_S + 890) * SECOND


@pytest.mark.parametrize(
    ("fault_type", "mechanisms", "guard_s"),
    [
        ("network_delay", (Mechanism.NETWORK,), 10),
        ("cpu_contention", (Mechanism.CPU,), 10),
        ("cpu_consumed", (Mechanism.CPU,), 10),
        ("exception", (Mechanism.ERROR,), 60),
        ("return", (Mechanism.ERROR,), 60),
        ("solar_flare", (), 60),
    ],
)
def test_fault_types_name_their_mechanism(tmp_path, fault_type, mechanisms, guard_s):
    incident = injections(tmp_path, fault_type=fault_type)
    assert incident.expectation.root_causes[0].mechanisms == mechanisms
    assert incident.expectation.root_causes[0].service == "cart"
    assert incident.guard_s == guard_s


@pytest.mark.parametrize(
    ("system", "fault_type", "uncertainty_s"),
    [
        ("OnlineBoutique", "network_delay", 10),
        ("OnlineBoutique", "return", 60),
        ("TrainTicket", "network_delay", 60),
        ("Shop", "cpu_contention", 60),
    ],
)
def test_controls_keep_a_distance_by_the_uncertainty_of_labels(tmp_path, system, fault_type, uncertainty_s):
    times = [T0 + i * SECOND for i in range(0, 1200)]
    manifest = imported(
        tmp_path, [{**INJECTION, "system": system, "fault_type": fault_type}], spans=traces(times)
    )
    (incident,) = manifest.incidents
    assert incident.label_uncertainty_s == uncertainty_s
    assert manifest.quiet[0].end_ns == incident.start_ns - (60 if fault_type == "return" else 10) * SECOND
    strict = incident.disturbed(manifest.policy, strict=True)
    assert strict.start_ns == incident.start_ns - uncertainty_s * SECOND
    assert not any(control.window.overlaps(strict) for control in manifest.controls)


@pytest.mark.parametrize("traces_to", [None, "2023-11-14T22:19:59Z"])
def test_missing_bounds_of_telemetry_follow_the_policy(tmp_path, traces_to):
    incident = injections(tmp_path, inject_time="2023-11-14T22:20:00", traces_to=traces_to)
    assert incident.start_ns - incident.telemetry_from_ns == 120 * SECOND
    assert incident.telemetry_to_ns - incident.start_ns == 180 * SECOND + 1_000_000
    assert incident.signals == ()


def test_metrics_give_the_coverage_of_recordings_without_spans(tmp_path):
    manifest = issues(tmp_path)
    assert [file.table for file in manifest.files] == ["otel_metrics_gauge"]
    assert sum(window.duration_s for window in manifest.quiet) == 86_401
    assert [control.window.duration_s for control in manifest.controls] == [1201]
    assert manifest.policy.reference_span_s is None


def test_issue_windows_keep_symptom_and_uncertainty(tmp_path):
    incident = issues(tmp_path).incidents[0]
    assert (incident.start_ns, incident.telemetry_to_ns) == (1_700_100_000 * SECOND, 1_700_101_201 * SECOND)
    assert incident.label_uncertainty_s == 480
    anomalies = [(anomaly.service, anomaly.signal) for anomaly in incident.expectation.anomalies]
    assert anomalies == [("search", None), ("site", Signal.LATENCY)]


@pytest.mark.parametrize(
    ("change", "mechanism"),
    [
        ({}, Mechanism.LATENCY),
        ({"command": "put-parameter --name searcherrorpercent --value 2"}, Mechanism.ERROR),
        ({"command": "sed 's/inject = false/inject = true/g' index.js"}, Mechanism.ERROR),
        ({"command": "sed 's/sleep(1/sleep(250/g' index.js"}, Mechanism.LATENCY),
        ({"command": "python -m issue_dynamo_db_requests"}, Mechanism.TRAFFIC),
        ({"command": "stress --cpu 8"}, Mechanism.CPU),
        ({"command": "memory hog"}, Mechanism.MEMORY),
        ({"command": "put-function-concurrency 1"}, Mechanism.CONFIGURATION),
        ({"command": "reboot"}, None),
        ({"command": "reboot", "root_cause_metric": "Availability"}, Mechanism.ERROR),
        ({"command": "reboot", "root_cause_metric": "humidity"}, None),
        ({"command": "reboot", "target": None}, None),
    ],
)
def test_the_command_of_an_issue_names_its_mechanism(tmp_path, change, mechanism):
    incident = issues(tmp_path, change).incidents[0]
    assert incident.expectation.root_causes[0].mechanisms == ((mechanism,) if mechanism else ())
    assert incident.fault_type == (mechanism.value if mechanism else "unknown")


def test_attributes_that_name_the_issue_are_removed(tmp_path):
    source = tmp_path / "source"
    issues(tmp_path)
    recording = open_recording(source, tmp_path / "cache")
    table = pq.read_table(recording.folder / "metrics_gauge.parquet")
    assert {tuple(row) for row in table.column("Attributes").to_pylist()} == {(("statistic", "p99"),)}
    assert b"split" not in (recording.folder / "metrics_gauge.parquet").read_bytes()


def test_keys_are_removed_from_every_row_of_a_slice():
    rows = [[("a", "1"), ("b", "2")], [], [("b", "3")], [("c", "4"), ("b", "5"), ("d", "6")]]
    batch = pa.RecordBatch.from_pydict({"n": pa.array(range(4)), "m": pa.array(rows, ATTRIBUTES)})
    for start in range(4):
        cut = without_keys(batch.slice(start), frozenset({"b"}))
        wanted = [[pair for pair in row if pair[0] != "b"] for row in rows[start:]]
        assert cut.column("m").to_pylist() == wanted
        assert cut.column("n").to_pylist() == list(range(start, 4))


def test_unusable_issues_are_left_out_with_a_note(tmp_path):
    manifest = issues(tmp_path, {}, {"usable": False})
    assert len(manifest.incidents) == 1
    assert "1 incidents that the source marks unusable were left out" in manifest.notes


def test_a_call_graph_beside_the_telemetry_is_left_out_with_a_note(tmp_path):
    source = write_sample_cases(tmp_path / "source")
    (source / "graph.json").write_text("{}")
    manifest = import_recording(source, tmp_path / "out")
    assert manifest.notes == ("the source's graph.json is not part of the recording",)


@pytest.mark.parametrize(
    ("cases", "message"),
    [
        ("{", "cases.json cannot be read as JSON"),
        ("[]", "must be a list of at least one incident"),
        ("{}", "must be a list of at least one incident"),
        ('[{"id": "x"}]', "incidents of an unknown shape"),
        (json.dumps([INJECTION, {**ISSUE}]), "incidents of an unknown shape"),
        (json.dumps([{**INJECTION, "inject_time": "soon"}]), "incident 0, field inject_time: "),
        (json.dumps([INJECTION, {**INJECTION, "service": None}]), "incident 1, field service: "),
        (json.dumps([{**ISSUE, "window": [1]}]), "incident 0, field window.1: Field required"),
        (json.dumps([{**ISSUE, "usable": False}]), "no incident is marked usable"),
        (json.dumps([INJECTION, INJECTION]), "ids are used twice: x-1"),
    ],
)
def test_invalid_labels_are_named(tmp_path, cases, message):
    source = cases_folder(tmp_path / "source", [], spans=traces([T0]))
    (source / "cases.json").write_text(cases)
    with pytest.raises(RecordingError, match=message):
        open_recording(source, tmp_path / "cache")
    assert not list((tmp_path / "cache" / "recordings").glob("*/"))


def test_invalid_telemetry_is_named(tmp_path):
    source = cases_folder(tmp_path / "source", [INJECTION])
    with pytest.raises(
        RecordingError, match=r"has no telemetry; beside cases.json there must be traces.parquet"
    ):
        import_recording(source, tmp_path / "out")
    cases_folder(source, [INJECTION], spans=traces([T0], Timestamp=pa.array([1])))
    with pytest.raises(
        RecordingError, match=r"traces.parquet: column Timestamp has type int64, must be a timestamp"
    ):
        import_recording(source, tmp_path / "out")
    cases_folder(source, [INJECTION], spans=traces([T0], Timestamp=None))
    with pytest.raises(RecordingError, match=r"traces.parquet: column Timestamp is missing; found TraceId"):
        import_recording(source, tmp_path / "out")
    path = source / "traces.parquet"
    path.write_bytes(path.read_bytes()[:-10])
    with pytest.raises(RecordingError, match=r"traces.parquet cannot be read as Parquet: it is truncated"):
        import_recording(source, tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_rows_out_of_order_are_sorted(tmp_path):
    times = [T0 + i * SECOND for i in (5, 3, 900, 1, 4)]
    manifest = imported(tmp_path, [INJECTION], spans=traces(times))
    assert (manifest.start_ns, manifest.end_ns) == (T0 + SECOND, T0 + 900 * SECOND + 1)


def test_equal_content_is_imported_once(tmp_path):
    first = open_recording(write_sample_cases(tmp_path / "a"), tmp_path / "cache")
    changed = (first.folder / "recording.json").stat().st_mtime_ns
    second = open_recording(write_sample_cases(tmp_path / "b" / "other name"), tmp_path / "cache")
    assert second.folder == first.folder
    assert (second.folder / "recording.json").stat().st_mtime_ns == changed
    (tmp_path / "a" / "cases.json").write_text(json.dumps([INJECTION]))
    assert open_recording(tmp_path / "a", tmp_path / "cache").folder != first.folder


@pytest.mark.parametrize("name", ["recording.json", "traces.parquet", "missing"])
def test_a_damaged_copy_in_the_cache_is_imported_again(tmp_path, name):
    source = write_sample_cases(tmp_path / "a")
    first = open_recording(source, tmp_path / "cache")
    damaged = first.folder / name
    if name == "missing":
        (first.folder / "recording.json").unlink()
    else:
        damaged.write_bytes(damaged.read_bytes()[:-10])
    again = open_recording(source, tmp_path / "cache")
    again.verify()
    assert (again.folder, again.sha256) == (first.folder, first.sha256)


def test_a_damaged_copy_that_cannot_be_removed_is_named(tmp_path):
    source = write_sample_cases(tmp_path / "a")
    folder = open_recording(source, tmp_path / "cache").folder
    shutil.rmtree(folder)
    folder.write_text("no folder")
    with pytest.raises(RecordingError, match=r"is a damaged copy and cannot be removed .*--otel-diag-cache"):
        open_recording(source, tmp_path / "cache")


def test_concurrent_imports_agree(tmp_path):
    source = write_sample_cases(tmp_path / "a")
    script = (
        "import sys; from pathlib import Path\n"
        "from pytest_otel_diag.recordings.library import open_recording\n"
        "print(open_recording(Path(sys.argv[1]), Path(sys.argv[2])).sha256)"
    )
    running = [
        subprocess.Popen(
            [sys.executable, "-c", script, source, tmp_path / "cache"], stdout=subprocess.PIPE, text=True
        )
        for _ in range(3)
    ]
    answers = {process.communicate(timeout=deadline_s(30))[0].strip() for process in running}
    assert {process.returncode for process in running} == {0}
    assert len(answers) == 1
    assert len(list((tmp_path / "cache" / "recordings").glob("*/recording.json"))) == 1


def test_a_path_may_be_a_recording_an_importable_folder_or_hold_several(tmp_path):
    ours = small_recording(tmp_path / "all" / "b")
    theirs = write_sample_cases(tmp_path / "all" / "a")
    (tmp_path / "all" / "notes").mkdir()
    (tmp_path / "all" / "readme.txt").write_text("x")
    assert find_recordings(tmp_path / "all") == (theirs, ours)
    assert find_recordings(ours) == (ours,)
    opened = open_recordings([tmp_path / "all", ours], tmp_path / "cache")
    assert [recording.manifest.id[:6] for recording in opened] == ["sample", "shop"]


def test_a_path_without_a_recording_names_the_nearest(tmp_path):
    small_recording(tmp_path / "online-boutique")
    with pytest.raises(RecordingError, match=r"is not a folder \(did you mean 'online-boutique'\?\)"):
        find_recordings(tmp_path / "online-botique")
    (tmp_path / "empty").mkdir()
    with pytest.raises(RecordingError, match=r"no recording in .*empty or directly below it"):
        find_recordings(tmp_path / "empty")
    with pytest.raises(
        RecordingError, match=r"is not a recording: it has neither recording.json nor cases.json"
    ):
        open_recording(tmp_path / "empty", tmp_path / "cache")
    with pytest.raises(RecordingError, match="name a folder with a recording"):
        find_recordings(tmp_path / "nowhere" / "at" / "all")
    with pytest.raises(RecordingError, match="is a recording already"):
        import_recording(tmp_path / "online-boutique", tmp_path / "out")
    with pytest.raises(RecordingError, match=r"cannot be imported: it has no cases.json"):
        import_recording(tmp_path / "empty", tmp_path / "out")


def test_only_folders_with_a_recording_are_suggested(tmp_path):
    (tmp_path / "opt").mkdir()
    (tmp_path / "nopes").write_text("x")
    with pytest.raises(RecordingError, match=r"nope is not a folder; name a folder with a recording$"):
        find_recordings(tmp_path / "nope")
    write_sample_cases(tmp_path / "nopa")
    with pytest.raises(RecordingError, match=r"nope is not a folder \(did you mean 'nopa'\?\)$"):
        find_recordings(tmp_path / "nope")
    with pytest.raises(RecordingError, match=r"^/nope is not a folder; name a folder with a recording$"):
        find_recordings(Path("/nope"))


def test_an_import_names_incidents_without_telemetry(tmp_path):
    folder = write_sample_cases(tmp_path / "source")
    cases = json.loads((folder / "cases.json").read_text())
    cases[0]["inject_time"] = "2031-01-01T00:00:00Z"
    (folder / "cases.json").write_text(json.dumps(cases))
    made = import_recording(folder, tmp_path / "imported")
    said = [note for note in made.notes if "has no telemetry from its start at 2031-01-01" in note]
    assert len(said) == 1
