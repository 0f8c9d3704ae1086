"""Findings of a validation: file, column, row, and severity."""

import json

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from pytest_otel_diag.model.windows import Window
from pytest_otel_diag.recordings.format.manifest import ControlWindow
from pytest_otel_diag.recordings.format.writer import write_recording
from pytest_otel_diag.recordings.validation import ValidationFinding, validate_recording
from tests.recordings.recording_samples import (
    SECOND,
    T0,
    edit,
    gauges,
    incident,
    manifest,
    rewrite,
    small_recording,
    traces,
)
from tests.recordings.sample_cases import write_sample_cases

TIMES = [T0 + i * SECOND for i in range(300)]


def findings(folder):
    return [str(finding) for finding in validate_recording(folder).findings]


def test_a_valid_recording_has_no_findings(tmp_path):
    calm = Window(start_ns=T0, end_ns=T0 + 60 * SECOND)
    folder = small_recording(
        tmp_path / "rec",
        incidents=(incident(),),
        quiet=(calm,),
        controls=(ControlWindow(id="c", system="Shop", window=calm),),
    )
    validation = validate_recording(folder)
    assert (validation.findings, validation.errors, validation.warnings) == ((), (), ())


@pytest.mark.parametrize("name", ["ResourceAttributes", "TraceId", "extra"])
def test_a_column_that_is_there_twice_is_an_error(tmp_path, name):
    folder = small_recording(tmp_path / "rec")
    table = pa.Table.from_batches([traces(TIMES)])
    again = table.column("TraceId" if name == "extra" else name)
    for _ in range(2):
        table = table.append_column(name, again)
    rewrite(folder, "traces.parquet", table)
    count = 2 if name == "extra" else 3
    assert findings(folder) == [
        f"error: traces.parquet, column {name}: there are {count} columns of that name"
    ]


@pytest.mark.parametrize(
    ("batch", "message"),
    [
        (
            traces(TIMES, SpanName=None),
            "error: traces.parquet, column SpanName: missing; it must be a string",
        ),
        (
            traces(TIMES, Duration=pa.array(["1"] * 300)),
            "error: traces.parquet, column Duration: has type string, must be a integer",
        ),
        (
            traces(TIMES, ResourceAttributes=pa.array(["a"] * 300)),
            "error: traces.parquet, column ResourceAttributes: has type string, must be a map",
        ),
        (
            traces(TIMES, SpanId=pa.array([None if i in {3, 7} else "a" for i in range(300)], pa.string())),
            "error: traces.parquet, column SpanId, row 3 and 1 more: null, "
            "but the exporter always writes a value",
        ),
        (
            traces([*TIMES[:4], TIMES[2], *TIMES[5:]]),
            "error: traces.parquet, column Timestamp, row 4: earlier than the row before it",
        ),
        (traces(TIMES[:299]), "error: traces.parquet: has 299 rows, recording.json says 300"),
        (
            traces([*TIMES[:299], TIMES[299] + 5]),
            "error: traces.parquet, column Timestamp: times are not from",
        ),
        (
            traces(TIMES, Duration=pa.array([-1 if i == 9 else 5 for i in range(300)])),
            "warning: traces.parquet, column Duration, row 9: negative duration, treated as 0",
        ),
        (
            traces(
                TIMES, ServiceName=pa.array(["" if i == 5 else "a" for i in range(300)]).dictionary_encode()
            ),
            "warning: traces.parquet, column ServiceName, row 5: empty",
        ),
    ],
)
def test_one_mistake_is_one_finding(tmp_path, batch, message):
    folder = small_recording(tmp_path / "rec")
    rewrite(folder, "traces.parquet", batch)
    found = findings(folder)
    assert len(found) == 1 or "299 rows" in message
    assert any(line.startswith(message) for line in found), found


def test_metric_values_that_are_not_finite_are_warnings(tmp_path):
    folder = small_recording(tmp_path / "rec")
    nan, inf = float("nan"), float("inf")
    rewrite(folder, "metrics_gauge.parquet", gauges(TIMES[::60], [1.0, nan, 2.0, inf, nan]))
    (finding,) = validate_recording(folder).warnings
    assert finding == ValidationFinding(
        "warning", "metrics_gauge.parquet", "not a finite number", "Value", 1, 3
    )
    assert validate_recording(folder).errors == ()


def test_a_file_without_any_time_is_an_error(tmp_path):
    folder = small_recording(tmp_path / "rec")
    rewrite(
        folder, "traces.parquet", traces(TIMES, Timestamp=pa.array([None] * 300, pa.timestamp("ns", "UTC")))
    )
    nulls, span = findings(folder)
    assert nulls.startswith("error: traces.parquet, column Timestamp, row 0 and 299 more: null")
    assert "times are not from" in span


def test_rows_are_counted_over_batches(tmp_path):
    folder = small_recording(tmp_path / "rec")
    count = 70_000
    values = [float("nan") if i in {66_000, 69_000} else 1.0 for i in range(count)]
    rewrite(folder, "metrics_gauge.parquet", gauges([T0 + i for i in range(count)], values))
    (finding,) = validate_recording(folder).warnings
    assert (finding.row, finding.count) == (66_000, 2)


def test_a_truncated_file_is_named(tmp_path):
    folder = small_recording(tmp_path / "rec")
    path = folder / "traces.parquet"
    path.write_bytes(path.read_bytes()[:-100])
    checksum, unreadable = findings(folder)
    assert checksum.startswith("error: traces.parquet: SHA-256 is")
    assert "cannot be read as Parquet: it is truncated" in unreadable


def test_damage_inside_a_file_is_reported_with_its_row(tmp_path):
    folder = small_recording(tmp_path / "rec")
    path = folder / "metrics_gauge.parquet"
    table = pa.Table.from_batches([gauges([T0 + i for i in range(70_000)])])
    pq.write_table(table, path, row_group_size=65_536, compression="zstd", use_dictionary=False)
    start = pq.ParquetFile(path).metadata.row_group(1).column(0).data_page_offset
    content = bytearray(path.read_bytes())
    content[start : start + 60] = bytes(60)
    path.write_bytes(content)
    damaged = [line for line in findings(folder) if "cannot be read" in line]
    assert len(damaged) == 1
    assert "row 65536: " in damaged[0]


def test_missing_and_unlisted_files_are_named(tmp_path):
    folder = small_recording(tmp_path / "rec")
    (folder / "traces.parquet").rename(folder / "spans.parquet")
    found = findings(folder)
    assert found == [
        "warning: spans.parquet: not listed in recording.json; it is ignored",
        "error: traces.parquet: missing; the recording is incomplete, copy it again",
    ]


def test_an_unreadable_manifest_is_one_error(tmp_path):
    folder = small_recording(tmp_path / "rec")
    edit(folder, lambda document: document.update(schema_version=99))
    (error,) = validate_recording(folder).errors
    assert error.file == "recording.json"
    assert "newer than 1" in error.message


def test_the_timeline_is_checked(tmp_path):
    late = incident("late", start_s=5000)
    near = incident("near", start_s=100, guard_s=10)
    window = Window(start_ns=T0 + 80 * SECOND, end_ns=T0 + 95 * SECOND)
    control = ControlWindow(id="c", system="Shop", window=window)
    folder = small_recording(tmp_path / "rec", incidents=(late, near), controls=(control,), quiet=(window,))
    edit(folder, lambda d: d["files"][1].update(table="otel_metrics_sum"))
    outside, in_control, in_quiet, table = findings(folder)
    assert "incident 'late' starts at 2023-11-14T23:36:40.000Z, but telemetry is from" in outside
    assert in_control.endswith("control 'c' overlaps the time disturbed by incident 'near'")
    assert "quiet window 2023-11-14T22:14:40.000Z" in in_quiet
    assert table.endswith("says table 'otel_metrics_sum', must be 'otel_metrics_gauge'")


def test_an_importable_folder_must_be_imported_first(tmp_path):
    folder = write_sample_cases(tmp_path / "cases")
    (error,) = validate_recording(folder).errors
    assert error.file == "cases.json"
    assert f"otel-diag recordings import {folder} DESTINATION" in error.message


def test_an_incident_in_a_hole_of_the_telemetry_is_an_error(tmp_path):
    times = [T0 + i * SECOND for i in (*range(100), *range(200, 300))]
    hole, sound = incident("hole", 110, telemetry_to_ns=T0 + 150 * SECOND), incident("sound", 90)
    folder = tmp_path / "rec"
    write_recording(folder, manifest(incidents=(hole, sound)), {"otel_traces": iter([traces(times)])})
    assert [text for text in findings(folder) if "hole" in text] == [
        "error: recording.json: incident 'hole' has no telemetry from its start at "
        "2023-11-14T22:15:10.000Z to 2023-11-14T22:15:50.000Z, so its session is invalid; "
        "is its label in another time zone?"
    ]
    assert not any("sound" in text for text in findings(folder))


def test_a_spelling_of_a_status_that_nobody_knows_is_a_warning(tmp_path):
    known = ["Unset", "ERROR", "status_code_ok", "2"] * 75
    folder = tmp_path / "rec"
    tables = {"otel_traces": iter([traces(TIMES, StatusCode=pa.array([*known[:-1], "FAILED"]))])}
    write_recording(folder, manifest(), tables)
    assert findings(folder) == [
        "warning: traces.parquet, column StatusCode, row 299: "
        "unknown spelling of a status, counted as no error"
    ]


def test_a_small_file_that_expands_without_end_is_refused_early(tmp_path):
    folder = small_recording(tmp_path / "rec")
    path = folder / "traces.parquet"
    rows = 20_000
    batch = traces([T0] * rows, SpanName=pa.array(["x" * 10_000] * rows))
    pq.write_table(pa.Table.from_batches([batch]), path, compression="zstd")
    assert path.stat().st_size < 2**17
    assert any("times its size" in text for text in findings(folder))


@pytest.mark.parametrize(
    "change",
    [
        '{"a":' * 5_000 + "1" + "}" * 5_000,
        '{"schema_version": 1, "id": "a", "source": {"title": "t"}, "start_ns": 1, "end_ns": 1, "notes": '
        + "[" * 500 + "]" * 500 + "}",
    ],
)  # fmt: skip
def test_a_manifest_beyond_all_bounds_is_a_finding(tmp_path, change):
    folder = small_recording(tmp_path / "rec")
    (folder / "recording.json").write_text(change)
    assert findings(folder)[0].startswith("error: recording.json: ")


@pytest.mark.parametrize("instant", [10**30, -(10**30), 2**63])
@pytest.mark.parametrize("place", ["incident", "quiet", "file", "policy"])
def test_instants_beyond_the_calendar_are_findings(tmp_path, instant, place):
    folder = small_recording(tmp_path / "rec", incidents=(incident(),))
    document = json.loads((folder / "recording.json").read_text())
    if place == "incident":
        document["incidents"][0] |= {"start_ns": instant, "telemetry_to_ns": instant + 1}
    elif place == "quiet":
        document["quiet"] = [{"start_ns": instant, "end_ns": instant - 1}]
    elif place == "file":
        document["files"][0]["end_ns"] = instant
    else:
        document["policy"]["settle_s"] = 1e308
    (folder / "recording.json").write_text(json.dumps(document))
    assert any(text.startswith("error: ") for text in findings(folder))
