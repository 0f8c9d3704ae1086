"""A small recorded system for tests: an importable folder with two incidents, made the same every time."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from pytest_otel_diag import arrow
from pytest_otel_diag.model.base import Nanos
from pytest_otel_diag.model.windows import NANOS_PER_SECOND, iso

START_S = 1_700_000_040
"""The first second of the recording, a whole minute."""

INCIDENT_SECONDS = (240, 840)
"""Injections, in seconds from the start: the network to ``cart`` slows down, later ``db`` throws."""

_BEFORE_S, _AFTER_S, _MINUTES = 110, 120, 20
_SERVICES = ("frontend", "cart", "db")
_MS = 1_000_000


@dataclass
class _Rows:
    columns: dict[str, list[Any]] = field(default_factory=dict)

    def add(self, row: Mapping[str, Any]) -> None:
        for name, value in row.items():
            self.columns.setdefault(name, []).append(value)


def write_sample_cases(folder: Path) -> Path:
    """Write ``cases.json`` and Parquet files of a three-service system into *folder* and return it.

    Twenty minutes; spans (three a second, frontend → cart → db) and logs for about four minutes
    around each of two injections, one metric point a minute and service throughout. In the first
    incident every call to ``cart`` waits 200 ms on the network; in the second ``db`` throws: its
    callers get no span of it and log an error.
    """
    folder.mkdir(parents=True, exist_ok=True)
    traces, logs, metrics = _Rows(), _Rows(), _Rows()
    for second in _traced_seconds():
        for row in _trace(second):
            traces.add(row)
        logs.add(_log(second))
    for minute in range(_MINUTES):
        for service in _SERVICES:
            metrics.add(_metric(service, minute))
    _write(folder / "traces.parquet", traces, "Timestamp")
    _write(folder / "logs.parquet", logs, "Timestamp")
    _write(folder / "metrics.parquet", metrics, "TimeUnix")
    (folder / "cases.json").write_text(json.dumps(_cases(), indent=1), encoding="utf-8")
    return folder


def _traced_seconds() -> Iterator[int]:
    for incident in INCIDENT_SECONDS:
        yield from range(incident - _BEFORE_S, incident + _AFTER_S)


def _slow(second: int) -> bool:
    return INCIDENT_SECONDS[0] <= second < INCIDENT_SECONDS[0] + _AFTER_S


def _throws(second: int) -> bool:
    return INCIDENT_SECONDS[1] <= second < INCIDENT_SECONDS[1] + _AFTER_S


def _at(second: int) -> Nanos:
    return (START_S + second) * NANOS_PER_SECOND


def _trace(second: int) -> Iterator[dict[str, Any]]:
    """Yield frontend → (client, server) cart → (client, server) db; durations vary with the second."""
    start, wobble = _at(second), second * 7919 % 11 * _MS
    wire = 200 * _MS if _slow(second) else 2 * _MS
    db = 0 if _throws(second) else 8 * _MS + wobble
    cart = db + 10 * _MS + wobble
    spans = [
        ("frontend", "GET /cart", "Server", None, start, cart + 2 * wire + 15 * _MS),
        ("frontend", "Cart/Get", "Client", 0, start + 5 * _MS, cart + 2 * wire),
        ("cart", "Cart/Get", "Server", 1, start + 5 * _MS + wire, cart),
        ("cart", "select", "Client", 2, start + 9 * _MS + wire, db + 2 * _MS),
        ("db", "select", "Server", 3, start + 10 * _MS + wire, db),
    ]
    for index, (service, name, kind, parent, at, duration) in enumerate(spans[: 4 if _throws(second) else 5]):
        yield {
            "Timestamp": at,
            "TraceId": f"{second + 1:032x}",
            "SpanId": f"{second * 8 + index + 1:016x}",
            "ParentSpanId": "" if parent is None else f"{second * 8 + parent + 1:016x}",
            "SpanName": name,
            "SpanKind": kind,
            "ServiceName": service,
            "ResourceAttributes": [("k8s.pod.name", f"{service}-0"), ("service.name", service)],
            "SpanAttributes": [],
            "Duration": duration,
            "StatusCode": "Unset",
            "StatusMessage": "",
        }


def _log(second: int) -> dict[str, Any]:
    failed = _throws(second)
    return {
        "Timestamp": _at(second) + 20 * _MS,
        "TraceId": f"{second + 1:032x}",
        "SpanId": f"{second * 8 + 3:016x}",
        "SeverityText": "ERROR" if failed else "INFO",
        "ServiceName": "db" if failed else "cart",
        "Body": f"query {second} failed: NullPointerException" if failed else f"cart {second} read",
        "ResourceAttributes": [("service.name", "db" if failed else "cart")],
        "LogAttributes": [],
    }


def _metric(service: str, minute: int) -> dict[str, Any]:
    return {
        "ResourceAttributes": [("k8s.pod.name", f"{service}-0"), ("service.name", service)],
        "ServiceName": service,
        "MetricName": "CpuUsage",
        "MetricUnit": "m",
        "Attributes": [],
        "TimeUnix": _at(60 * minute),
        "Value": 10.0 + minute * 31 % 7 + len(service),
    }


def _cases() -> list[dict[str, Any]]:
    kinds = (("cart", "network_delay"), ("db", "exception"))
    return [
        {
            "id": f"sample-{service}-{kind}",
            "system": "Sample",
            "inject_time": iso(_at(second)),
            "service": service,
            "pod": f"{service}-0",
            "fault_type": kind,
            "label": "",
            "has": {"traces_before": True, "traces_after": True, "logs": True, "metrics": True},
            "traces_from": iso(_at(second - _BEFORE_S)),
            "traces_to": iso(_at(second + _AFTER_S - 1)),
        }
        for second, (service, kind) in zip(INCIDENT_SECONDS, kinds, strict=True)
    ]


def _write(path: Path, rows: _Rows, time: str) -> None:
    """Write a file in order of time, as sources do."""
    pa = arrow.arrow()
    attributes = pa.map_(pa.string(), pa.string())
    types = {
        time: pa.timestamp("ns", "UTC"),
        "Duration": pa.uint64(),
        "ResourceAttributes": attributes,
        "SpanAttributes": attributes,
        "LogAttributes": attributes,
        "Attributes": attributes,
    }
    table = pa.table({name: pa.array(values, types.get(name)) for name, values in rows.columns.items()})
    arrow.parquet().write_table(table.sort_by(time), path)
