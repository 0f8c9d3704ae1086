"""Builders of small recordings and importable folders."""

import hashlib
import json
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from pytest_otel_diag.model.scenario import Expectation, ExpectedRootCause
from pytest_otel_diag.recordings.format.manifest import Incident, RecordingManifest, Source
from pytest_otel_diag.recordings.format.writer import write_recording

SECOND = 1_000_000_000
T0 = 1_700_000_000 * SECOND
ATTRIBUTES = pa.map_(pa.string(), pa.string())


def traces(times, *, durations=None, **replaced):
    n = len(times)
    columns = {
        "Timestamp": pa.array(times, pa.timestamp("ns", "UTC")),
        "TraceId": pa.array([f"{i:032x}" for i in range(n)]),
        "SpanId": pa.array([f"{i:016x}" for i in range(n)]),
        "ParentSpanId": pa.array([""] * n),
        "SpanName": pa.array(["GET /"] * n),
        "ServiceName": pa.array(["frontend"] * n),
        "Duration": pa.array(durations or [1000] * n, pa.uint64()),
        "ResourceAttributes": pa.array([[("k8s.pod.name", "frontend-0")]] * n, ATTRIBUTES),
        **replaced,
    }
    return pa.RecordBatch.from_pydict(
        {name: column for name, column in columns.items() if column is not None}
    )


def gauges(times, values=None, **replaced):
    n = len(times)
    columns = {
        "TimeUnix": pa.array(times, pa.timestamp("ns", "UTC")),
        "ServiceName": pa.array(["frontend"] * n),
        "MetricName": pa.array(["CpuUsage"] * n),
        "Value": pa.array(values or [1.0] * n, pa.float64()),
        **replaced,
    }
    return pa.RecordBatch.from_pydict(columns)


def incident(key="a", start_s=100, **given):
    start = T0 + start_s * SECOND
    defaults = {
        "id": key,
        "system": "Shop",
        "service": "cart",
        "flag": "delay",
        "start_ns": start,
        "telemetry_from_ns": start - 60 * SECOND,
        "telemetry_to_ns": start + 60 * SECOND,
        "expectation": Expectation(root_causes=(ExpectedRootCause(service="cart"),)),
    }
    return Incident(**{**defaults, **given})


def manifest(**given):
    defaults = {"id": "shop", "source": Source(title="test"), "start_ns": 0, "end_ns": 0}
    return RecordingManifest(**{**defaults, **given})


def small_recording(folder: Path, **given) -> Path:
    """Write 300 spans, one per second from T0, and one metric point per minute."""
    times = [T0 + i * SECOND for i in range(300)]
    tables = {
        "otel_traces": iter([traces(times[:150]), traces(times[150:])]),
        "otel_metrics_gauge": iter([gauges(times[::60])]),
    }
    write_recording(folder, manifest(**given), tables)
    return folder


def rewrite(folder: Path, name: str, table) -> None:
    """Replace a file and update its checksum, so that only the content is wrong."""
    path = folder / name
    pq.write_table(pa.Table.from_batches([table]) if isinstance(table, pa.RecordBatch) else table, path)
    edit(
        folder,
        lambda doc: next(f for f in doc["files"] if f["name"] == name).update(
            sha256=hashlib.sha256(path.read_bytes()).hexdigest()
        ),
    )


def edit(folder: Path, change) -> None:
    path = folder / "recording.json"
    document = json.loads(path.read_text())
    change(document)
    path.write_text(json.dumps(document))


def cases_folder(folder: Path, cases, *, spans=None, points=None) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "cases.json").write_text(json.dumps(cases))
    if spans is not None:
        pq.write_table(pa.Table.from_batches([spans]), folder / "traces.parquet")
    if points is not None:
        pq.write_table(pa.Table.from_batches([points]), folder / "metrics.parquet")
    return folder
