from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer
from random import Random

import pytest

from pytest_otel_diag.shop.realtime.encode import requests
from pytest_otel_diag.shop.realtime.endpoint import OtlpEndpoint
from pytest_otel_diag.shop.realtime.export import OtlpExporter, QueueLimits
from pytest_otel_diag.shop.realtime.transport import (
    Accepted,
    Rejected,
    Retryable,
    open_transport,
    retry_after_s,
)
from pytest_otel_diag.shop.records import Batch, LogRecord, MetricPoint
from tests.support.deadlines import deadline_s
from tests.support.otlp_collector import OtlpCollector, otlp_collector
from tests.support.shop_batches import INSTRUMENTS, RESOURCES, SCOPES, bag, span

QUICK = QueueLimits(interval_s=0.0, first_retry_s=0.01, longest_retry_s=0.02, give_up_s=deadline_s(15))
WAIT_S = deadline_s(10)
PROTOCOLS = ("http/protobuf", "grpc")


@pytest.fixture(scope="module")
def running() -> Iterator[OtlpCollector]:
    with otlp_collector() as collector:
        yield collector


@pytest.fixture
def collector(running: OtlpCollector) -> OtlpCollector:
    running.heal()
    running._requests.clear()
    return running


class Sending:
    """An exporter against the collector, and its notices."""

    def __init__(self, url: str, protocol: str, limits: QueueLimits = QUICK, **options: str) -> None:
        self.notices: list[str] = []
        endpoint = OtlpEndpoint.parse(url, protocol=protocol, timeout_s=deadline_s(5), **options)
        self.exporter = OtlpExporter(
            open_transport(endpoint, now_s=time.time),
            monotonic=time.monotonic,
            rng=Random(7),
            notify=self.notices.append,
            limits=limits,
        )


def url_of(collector: OtlpCollector, protocol: str) -> str:
    return collector.grpc_url if protocol == "grpc" else collector.http_url


def batch(number: int = 3) -> Batch:
    return Batch(
        spans=[span(index) for index in range(number)],
        logs=[LogRecord(0, 5, RESOURCES[1], SCOPES[0], "WARN", 13, "slow", {"n": 1})],
        metrics=[MetricPoint(0, 5, 0, RESOURCES[2], SCOPES[1], INSTRUMENTS[0], {}, 2.5)],
    )


@pytest.mark.parametrize("protocol", PROTOCOLS)
@pytest.mark.parametrize("compression", ["none", "gzip"])
def test_all_signals_arrive_with_headers(collector: OtlpCollector, protocol: str, compression: str) -> None:
    sending = Sending(
        url_of(collector, protocol), protocol, headers="x-tenant=blue%20one", compression=compression
    )
    assert sending.exporter.submit(batch()) == 0
    counts = sending.exporter.stop(WAIT_S)
    assert bag(collector.received()) == bag(batch())
    assert counts.sent == {"traces": 3, "logs": 1, "metrics": 1}
    assert (counts.unsent, counts.dropped, counts.why_dropped(), sending.notices) == (0, 0, "", [])
    assert {request.protocol for request in collector.requests} == {protocol}
    assert {request.headers["x-tenant"] for request in collector.requests} == {"blue one"}
    if protocol != "grpc":
        assert {r.encoding for r in collector.requests} == {"" if compression == "none" else "gzip"}


@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_a_busy_collector_eventually_gets_all_records(collector: OtlpCollector, protocol: str) -> None:
    collector.fail(times=2)
    sending = Sending(url_of(collector, protocol), protocol)
    sending.exporter.submit(batch())
    assert collector.wait(lambda got: len(got.spans) == 3 and bool(got.metrics), WAIT_S)
    counts = sending.exporter.stop(WAIT_S)
    assert (counts.retries, counts.dropped) == (2, 0)
    assert sending.notices[0].startswith("collector unavailable, retrying:")
    assert sending.notices[1:] == ["collector available again"]


@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_a_collector_that_was_unavailable_eventually_gets_all_records(protocol: str) -> None:
    with otlp_collector() as gone:
        url = url_of(gone, protocol)
    sending = Sending(url, protocol, QUICK._replace(give_up_s=0.05))
    sending.exporter.submit(Batch(spans=[span(0)]))
    counts = sending.exporter.stop(WAIT_S)
    assert counts.given_up == counts.dropped == 1
    assert counts.why_dropped() == "1 given up after retries"
    assert counts.retries >= 1
    assert sending.notices[-1].startswith("gave up on traces: ")


@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_a_rejected_request_is_not_retried_and_reported_once(collector: OtlpCollector, protocol: str) -> None:
    collector.fail(times=2, http_status=400, grpc_code="INVALID_ARGUMENT")
    attempts = collector.attempts
    sending = Sending(url_of(collector, protocol), protocol)
    for number in range(2):
        sending.exporter.submit(Batch(spans=[span(number)]))
        assert collector.wait_for_attempts(attempts + number + 1, WAIT_S)
    counts = sending.exporter.stop(WAIT_S)
    assert (counts.refused, counts.retries, counts.requests) == (2, 0, 2)
    assert len(sending.notices) == 1
    assert "failing as requested" in sending.notices[0]


@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_a_partial_success_is_counted_and_reported(collector: OtlpCollector, protocol: str) -> None:
    collector.reject(2, "too old")
    sending = Sending(url_of(collector, protocol), protocol)
    sending.exporter.submit(Batch(spans=[span(number) for number in range(3)]))
    counts = sending.exporter.stop(WAIT_S)
    assert (counts.sent["traces"], counts.rejected, counts.unsent) == (1, 2, 0)
    assert sending.notices == ["collector accepted traces but rejected 2 of 3 records: too old"]
    assert counts.why_dropped() == "2 rejected by the collector"


def test_a_warning_of_the_collector_is_reported(collector: OtlpCollector) -> None:
    collector.reject(0, "soon to be refused")
    sending = Sending(collector.http_url, "http/protobuf")
    sending.exporter.submit(Batch(spans=[span(0)]))
    assert sending.exporter.stop(WAIT_S).sent["traces"] == 1
    assert sending.notices == ["collector accepted traces but rejected 0 of 1 records: soon to be refused"]


def test_records_beyond_the_capacity_are_dropped_and_counted(collector: OtlpCollector) -> None:
    collector.fail()
    sending = Sending(collector.http_url, "http/protobuf", QUICK._replace(capacity=5))
    assert sending.exporter.submit(Batch(spans=[span(number) for number in range(4)])) == 0
    assert sending.exporter.submit(Batch(spans=[span(9), span(10)])) == 2
    collector.heal()
    counts = sending.exporter.stop(WAIT_S)
    assert (counts.sent["traces"], counts.queue_full) == (4, 2)
    assert counts.why_dropped() == "2 queue full"


def test_a_timeout_waits_for_room_instead_of_dropping(collector: OtlpCollector) -> None:
    sending = Sending(collector.http_url, "http/protobuf", QUICK._replace(capacity=10_000))
    many = Batch(spans=[span(number) for number in range(25_000)])
    assert sending.exporter.submit(many, WAIT_S) == 0
    assert sending.exporter.stop(WAIT_S).sent["traces"] == 25_000
    assert bag(collector.received()) == bag(many)


@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_stopping_ends_at_its_timeout_and_counts_unsent_records(
    collector: OtlpCollector, protocol: str
) -> None:
    collector.fail()
    slow = QUICK._replace(first_retry_s=3_600.0, longest_retry_s=3_600.0, give_up_s=36_000.0)
    sending = Sending(url_of(collector, protocol), protocol, slow)
    attempts = collector.attempts
    sending.exporter.submit(batch())
    assert collector.wait_for_attempts(attempts + 1, WAIT_S)
    counts = sending.exporter.stop(0.2)  # and not after the hour until the next retry
    assert (counts.left_at_stop, counts.unsent) == (5, 0)


def test_stopping_retries_waiting_requests_immediately(collector: OtlpCollector) -> None:
    collector.fail(times=1)
    sending = Sending(
        collector.http_url, "http/protobuf", QUICK._replace(first_retry_s=3_600.0, give_up_s=36_000.0)
    )
    attempts = collector.attempts
    sending.exporter.submit(Batch(spans=[span(0)]))
    assert collector.wait_for_attempts(attempts + 1, WAIT_S)
    assert sending.exporter.stop(WAIT_S).sent["traces"] == 1


@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_a_missing_response_is_a_timeout_and_retried(protocol: str) -> None:
    with (
        otlp_collector() as slow
    ):  # not the shared collector: its delayed responses must not reach another test
        slow.slow(0.5)
        endpoint = OtlpEndpoint.parse(url_of(slow, protocol), protocol=protocol, timeout_s=0.1)
        transport = open_transport(endpoint, now_s=time.time)
        (request,) = requests(Batch(spans=[span(0)]))
        assert isinstance(transport.send(request), Retryable)
        transport.close()


def test_an_exhausted_server_is_retried_only_with_retry_info(collector: OtlpCollector) -> None:
    transport = open_transport(OtlpEndpoint.parse(collector.grpc_url, protocol="grpc"), now_s=time.time)
    (request,) = requests(Batch(spans=[span(0)]))
    collector.fail(times=1, grpc_code="RESOURCE_EXHAUSTED")
    assert isinstance(transport.send(request), Rejected)
    details = b"\x1a(type.googleapis.com/google.rpc.RetryInfo"
    collector.fail(times=1, grpc_code="RESOURCE_EXHAUSTED", trailers=(("grpc-status-details-bin", details),))
    assert isinstance(transport.send(request), Retryable)
    transport.close()


def test_the_delay_of_the_collector_takes_precedence(collector: OtlpCollector) -> None:
    collector.fail(times=1, http_status=429, retry_after="0")
    sending = Sending(
        collector.http_url, "http/protobuf", QUICK._replace(first_retry_s=3_600.0, give_up_s=36_000.0)
    )
    sending.exporter.submit(Batch(spans=[span(0)]))
    assert collector.wait(lambda got: len(got.spans) == 1, WAIT_S)  # at once, not after a minute
    assert sending.exporter.stop(WAIT_S).retries == 1


def test_a_server_that_is_not_a_collector_rejects(collector: OtlpCollector) -> None:
    transport = open_transport(OtlpEndpoint.parse(f"{collector.http_url}/wrong"), now_s=time.time)
    (request,) = requests(Batch(spans=[span(0)]))
    outcome = transport.send(request)
    assert isinstance(outcome, Rejected)
    assert outcome.reason.startswith("HTTP 404 from http://127.0.0.1")
    transport.close()


@pytest.mark.parametrize(
    ("header", "seconds"),
    [
        (None, None),
        ("", None),
        ("7", 7.0),
        ("soon", None),
        ("Thu, 01 Jan 1970 00:01:40 GMT", 60.0),
        ("Thu, 01 Jan 1970 00:00:10 GMT", 0.0),
    ],
)
def test_retry_after_is_a_number_or_a_date(header: str | None, seconds: float | None) -> None:
    assert retry_after_s(header, now_s=40.0) == seconds


class Raising:
    """A transport with a bug."""

    def send(self, request: object, timeout_s: float | None = None) -> Accepted:
        raise RuntimeError("bug")

    def close(self) -> None:
        pass


def test_an_error_of_the_sending_thread_is_raised_in_the_caller() -> None:
    exporter = OtlpExporter(
        Raising(), monotonic=time.monotonic, rng=Random(1), notify=lambda _: None, limits=QUICK
    )
    exporter.submit(Batch(spans=[span(0)]))
    with pytest.raises(RuntimeError, match="bug"):
        exporter.stop(WAIT_S)
    with pytest.raises(RuntimeError, match="bug"):
        exporter.submit(Batch(spans=[span(0)]))


def test_many_records_are_split_into_requests_of_acceptable_size(collector: OtlpCollector) -> None:
    wide = [span(number)._replace(attributes={"text": "x" * 4_000}) for number in range(2_500)]
    sending = Sending(collector.grpc_url, "grpc")
    sending.exporter.submit(Batch(spans=wide))
    assert sending.exporter.stop(WAIT_S).sent["traces"] == 2_500
    assert len(collector.received().spans) == 2_500
    assert max(request.size_bytes for request in collector.requests) <= 3 << 20


@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_tls_to_a_server_without_tls_counts_as_unavailable(collector: OtlpCollector, protocol: str) -> None:
    url = url_of(collector, protocol).replace("http://", "https://")
    transport = open_transport(
        OtlpEndpoint.parse(url, protocol=protocol, timeout_s=deadline_s(5)), now_s=time.time
    )
    (request,) = requests(Batch(spans=[span(0)]))
    assert isinstance(transport.send(request), Retryable)
    transport.close()


class Garbled(BaseHTTPRequestHandler):
    """Responds with 200 and a body that is not protobuf."""

    def do_POST(self) -> None:
        self.rfile.read(int(self.headers["content-length"]))
        self.send_response(200)
        self.send_header("content-length", "3")
        self.end_headers()
        self.wfile.write(b"\xff\xff\xff")

    def log_message(self, format: str, *args: object) -> None:
        pass


def test_a_response_that_is_not_otlp_is_a_rejection() -> None:
    with HTTPServer(("127.0.0.1", 0), Garbled) as server:
        serving = threading.Thread(target=server.handle_request)
        serving.start()
        endpoint = OtlpEndpoint.parse(f"http://127.0.0.1:{server.server_address[1]}")
        transport = open_transport(endpoint, now_s=time.time)
        (request,) = requests(Batch(spans=[span(0)]))
        outcome = transport.send(request)
        serving.join()
        transport.close()
    assert isinstance(outcome, Rejected)
    assert outcome.reason.startswith("the answer to traces is not OTLP")


def test_a_wait_for_missing_records_ends(collector: OtlpCollector) -> None:
    assert not collector.wait(lambda got: bool(got.spans), timeout_s=0.05)
    assert not collector.wait_for_attempts(collector.attempts + 1, timeout_s=0.05)
