"""OTLP requests for tests, ways to send them, and what the store has of them."""

from __future__ import annotations

import asyncio
import http.client
import json
import socket
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

from opentelemetry.proto.collector.logs.v1.logs_service_pb2 import ExportLogsServiceRequest
from opentelemetry.proto.collector.metrics.v1.metrics_service_pb2 import ExportMetricsServiceRequest
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest

from pytest_otel_diag.model.telemetry import QueryLimits
from pytest_otel_diag.receiver import Counts
from pytest_otel_diag.telemetry import Layout, Store
from tests.support.deadlines import deadline_s

PROTOBUF = {"content-type": "application/x-protobuf"}
JSON = {"content-type": "application/json"}
T0_NS = 1_700_000_000_000_000_000
WAIT_S = deadline_s(10)


def spans(number: int, first: int = 0, *, service: str = "cart", **fields: Any) -> Any:
    """Return a request of *number* spans whose ids count from *first*."""
    request = ExportTraceServiceRequest()
    of_resource = request.resource_spans.add()
    of_resource.resource.attributes.add(key="service.name").value.string_value = service
    of_scope = of_resource.scope_spans.add()
    for index in range(first, first + number):
        given = {
            "trace_id": (index + 1).to_bytes(16, "big"),
            "span_id": (index + 1).to_bytes(8, "big"),
            "name": f"span {index}",
            "start_time_unix_nano": T0_NS + index,
            "end_time_unix_nano": T0_NS + index + 1000,
        }
        of_scope.spans.add(**given | fields)
    return request


def logs(number: int) -> Any:
    """Return a request of log records."""
    request = ExportLogsServiceRequest()
    of_scope = request.resource_logs.add().scope_logs.add()
    for index in range(number):
        of_scope.log_records.add(time_unix_nano=T0_NS + index).body.string_value = f"line {index}"
    return request


def points(number: int) -> Any:
    """Return a request of data points of one gauge."""
    request = ExportMetricsServiceRequest()
    metric = request.resource_metrics.add().scope_metrics.add().metrics.add(name="queue.size")
    for index in range(number):
        metric.gauge.data_points.add(time_unix_nano=T0_NS + index, as_int=index)
    return request


def post(
    address: str,
    body: bytes,
    headers: Mapping[str, str] = PROTOBUF,
    *,
    path: str = "/v1/traces",
    method: str = "POST",
) -> tuple[int, bytes, Mapping[str, str]]:
    """Return status, body and headers (names in lower case) of the answer."""
    connection = http.client.HTTPConnection(address, timeout=WAIT_S)
    try:
        connection.request(method, path, body, dict(headers))
        answer = connection.getresponse()
        return answer.status, answer.read(), {name.lower(): value for name, value in answer.getheaders()}
    finally:
        connection.close()


def head(
    length: int | None, *more: str, path: str = "/v1/traces", kind: str = PROTOBUF["content-type"]
) -> bytes:
    """Return the bytes of a request's head."""
    lines = [f"POST {path} HTTP/1.1", "host: receiver", f"content-type: {kind}", *more]
    if length is not None:
        lines.append(f"content-length: {length}")
    return ("\r\n".join(lines) + "\r\n\r\n").encode()


def raw(address: str) -> socket.socket:
    """Return a socket that is connected."""
    host, _, port = address.rpartition(":")
    return socket.create_connection((host, int(port)), timeout=WAIT_S)


def read_all(wire: socket.socket) -> bytes:
    """Return what comes until the other side closes; a reset counts as that."""
    data = b""
    try:
        while piece := wire.recv(65_536):
            data += piece
    except ConnectionError:
        pass
    return data


def read_answer(wire: socket.socket) -> tuple[int, bytes]:
    """Return status and body of one answer."""
    answer = http.client.HTTPResponse(wire)
    answer.begin()
    return answer.status, answer.read()


def statuses(data: bytes) -> list[int]:
    """Return the status of each answer in what a connection said."""
    return [int(part[:3]) for part in data.split(b"HTTP/1.1 ")[1:]]


def ask(store: Store, database: str, sql: str) -> list[tuple[Any, ...]]:
    """Return the rows of a statement."""

    async def run() -> Sequence[tuple[Any, ...]]:
        telemetry = store.telemetry(database)
        table = await telemetry.query(sql, {}, QueryLimits())
        return list(table.rows())

    return [tuple(row) for row in asyncio.run(run())]


def names(store: Store, database: str) -> list[str]:
    """Return the names of all spans, sorted."""
    return [str(row[0]) for row in ask(store, database, "SELECT SpanName FROM otel_traces ORDER BY SpanName")]


def balanced(counts: Counts) -> bool:
    """Whether nothing waits: every record that came is stored, rejected or dropped."""
    return not any((counts.traces.waiting, counts.logs.waiting, counts.metrics.waiting))


def message_of(body: bytes) -> str:
    """Return the message of a ``google.rpc.Status`` in JSON."""
    return str(json.loads(body)["message"])


class Gate:
    """A store whose inserts wait until the gate is opened, and that may be away for some of them."""

    def __init__(self, store: Store, *, open_: bool = False, failures: Sequence[Exception] = ()) -> None:
        self._store = store
        self._open = threading.Event()
        self._failures = list(failures)
        self.inserts = 0
        if open_:
            self.open()

    def open(self) -> None:
        self._open.set()

    def create_database(self, name: str, *, layout: Layout | None = None) -> None:
        self._store.create_database(name, layout=layout)

    def writable_columns(self, database: str, samples: Any) -> Any:
        return self._store.writable_columns(database, samples)

    def ingest_arrow(self, database: str, table: str, data: Any, *, token: str = "") -> int:
        assert self._open.wait(WAIT_S)
        self.inserts += 1
        if self._failures:
            raise self._failures.pop(0)
        return self._store.ingest_arrow(database, table, data, token=token)


@contextmanager
def in_background(work: Callable[[], object]) -> Iterator[threading.Thread]:
    """Run *work* on a thread while the block runs, and wait for its end."""
    thread = threading.Thread(target=work, daemon=True)
    thread.start()
    yield thread
    thread.join(WAIT_S)
    assert not thread.is_alive()
