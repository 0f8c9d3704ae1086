"""Writing and reading recordings: atomicity, checksums, versions, types."""

import json
import sys

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pytest_otel_diag.errors import ConfigurationError, RecordingError
from pytest_otel_diag.recordings.format.columns import batches, in_time_order, nanoseconds
from pytest_otel_diag.recordings.format.reader import migrate, read_recording
from pytest_otel_diag.recordings.format.writer import write_recording
from tests.recordings.recording_samples import (
    SECOND,
    T0,
    edit,
    gauges,
    incident,
    manifest,
    small_recording,
    traces,
)


def test_a_written_recording_is_read_back(tmp_path):
    folder = small_recording(tmp_path / "rec", incidents=(incident(),))
    recording = read_recording(folder)
    recording.verify()
    files = {file.name: file for file in recording.manifest.files}
    assert set(files) == {"traces.parquet", "metrics_gauge.parquet"}
    assert files["traces.parquet"].rows == 300
    assert files["traces.parquet"].table == "otel_traces"
    assert files["traces.parquet"].columns["Duration"] == "uint64"
    assert (files["traces.parquet"].start_ns, files["traces.parquet"].end_ns) == (T0, T0 + 299 * SECOND)
    assert (recording.manifest.start_ns, recording.manifest.end_ns) == (T0, T0 + 299 * SECOND + 1)
    assert recording.manifest.incidents[0].service == "cart"
    assert recording.sha256 == read_recording(folder).sha256


def test_only_the_recording_remains_in_the_parent_folder(tmp_path):
    small_recording(tmp_path / "rec")
    assert [path.name for path in tmp_path.iterdir()] == ["rec"]


def test_a_folder_that_exists_is_not_overwritten(tmp_path):
    folder = small_recording(tmp_path / "rec")
    with pytest.raises(RecordingError, match="already exists"):
        small_recording(folder)


def test_a_folder_that_appears_meanwhile_is_not_replaced(tmp_path):
    folder = tmp_path / "rec"

    def stream():
        folder.mkdir()
        (folder / "theirs").write_text("x")
        yield traces([T0])

    with pytest.raises(RecordingError, match="another process wrote it"):
        write_recording(folder, manifest(), {"otel_traces": stream()})
    assert [path.name for path in tmp_path.iterdir()] == ["rec"]
    assert (folder / "theirs").read_text() == "x"


@pytest.mark.parametrize(
    ("tables", "message"),
    [
        ({"otel_traces": [traces([T0, T0 - 1])]}, "column Timestamp goes back in time in row 1"),
        ({"otel_traces": [traces([T0]), traces([T0 - 1])]}, "column Timestamp goes back in time in row 1"),
        ({"otel_traces": [traces([T0], SpanId=None)]}, "column SpanId missing; it must be a string"),
        (
            {"otel_traces": [traces([T0], Duration=pa.array([1.5]))]},
            "Duration has type double, must be a integer",
        ),
        (
            {"otel_traces": [traces([T0, T0], TraceId=pa.array(["a", None]))]},
            "column TraceId is null in row 1 of a batch",
        ),
        ({"otel_spans": [traces([T0])]}, "no file for table 'otel_spans'; choose from otel_traces"),
        ({"otel_traces": [traces([])]}, "'shop' has no rows in any table"),
        (
            {
                "otel_traces": [
                    traces([T0], ResourceAttributes=pa.array([[("a", 1)]], pa.map_(pa.string(), pa.int64())))
                ],
                "otel_metrics_gauge": [gauges([T0], TimeUnix=pa.array([2**62], pa.timestamp("s")))],
            },
            "column TimeUnix cannot be converted to timestamp",
        ),
    ],
)
def test_invalid_rows_are_rejected_and_leave_no_folder(tmp_path, tables, message):
    with pytest.raises(RecordingError, match=message.replace("(", r"\(")):
        write_recording(tmp_path / "rec", manifest(), tables)
    assert list(tmp_path.iterdir()) == []


def test_columns_are_cast_to_the_types_of_the_exporter(tmp_path):
    batch = traces(
        [T0, T0 + 1000],
        Timestamp=pa.array([T0 // 1000, T0 // 1000 + 1], pa.timestamp("us")),
        ServiceName=pa.array(["a", "b"]).dictionary_encode(),
        SpanName=pa.array(["x", "y"], pa.large_string()),
        Duration=pa.array([-5, 7], pa.int64()),
        Unknown=pa.array([1, 2]),
    )
    write_recording(tmp_path / "rec", manifest(), {"otel_traces": [batch]})
    table = pq.read_table(tmp_path / "rec" / "traces.parquet")
    assert table.column("Duration").to_pylist() == [0, 7]
    assert nanoseconds(table.column("Timestamp").combine_chunks()).to_pylist() == [T0, T0 + 1000]
    assert table.column("ServiceName").to_pylist() == ["a", "b"]
    assert table.schema.field("ServiceName").type == pa.string()
    assert "Unknown" not in table.schema.names


def test_row_groups_stay_small(tmp_path):
    times = [T0 + i for i in range(70_000)]
    write_recording(tmp_path / "rec", manifest(), {"otel_metrics_gauge": [gauges(times)]})
    file = pq.ParquetFile(tmp_path / "rec" / "metrics_gauge.parquet")
    sizes = [file.metadata.row_group(index).num_rows for index in range(file.num_row_groups)]
    assert sum(sizes) == 70_000
    assert max(sizes) <= 65_536


def test_a_changed_file_is_detected_by_its_checksum(tmp_path):
    folder = small_recording(tmp_path / "rec")
    path = folder / "traces.parquet"
    path.write_bytes(path.read_bytes() + b"x")
    with pytest.raises(RecordingError, match=r"traces.parquet has SHA-256 .* recording.json says"):
        read_recording(folder).verify()
    path.unlink()
    with pytest.raises(RecordingError, match=r"traces.parquet is missing"):
        read_recording(folder).verify()


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda d: d.update(schema_version=2), "schema_version 2 is newer than 1.*upgrade"),
        (lambda d: d.update(schema_version="1"), "schema_version is '1', must be a whole number"),
        (lambda d: d.update(schema_version=True), "schema_version is True"),
        (lambda d: d.pop("schema_version"), "schema_version is None"),
        (lambda d: d.update(titel="x"), "titel: Extra inputs are not permitted"),
        (
            lambda d: d["files"][0].update(name="spans.parquet"),
            "lists spans.parquet; choose from",
        ),
        (lambda d: d["files"].append(d["files"][0]), "a file is listed twice"),
        (lambda d: d["incidents"].append(d["incidents"][0]), "ids are used twice: a"),
        (
            lambda d: d["incidents"][0].update(telemetry_to_ns=T0),
            "an incident needs telemetry after its start",
        ),
        (lambda d: d["incidents"][0].update(end_ns=T0), "before it starts"),
        (lambda d: d["incidents"][0].update(variant="off"), "variant 'off', which is not a fault"),
        (lambda d: d["incidents"][0].update(start_ns=1.5), "incidents.0.start_ns"),
    ],
)
def test_an_invalid_manifest_is_rejected_with_the_reason(tmp_path, change, message):
    folder = small_recording(tmp_path / "rec", incidents=(incident(),))
    edit(folder, change)
    with pytest.raises(RecordingError, match=message):
        read_recording(folder)


def test_a_manifest_must_be_a_json_object(tmp_path):
    folder = small_recording(tmp_path / "rec")
    (folder / "recording.json").write_text("{")
    with pytest.raises(RecordingError, match="is not JSON"):
        read_recording(folder)
    (folder / "recording.json").write_text("[]")
    with pytest.raises(RecordingError, match="holds a list, must be an object"):
        read_recording(folder)
    (folder / "recording.json").unlink()
    with pytest.raises(RecordingError, match=r"cannot be read \(No such file"):
        read_recording(folder)


def test_older_versions_are_migrated_step_by_step():
    steps = {
        1: lambda d: {**d, "schema_version": 2, "a": 1},
        2: lambda d: {**d, "schema_version": 3, "b": d["a"] + 1},
    }
    document = migrate({"schema_version": 1}, "here", newest=3, migrations=steps)
    assert document == {"schema_version": 3, "a": 1, "b": 2}


def test_missing_pyarrow_is_reported_with_the_extra(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "pyarrow.parquet", None)
    with pytest.raises(ConfigurationError, match=r'pip install "pytest-otel-diag\[embedded\]"'):
        write_recording(tmp_path / "rec", manifest(), {"otel_traces": [traces([T0])]})


def test_a_missing_file_is_reported(tmp_path):
    with pytest.raises(RecordingError, match=r"x.parquet is missing; the recording is incomplete"):
        list(batches(tmp_path / "x.parquet"))


@settings(max_examples=30, deadline=None)
@given(
    times=st.lists(st.integers(0, 50), min_size=1, max_size=60),
    chunk=st.integers(1, 70),
    naive=st.booleans(),
)
def test_rows_in_any_order_are_sorted_by_time(tmp_path_factory, times, chunk, naive):
    path = tmp_path_factory.mktemp("order") / "x.parquet"
    kind = pa.timestamp("ns") if naive else pa.timestamp("ns", "UTC")
    table = pa.table({"Timestamp": pa.array(times, kind), "n": pa.array(range(len(times)))})
    pq.write_table(table, path, row_group_size=7)
    rows = [
        (time, n)
        for batch in in_time_order(path, "Timestamp", chunk_rows=chunk)
        for time, n in zip(nanoseconds(batch.column(0)).to_pylist(), batch.column(1).to_pylist(), strict=True)
    ]
    assert rows == sorted(zip(times, range(len(times)), strict=True))


@settings(max_examples=25, deadline=None)
@given(
    incidents=st.lists(
        st.tuples(st.text(min_size=1, max_size=12), st.integers(0, 10_000), st.integers(1, 500)),
        max_size=4,
        unique_by=lambda item: item[0],
    )
)
def test_every_manifest_survives_a_round_trip_through_json(incidents):
    made = manifest(
        incidents=tuple(
            incident(key, start, service=key, telemetry_to_ns=T0 + (start + length) * SECOND)
            for key, start, length in incidents
        )
    )
    assert type(made).model_validate_json(json.dumps(json.loads(made.model_dump_json()))) == made
