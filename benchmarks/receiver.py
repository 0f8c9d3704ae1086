"""``python -m benchmarks.receiver --seconds 60 --rate 25000``: the OTLP receiver on one core, for a while.

The receiver, its embedded store on disk included, runs in a process that may use one core. Its clients
run beside it: the official Python SDK with its HTTP exporter, and two that send requests encoded before,
one over HTTP with gzip and one over gRPC, since the SDK alone makes too little load. Of the paced rate,
a tenth are log records and data points on top of the spans. Clients that are asked to retry do so.
Prints what was stored a second, CPU seconds, drops and memory, and fails when a record is missing.
"""

from __future__ import annotations

import argparse
import asyncio
import gzip
import http.client
import json
import multiprocessing
import os
import random
import resource
import sys
import tempfile
import time
from collections.abc import Callable
from typing import Any

import grpc
from opentelemetry.proto.collector.logs.v1.logs_service_pb2 import ExportLogsServiceRequest
from opentelemetry.proto.collector.metrics.v1.metrics_service_pb2 import ExportMetricsServiceRequest
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest

from pytest_otel_diag.model.telemetry import QueryLimits
from pytest_otel_diag.receiver import Limits, Receiver
from pytest_otel_diag.telemetry import Store

DATABASE = "benchmark"
SPANS_A_REQUEST = 512
REQUESTS = 100
SDK_RATE = 2_000
SERVICES = ("frontend", "checkout", "payment", "cart")
GRPC_METHODS = {
    "traces": "/opentelemetry.proto.collector.trace.v1.TraceService/Export",
    "logs": "/opentelemetry.proto.collector.logs.v1.LogsService/Export",
    "metrics": "/opentelemetry.proto.collector.metrics.v1.MetricsService/Export",
}


def pin(core: int) -> None:
    """Let this process use one core only, where the system can do that."""
    if hasattr(os, "sched_setaffinity"):
        cores = sorted(os.sched_getaffinity(0))
        os.sched_setaffinity(0, {cores[core % len(cores)]})


def attributes(into: Any, pairs: dict[str, str | int]) -> None:
    """Append attributes."""
    for key, value in pairs.items():
        entry = into.add(key=key)
        if isinstance(value, int):
            entry.value.int_value = value
        else:
            entry.value.string_value = value


def described(of_resource: Any, service: str) -> None:
    """Fill in a resource."""
    names = {"service.name": service, "host.name": "node-1", "k8s.pod.name": f"{service}-0"}
    attributes(of_resource.resource.attributes, {**names, "telemetry.sdk.language": "go"})


def spans_request(rng: random.Random, now_ns: int) -> bytes:
    """Return SPANS_A_REQUEST spans; a tenth of them failed, with an event that says why."""
    request = ExportTraceServiceRequest()
    for service in SERVICES:
        of_resource = request.resource_spans.add()
        described(of_resource, service)
        of_scope = of_resource.scope_spans.add()
        of_scope.scope.name, of_scope.scope.version = "http", "1.0"
        for number in range(SPANS_A_REQUEST // len(SERVICES)):
            start_ns = now_ns + rng.randrange(10**9)
            span = of_scope.spans.add(
                trace_id=rng.randbytes(16),
                span_id=rng.randbytes(8),
                parent_span_id=rng.randbytes(8),
                name=f"GET /page/{number % 20}",
                kind=2 + number % 2,
                start_time_unix_nano=start_ns,
                end_time_unix_nano=start_ns + rng.randrange(10**8),
            )
            texts = {"http.route": f"/page/{number % 20}", "http.request.method": "GET"}
            peer = {"server.address": "cart", "user.id": f"user-{rng.randrange(20_000)}"}
            attributes(
                span.attributes, {**texts, **peer, "http.response.status_code": 200, "thread.id": number}
            )
            if number % 10 == 0:
                span.status.code, span.status.message = 2, "connection refused"
                event = span.events.add(name="exception", time_unix_nano=start_ns)
                attributes(event.attributes, {"exception.type": "ConnectionError"})
    return bytes(request.SerializeToString())


def logs_request(rng: random.Random, now_ns: int, records: int) -> bytes:
    """Return log records."""
    request = ExportLogsServiceRequest()
    of_resource = request.resource_logs.add()
    described(of_resource, "checkout")
    of_scope = of_resource.scope_logs.add()
    for number in range(records):
        log = of_scope.log_records.add(
            time_unix_nano=now_ns + number,
            severity_number=9,
            severity_text="INFO",
            trace_id=rng.randbytes(16),
        )
        log.body.string_value = f"order {rng.randrange(10**6)} placed"
        attributes(log.attributes, {"order.items": number % 7})
    return bytes(request.SerializeToString())


def metrics_request(now_ns: int, points: int) -> bytes:
    """Return data points of a histogram."""
    request = ExportMetricsServiceRequest()
    of_resource = request.resource_metrics.add()
    described(of_resource, "payment")
    metric = of_resource.scope_metrics.add().metrics.add(name="http.server.request.duration", unit="s")
    metric.histogram.aggregation_temporality = 2
    for number in range(points):
        point = metric.histogram.data_points.add(
            time_unix_nano=now_ns, count=number, bucket_counts=[0, number, 0], explicit_bounds=[0.1, 1.0]
        )
        attributes(point.attributes, {"http.route": f"/page/{number}"})
    return bytes(request.SerializeToString())


def serve(path: str, pipe: Any) -> None:
    """Run the receiver on one core until asked to stop, and report."""
    pin(0)
    with Store.open(f"chdb://{path}") as store:
        receiver = Receiver(
            store, DATABASE, http="127.0.0.1:0", grpc="127.0.0.1:0", limits=Limits(), warn=print
        )
        receiver.start()
        pipe.send((receiver.addresses.http, receiver.addresses.grpc))
        begin, cpu_begin = time.monotonic(), time.process_time()
        stored = [0]
        while not pipe.poll(1.0):
            if now := receiver.counts().traces.stored:
                stored.append(now)
        pipe.recv()
        counts = receiver.stop()
        seconds, cpu_s = time.monotonic() - begin, time.process_time() - cpu_begin
        by_service = asyncio.run(rows(store))
        pipe.send({
            "seconds": seconds,
            "cpu_s": cpu_s,
            "stored": {signal: counts.of(signal).stored for signal in ("traces", "logs", "metrics")},
            "lines": counts.lines(),
            "lost": counts.lost,
            "slowest_10_s": min((b - a for a, b in zip(stored, stored[10:], strict=False)), default=0) / 10,
            "peak_rss_mb": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e3,
            "rows_of_sdk": by_service.get("sdk", 0),
            "rows": sum(by_service.values()),
        })  # fmt: skip


async def rows(store: Store) -> dict[str, int]:
    """Return the rows of otel_traces by service, as the store counts them."""
    telemetry = store.telemetry(DATABASE)
    sql = "SELECT ServiceName, count() AS spans FROM otel_traces GROUP BY ServiceName"
    table = await telemetry.query(sql, {}, QueryLimits())
    return {str(name): int(number) for name, number in table.rows()}


def paced(rate: float, seconds: float, send: Callable[[int], int]) -> int:
    """Call ``send(number)`` so that what it returns adds up to *rate* a second; return the sum."""
    begin, sent, number = time.monotonic(), 0, 0
    while (now := time.monotonic() - begin) < seconds:
        if sent <= rate * now:
            sent += send(number)
            number += 1
        else:
            time.sleep(min(0.05, sent / rate - now))
    return sent


def load(protocol: str, address: str, rate: float, seconds: float, pipe: Any) -> None:
    """Send requests that were encoded before, at *rate* spans a second."""
    pin(1)
    rng = random.Random(protocol)
    now_ns = time.time_ns()
    share = SPANS_A_REQUEST // 20
    encoded = [spans_request(rng, now_ns) for _ in range(REQUESTS)]
    others = {"logs": logs_request(rng, now_ns, share), "metrics": metrics_request(now_ns, share)}
    post = http_client(address) if protocol == "http" else grpc_client(address)
    bodies = [post.encode(body) for body in encoded]
    other_bodies = {signal: post.encode(body) for signal, body in others.items()}
    pipe.send("ready")
    pipe.recv()

    def send(number: int) -> int:
        post.send("traces", bodies[number % REQUESTS])
        for signal, body in other_bodies.items():
            post.send(signal, body)
        return SPANS_A_REQUEST

    spans = paced(rate, seconds, send)
    others_sent = spans // SPANS_A_REQUEST * share
    pipe.send({"traces": spans, "logs": others_sent, "metrics": others_sent, "told_to_wait": post.waits})


class http_client:  # noqa: N801 - used like a function
    """OTLP/HTTP with gzip on one connection."""

    def __init__(self, address: str) -> None:
        self._connection = http.client.HTTPConnection(address, timeout=60)
        self.waits = 0

    def encode(self, body: bytes) -> bytes:
        """Compress."""
        return gzip.compress(body, 1)

    def send(self, signal: str, body: bytes) -> None:
        """Post until it is taken."""
        headers = {"content-type": "application/x-protobuf", "content-encoding": "gzip"}
        while True:
            self._connection.request("POST", f"/v1/{signal}", body, headers)
            answer = self._connection.getresponse()
            answer.read()
            if answer.status == 200:
                return
            assert answer.status == 503, answer.status
            self.waits += 1
            time.sleep(float(answer.headers["retry-after"]))


class grpc_client:  # noqa: N801 - used like a function
    """OTLP/gRPC on one channel."""

    def __init__(self, address: str) -> None:
        channel = grpc.insecure_channel(address)
        self._calls = {signal: channel.unary_unary(method) for signal, method in GRPC_METHODS.items()}
        self.waits = 0

    def encode(self, body: bytes) -> bytes:
        """Leave the body as it is."""
        return body

    def send(self, signal: str, body: bytes) -> None:
        """Call until it is taken."""
        while True:
            try:
                self._calls[signal](body, timeout=60)
            except grpc.RpcError as error:
                assert error.code() == grpc.StatusCode.RESOURCE_EXHAUSTED, error
                self.waits += 1
                time.sleep(1.0)
            else:
                return


def sdk(_: str, address: str, rate: float, seconds: float, pipe: Any) -> None:
    """Make spans with the official SDK and export them over HTTP."""
    from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter  # noqa: PLC0415
    from opentelemetry.sdk.resources import Resource  # noqa: PLC0415
    from opentelemetry.sdk.trace import TracerProvider  # noqa: PLC0415
    from opentelemetry.sdk.trace.export import BatchSpanProcessor  # noqa: PLC0415

    pin(1)
    exporter = OTLPSpanExporter(endpoint=f"http://{address}/v1/traces", timeout=60)
    provider = TracerProvider(resource=Resource({"service.name": "sdk"}))
    provider.add_span_processor(
        BatchSpanProcessor(exporter, max_queue_size=200_000, schedule_delay_millis=500)
    )
    tracer = provider.get_tracer("benchmark")
    pipe.send("ready")
    pipe.recv()

    def send(number: int) -> int:
        with tracer.start_as_current_span(f"request {number % 20}", attributes={"user.id": number}):
            for step in range(9):
                tracer.start_span(f"step {step}").end()
        return 10

    spans = paced(rate, seconds, send)
    provider.shutdown()
    pipe.send({"traces": spans, "logs": 0, "metrics": 0, "told_to_wait": 0})


def measure(seconds: float, rate: float) -> dict[str, Any]:
    """Run the receiver and its clients; return the figures."""
    spawn = multiprocessing.get_context("spawn")
    with tempfile.TemporaryDirectory() as folder:
        pipe, theirs = spawn.Pipe()
        server = spawn.Process(target=serve, args=(f"{folder}/store", theirs))
        server.start()
        theirs.close()  # so that a server that dies is noticed
        over_http, over_grpc = pipe.recv()
        rest = max(0.0, rate - SDK_RATE) / 2
        kinds = (
            (load, "http", over_http, rest),
            (load, "grpc", over_grpc, rest),
            (sdk, "sdk", over_http, min(rate, SDK_RATE)),
        )
        clients = []
        for target, name, address, share in kinds:
            ours, its = spawn.Pipe()
            process = spawn.Process(target=target, args=(name, address, share, seconds, its))
            process.start()
            its.close()
            clients.append((name, ours, process))
        for _, ours, _ in clients:
            ours.recv()
        for _, ours, _ in clients:
            ours.send("go")
        sent = {name: ours.recv() for name, ours, _ in clients}
        pipe.send("stop")
        found: dict[str, Any] = pipe.recv()
        for process in (server, *(process for _, _, process in clients)):
            process.join(60)
    return {"sent": sent, **found}


def main() -> int:
    """Measure, print, and return 1 when a record is missing or the rate was not reached."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seconds", type=float, default=60.0)
    parser.add_argument("--rate", type=float, default=25_000.0, help="spans a second that the clients send")
    parser.add_argument("--least", type=float, default=20_000.0, help="spans a second that must be stored")
    parser.add_argument("--json", help="write the figures to this file")
    options = parser.parse_args()
    found = measure(options.seconds, options.rate)
    sent = {
        signal: sum(each[signal] for each in found["sent"].values())
        for signal in ("traces", "logs", "metrics")
    }
    spans_per_s = found["rows"] / options.seconds
    print(f"sent {sent}, asked to wait {sum(each['told_to_wait'] for each in found['sent'].values())} times")
    print(*found["lines"], sep="\n")
    print(
        f"spans: {spans_per_s:,.0f} a second over {options.seconds:g} s (slowest 10 s "
        f"{found['slowest_10_s']:,.0f}), {found['rows']:,} rows, {found['rows_of_sdk']:,} of the SDK"
    )
    print(
        f"receiver: {found['cpu_s']:.1f} CPU seconds of {found['seconds']:.1f} s on one core, "
        f"{found['rows'] / found['cpu_s']:,.0f} spans a CPU second, peak {found['peak_rss_mb']:,.0f} MB"
    )
    if options.json:
        with open(options.json, "w", encoding="utf-8") as file:  # noqa: PTH123 - a path from the command line
            json.dump({**found, "spans_per_s": spans_per_s}, file, indent=2)
    complete = found["stored"] == sent and found["rows"] == sent["traces"] and not found["lost"]
    sdk_complete = found["rows_of_sdk"] == found["sent"]["sdk"]["traces"]
    print("every record is there once" if complete and sdk_complete else "RECORDS ARE MISSING")
    return int(not (complete and sdk_complete and spans_per_s >= options.least))


if __name__ == "__main__":
    sys.exit(main())
