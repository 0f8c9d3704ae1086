"""Recorded incidents of a three-service system, small enough to load in a second.

Every request goes front → middle → back, five a second. At 240 s ``back`` answers 80 ms slower, at 700 s
``middle`` does; telemetry covers 0-300 s and 580-760 s, so there are quiet windows before each.
"""

from __future__ import annotations

import json
import random
from datetime import UTC, datetime
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

START_S = 1_700_000_000
STRINGS = pa.map_(pa.string(), pa.string())
INCIDENTS = (("incident-back", 240, "back", 300), ("incident-middle", 700, "middle", 760))
COVERED = ((0, 300), (580, 760))
SLOWER_MS = 80.0
CALLS = (("front", "middle"), ("middle", "back"))


def _stamp(second: float) -> str:
    return datetime.fromtimestamp(START_S + second, tz=UTC).strftime("%Y-%m-%dT%H:%M:%S.%fZ")


def _slow(service: str, second: float) -> float:
    return sum(
        SLOWER_MS for _, start, culprit, end in INCIDENTS if service == culprit and start <= second < end
    )


def _trace(number: int, second: float, rng: random.Random) -> list[dict[str, object]]:
    """One trace: a server span a service, a client span a call, each child inside its parent."""
    own = {name: 5 + rng.random() + _slow(name, second) for name in ("front", "middle", "back")}
    spans: list[dict[str, object]] = []

    def add(service: str, kind: str, parent: str, start_ms: float, length_ms: float) -> str:
        span_id = f"{number:08x}{len(spans):08x}"
        start_ns = (START_S * 1000 + round(second * 1000)) * 1_000_000 + round(start_ms * 1e6)
        name = f"{service}.{kind.lower()}"
        spans.append(
            {
                "Timestamp": start_ns,
                "TraceId": f"{number:032x}",
                "SpanId": span_id,
                "ParentSpanId": parent,
                "SpanName": name,
                "SpanKind": kind,
                "ServiceName": service,
                "ResourceAttributes": [("service.name", service), ("k8s.pod.name", f"{service}-0")],
                "SpanAttributes": [],
                "Duration": round(length_ms * 1e6),
                "StatusCode": "Unset",
                "StatusMessage": "",
            }
        )
        return span_id

    total = own["front"] + own["middle"] + own["back"] + 2
    front = add("front", "Server", "", 0, total)
    call = add("front", "Client", front, 2, own["middle"] + own["back"] + 2)
    middle = add("middle", "Server", call, 2.5, own["middle"] + own["back"] + 1)
    call = add("middle", "Client", middle, 4, own["back"] + 1)
    add("back", "Server", call, 4.5, own["back"])
    return spans


def write(folder: Path) -> Path:
    """Write the layout with ``cases.json`` and return the folder."""
    folder.mkdir(parents=True)
    rng = random.Random(7)
    rows = [
        span
        for number, second in enumerate(s + n / 5 for a, b in COVERED for s in range(a, b) for n in range(5))
        for span in _trace(number, second, rng)
    ]
    rows.sort(key=lambda row: row["Timestamp"])
    columns = {name: [row[name] for row in rows] for name in rows[0]}
    types = dict.fromkeys(columns, pa.string()) | {
        "Timestamp": pa.timestamp("ns", tz="UTC"),
        "ResourceAttributes": STRINGS,
        "SpanAttributes": STRINGS,
        "Duration": pa.uint64(),
    }
    pq.write_table(
        pa.table({n: pa.array(v, types[n]) for n, v in columns.items()}), folder / "traces.parquet"
    )
    cases = [
        {
            "id": name,
            "system": "TinyShop",
            "inject_time": _stamp(start),
            "service": culprit,
            "pod": f"{culprit}-0",
            "fault_type": "network_delay",
            "label": "",
            "label_kind": "resource",
            "has": {"traces_before": True, "traces_after": True, "logs": False, "metrics": False},
            "traces_from": _stamp(start - 120),
            "traces_to": _stamp(end),
        }
        for name, start, culprit, end in INCIDENTS
    ]
    (folder / "cases.json").write_text(json.dumps(cases))
    return folder
