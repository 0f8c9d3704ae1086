"""OTLP/HTTP over real sockets: the protocol, and mistakes of clients."""

from __future__ import annotations

import base64
import gzip
import json
import resource
import socket
import threading
import zlib
from collections.abc import Iterator
from contextlib import suppress
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceResponse

from pytest_otel_diag.errors import ConfigurationError
from pytest_otel_diag.receiver import Limits, Receiver, otlp_json
from pytest_otel_diag.telemetry import Store
from tests.receiver.conftest import Start
from tests.support import otlp
from tests.support.deadlines import eventually
from tests.support.otlp import JSON, PROTOBUF, head, names, post, raw, read_all, read_answer, spans, statuses

GZIP = {**PROTOBUF, "content-encoding": "gzip"}


def as_json(message: Any) -> bytes:
    """Return a message as OTLP/JSON: ids in hexadecimal."""
    document = json.loads(otlp_json.write(message))
    for span in document["resourceSpans"][0]["scopeSpans"][0]["spans"]:
        for name in ("traceId", "spanId", "parentSpanId"):
            if name in span:
                span[name] = base64.b64decode(span[name]).hex()
    return json.dumps(document).encode()


def test_every_encoding_is_accepted_and_stored(start: Start, store: Store, database: str) -> None:
    receiver = start()
    address = receiver.addresses.http
    bodies = [spans(1, first).SerializeToString() for first in range(6)]
    sent = [
        (bodies[0], PROTOBUF),
        (gzip.compress(bodies[1]), GZIP),
        (zlib.compress(bodies[2]), {**PROTOBUF, "content-encoding": "deflate"}),
        (gzip.compress(bodies[3][:20]) + gzip.compress(bodies[3][20:]), GZIP),
        (bodies[4], {"content-type": "Application/X-Protobuf; v=1", "content-encoding": "identity"}),
        (
            gzip.compress(as_json(spans(1, 5))),
            {"content-type": "application/json; charset=utf-8", "content-encoding": "gzip"},
        ),
    ]
    for body, headers in sent:
        status, answer, returned = post(address, body, headers, path="/v1/traces?x=1")
        assert status == 200
        kind = headers["content-type"].partition(";")[0].lower()
        assert returned["content-type"] == kind
        assert answer == (b"{}" if kind == "application/json" else b"")
    assert receiver.flush()
    assert names(store, database) == [f"span {number}" for number in range(6)]
    ids = otlp.ask(store, database, "SELECT TraceId, SpanId FROM otel_traces WHERE SpanName = 'span 5'")
    assert ids == [("6".zfill(32), "6".zfill(16))]


def test_each_signal_has_its_path(start: Start, store: Store, database: str) -> None:
    receiver = start()
    for path, message in (("traces", spans(2)), ("logs", otlp.logs(3)), ("metrics", otlp.points(4))):
        assert post(receiver.addresses.http, message.SerializeToString(), path=f"/v1/{path}")[0] == 200
    assert receiver.flush()
    counts = receiver.counts()
    assert [counts.of(signal).stored for signal in ("traces", "logs", "metrics")] == [2, 3, 4]
    assert store.count_rows(database, "otel_logs") == 3
    assert store.count_rows(database, "otel_metrics_gauge") == 4


def test_json_attributes_named_like_ids_are_unchanged(start: Start, store: Store, database: str) -> None:
    receiver = start()
    value = {"kvlistValue": {"values": [{"key": "traceId", "value": {"stringValue": "not hex"}}]}}
    span = {
        "traceId": "0A" * 16,
        "spanId": "0b" * 8,
        "kind": 2,
        "startTimeUnixNano": "5",
        "a field of the future": 1,
        "status": {"code": 2},
        "attributes": [{"key": "spanId", "value": {"stringValue": "zz"}}, {"key": "x", "value": value}],
    }  # fmt: skip
    document = {"resourceSpans": [{"scopeSpans": [{"spans": [span]}]}]}
    assert post(receiver.addresses.http, json.dumps(document).encode(), JSON)[0] == 200
    assert receiver.flush()
    row = otlp.ask(store, database, "SELECT TraceId, SpanKind, StatusCode, SpanAttributes FROM otel_traces")
    assert row == [("0a" * 16, "Server", "Error", {"spanId": "zz", "x": '{"traceId":"not hex"}'})]


BASE64_IDS = b'{"resourceSpans":[{"scopeSpans":[{"spans":[{"traceId":"%%"}]}]}]}'
WRONG = {
    "unknown path": ("POST", "/v1/profiles", PROTOBUF, b"", 404),
    "not a POST": ("GET", "/v1/traces", {}, b"", 405),
    "a HEAD": ("HEAD", "/v1/logs", {}, b"", 405),
    "no content type": ("POST", "/v1/traces", {}, b"", 415),
    "text": ("POST", "/v1/traces", {"content-type": "text/plain"}, b"hello", 415),
    "zstd": ("POST", "/v1/traces", {**PROTOBUF, "content-encoding": "zstd"}, b"x", 415),
    "bad protobuf": ("POST", "/v1/traces", PROTOBUF, b"\x0a\xff\xff\xff", 400),
    "bad JSON": ("POST", "/v1/traces", JSON, b"{", 400),
    "JSON of another shape": ("POST", "/v1/traces", JSON, b'{"resourceSpans": 5}', 400),
    "JSON that is no object": ("POST", "/v1/traces", JSON, b"[1]", 400),
    "JSON ids in base64": ("POST", "/v1/traces", JSON, BASE64_IDS, 400),
    "JSON too deep": ("POST", "/v1/traces", JSON, b'{"a":' * 100_000, 400),
    "bad gzip": ("POST", "/v1/traces", GZIP, b"\x1f\x8b garbage", 400),
    "half a gzip": ("POST", "/v1/traces", GZIP, gzip.compress(b"x" * 100)[:-5], 400),
}  # fmt: skip


@pytest.mark.parametrize("what", WRONG)
def test_bad_requests_are_answered_and_counted_and_keep_the_connection(start: Start, what: str) -> None:
    method, path, headers, body, expected = WRONG[what]
    receiver = start()
    connection = otlp.http.client.HTTPConnection(receiver.addresses.http, timeout=otlp.WAIT_S)
    for _ in range(2):
        connection.request(method, path, body, headers)
        answer = connection.getresponse()
        content = answer.read()
        assert answer.status == expected
        assert content or method == "HEAD"
    if expected == 405:
        assert answer.headers["allow"] == "POST"
    connection.request("POST", "/v1/traces", spans(1).SerializeToString(), PROTOBUF)
    assert connection.getresponse().status == 200
    connection.close()
    counts = receiver.counts()
    refused = {**counts.refused, **counts.traces.refused}
    assert sum(refused.values()) == 2
    assert counts.traces.received == 1


def test_errors_are_a_status_in_the_content_type_of_the_request(start: Start) -> None:
    address = start().addresses.http
    _, content, headers = post(address, b"{", JSON)
    assert headers["content-type"] == "application/json"
    assert json.loads(content)["code"] == 3
    assert "not" in otlp.message_of(content) or "Export request" in otlp.message_of(content)
    _, content, headers = post(address, b"\xff", PROTOBUF)
    assert headers["content-type"] == "application/x-protobuf"
    assert b"not an Export request of traces" in content


SMALL = Limits(request_bytes=2_000)


@pytest.mark.parametrize("how", ["length", "chunks", "bomb", "gzip of gzip"])
def test_too_large_bodies_are_refused_before_they_are_buffered(start: Start, how: str) -> None:
    receiver = start(limits=SMALL)
    bomb = gzip.compress(b"\0" * 50_000_000)
    with raw(receiver.addresses.http) as wire:
        if how == "length":
            wire.sendall(head(10**9))
        elif how == "chunks":
            wire.sendall(head(None, "transfer-encoding: chunked") + b"300\r\n" + b"x" * 0x300 + b"\r\n")
            for _ in range(3):
                wire.sendall(b"300\r\n" + b"x" * 0x300 + b"\r\n")
        elif how == "bomb":
            small = gzip.compress(b"\0" * 1_000_000, 9)
            assert len(small) < 2_000
            wire.sendall(head(len(small), "content-encoding: gzip") + small)
        else:
            wire.sendall(head(len(bomb), "content-encoding: gzip"))
        status, content = read_answer(wire)
    assert status == 413
    assert b"2,000 bytes after decompression" in content
    assert receiver.counts().traces.refused == {"too large": 1}


def test_chunked_bodies_and_expect_continue_are_supported(start: Start) -> None:
    receiver = start()
    body = spans(3).SerializeToString()
    with raw(receiver.addresses.http) as wire:
        wire.sendall(head(None, "transfer-encoding: chunked"))
        for start_ in range(0, len(body), 7):
            piece = body[start_ : start_ + 7]
            wire.sendall(f"{len(piece):x}\r\n".encode() + piece + b"\r\n")
        wire.sendall(b"0\r\n\r\n")
        assert read_answer(wire)[0] == 200
        wire.sendall(head(len(body), "expect: 100-continue"))
        assert wire.recv(100).startswith(b"HTTP/1.1 100 ")
        wire.sendall(body)
        assert read_answer(wire)[0] == 200
    assert receiver.counts().traces.received == 6


def test_pipelined_requests_are_answered_in_order(start: Start) -> None:
    receiver = start()
    good, bad = spans(1).SerializeToString(), b"\xff\xff"
    with raw(receiver.addresses.http) as wire:
        wire.sendall(b"".join(head(len(body)) + body for body in (good, bad, good)))
        wire.shutdown(socket.SHUT_WR)
        assert statuses(read_all(wire)) == [200, 400, 200]


def test_a_half_closed_connection_still_gets_its_response(start: Start) -> None:
    receiver = start()
    body = spans(1).SerializeToString()
    with raw(receiver.addresses.http) as wire:
        wire.sendall(head(len(body)) + body)
        wire.shutdown(socket.SHUT_WR)
        assert statuses(read_all(wire)) == [200]


def test_an_offer_to_upgrade_to_http_2_is_declined_without_losing_the_body(start: Start) -> None:
    receiver = start()
    body = spans(2).SerializeToString()
    with raw(receiver.addresses.http) as wire:
        for _ in range(2):
            wire.sendall(head(len(body), "connection: Upgrade, HTTP2-Settings", "upgrade: h2c") + body)
            assert read_answer(wire)[0] == 200
    assert receiver.counts().traces.received == 4


@pytest.mark.parametrize("size", [2, 64])
def test_a_body_in_very_many_small_chunks_is_refused(start: Start, size: int) -> None:
    receiver = start()
    body = spans(1_000).SerializeToString()
    pieces = [body[index : index + size] for index in range(0, len(body), size)]
    chunks = b"".join(f"{len(piece):x}\r\n".encode() + piece + b"\r\n" for piece in pieces)
    with raw(receiver.addresses.http) as wire:
        wire.sendall(head(None, "transfer-encoding: chunked"))
        with suppress(OSError):
            wire.sendall(chunks + b"0\r\n\r\n")
            wire.shutdown(socket.SHUT_WR)
        answered = statuses(read_all(wire))
    if size == 64:
        assert answered == [200]
    else:
        assert answered in ([400], []), "the answer may be lost while the client goes on sending"
        assert eventually(lambda: refusals(receiver)) == {"broken off": 1}


BROKEN = {
    "length above the body": (head(500) + b"abc", [400], "broken off"),
    "chunk cut off": (head(None, "transfer-encoding: chunked") + b"ff\r\nabc", [400], "broken off"),
    "chunk without a size": (
        head(None, "transfer-encoding: chunked") + b"zz\r\nabc\r\n",
        [400],
        "broken off",
    ),
    "length below the body": (head(0) + b"the rest\r\n\r\n", [400], "not HTTP"),
    "no length": (head(None) + b"the rest\r\n\r\n", [400], "not HTTP"),
    "a length beside chunks": (
        head(5, "transfer-encoding: chunked") + b"5\r\nabcde\r\n0\r\n\r\n",
        [400],
        "not HTTP",
    ),
    "chunks beside a length": (
        head(None, "content-length: 5", "Transfer-Encoding: Chunked") + b"5\r\nabcde\r\n0\r\n\r\n",
        [400],
        "not HTTP",
    ),
    "two lengths": (head(5, "content-length: 6") + b"abcde", [400], "not HTTP"),
    "length that is no number": (head(None, "content-length: -1"), [400], "not HTTP"),
    "unknown transfer encoding": (head(None, "transfer-encoding: gzip"), [400], "broken off"),
    "header without end": (b"POST /v1/traces HTTP/1.1\r\nx: " + b"y" * 100_000, [431], "not HTTP"),
    "TLS": (b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" + bytes(50) + b"\r\n\r\n", [400], "not HTTP"),
    "a tunnel": (b"CONNECT example.org:443 HTTP/1.1\r\nhost: example.org\r\n\r\n", [405], "not a POST"),
    "HTTP/2": (b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", [400], "not HTTP"),
    "header cut off": (b"POST /v1/tra", [400], "not HTTP"),
}


def in_progress(receiver: Receiver, number: int) -> bool:
    """Wait until *number* requests are in progress; return whether they are."""
    return bool(eventually(lambda: receiver._http.requests == number))


def refusals(receiver: Receiver) -> dict[str, int]:
    """Return the refused requests by reason, with and without a signal."""
    counts = receiver.counts()
    return {**counts.refused, **counts.traces.refused}


@pytest.mark.parametrize("what", BROKEN)
def test_invalid_http_is_refused_and_nothing_of_it_is_stored(start: Start, what: str) -> None:
    sent, expected, reason = BROKEN[what]
    receiver = start()
    with raw(receiver.addresses.http) as wire:
        wire.sendall(sent)
        wire.shutdown(socket.SHUT_WR)
        assert statuses(read_all(wire)) == expected
    assert eventually(lambda: refusals(receiver)) == {reason: 1}
    assert receiver.counts().traces.received == 0
    assert post(receiver.addresses.http, spans(1).SerializeToString())[0] == 200


def test_a_connection_reset_within_a_body_is_counted(start: Start) -> None:
    receiver = start()
    wire = raw(receiver.addresses.http)
    wire.sendall(head(500) + b"abc")
    wire.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")
    assert in_progress(receiver, 1)
    wire.close()
    assert eventually(lambda: receiver.counts().traces.refused == {"broken off": 1})


IMPATIENT = {
    "header": Limits(header_s=0.3),
    "body": Limits(body_s=0.3),
    "idle": Limits(idle_s=0.3),
    "between requests": Limits(idle_s=2.0),
}


@pytest.mark.parametrize("what", IMPATIENT)
def test_connections_of_slow_clients_are_closed(start: Start, what: str) -> None:
    receiver = start(limits=IMPATIENT[what])
    stop = threading.Event()

    def drip() -> None:
        while not stop.wait(0.02):
            try:
                wire.sendall(b"x")
            except OSError:
                return

    with raw(receiver.addresses.http) as wire:
        if what == "between requests":
            wire.sendall(head(0))
            assert read_answer(wire)[0] == 200
        elif what != "idle":
            wire.sendall(b"POST /v1/traces HTTP/1.1\r\nx:" if what == "header" else head(10**6))
            threading.Thread(target=drip, daemon=True).start()
        data = read_all(wire)
        stop.set()
    expected = {"header": ({"header too slow": 1}, {}), "body": ({}, {"too slow": 1})}.get(what, ({}, {}))
    counts = receiver.counts()
    assert (counts.refused, counts.traces.refused) == expected
    assert statuses(data) in ([], [408]), "the answer may be lost when the client goes on sending"


@pytest.fixture
def many_files() -> Iterator[None]:
    """Both ends of the connections are in this process, which often may open 1,024 files only."""
    before, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (max(before, min(most, 4_096)), most))
    yield
    resource.setrlimit(resource.RLIMIT_NOFILE, (before, most))


def open_idle(address: str, number: int) -> list[socket.socket]:
    return [raw(address) for _ in range(number)]


@pytest.mark.usefixtures("many_files")
def test_a_thousand_idle_connections_do_not_block_other_clients(start: Start) -> None:
    receiver = start()
    threads = threading.active_count()
    connection = otlp.http.client.HTTPConnection(receiver.addresses.http, timeout=otlp.WAIT_S)
    body = spans(1).SerializeToString()
    connection.request("POST", "/v1/traces", body, PROTOBUF)
    assert connection.getresponse().read() == b""
    mine = connection.sock
    idle = open_idle(receiver.addresses.http, 1_000)
    try:
        assert post(receiver.addresses.http, body)[0] == 200
        connection.request("POST", "/v1/traces", body, PROTOBUF)
        assert connection.getresponse().read() == b""
        assert connection.sock is mine, "who has sent something is not pushed out by those who have not"
        assert threading.active_count() <= threads + 5
        closed = 0
        for wire in idle:
            wire.setblocking(False)
            try:
                closed += wire.recv(1) == b""
            except BlockingIOError:
                pass
            except ConnectionError:
                closed += 1
        assert closed >= 1_000 - Limits().connections
    finally:
        for wire in idle:
            wire.close()
        connection.close()


def test_a_new_connection_is_closed_when_all_are_busy(start: Start) -> None:
    receiver = start(limits=Limits(connections=2))
    body = spans(1).SerializeToString()
    with raw(receiver.addresses.http) as one, raw(receiver.addresses.http) as two:
        for wire in (one, two):
            wire.sendall(head(len(body)) + body[:5])
        assert in_progress(receiver, 2)
        with raw(receiver.addresses.http) as late:
            assert read_all(late) == b""
        for wire in (one, two):
            wire.sendall(body[5:])
            assert read_answer(wire)[0] == 200
    assert receiver.counts().refused == {"too many connections at work": 1}


def test_the_total_size_of_arriving_bodies_is_bounded(start: Start) -> None:
    receiver = start(limits=Limits(request_bytes=1_000, arriving_bytes=1_500))
    with raw(receiver.addresses.http) as one, raw(receiver.addresses.http) as two:
        one.sendall(head(1_000) + b"\0" * 999)
        assert eventually(lambda: receiver._http.arriving_bytes == 999)
        two.sendall(head(1_000) + b"\0" * 999)
        answer = otlp.http.client.HTTPResponse(two)
        answer.begin()
        assert (answer.status, answer.headers["retry-after"]) == (503, "1")
        one.sendall(b"\0")
        assert read_answer(one)[0] == 400
    assert receiver.counts().traces.refused["too many bodies on their way"] == 1
    assert post(receiver.addresses.http, b"\0" * 1_000)[0] == 400, "the room was given back"


def test_back_pressure_sends_retry_after_and_loses_nothing(start: Start, store: Store, database: str) -> None:
    gate = otlp.Gate(store)
    receiver = start(into=gate, limits=Limits(queue_records=10, batch_s=0.01, retry_after_s=3))
    address = receiver.addresses.http
    assert post(address, spans(10).SerializeToString())[0] == 200
    status, content, headers = post(address, as_json(spans(1, 10)), JSON)
    assert (status, headers["retry-after"], json.loads(content)["code"]) == (503, "3", 14)
    assert "queue is full" in otlp.message_of(content)
    assert receiver.counts().traces.rejected == {"queue full": 1}
    assert not receiver.flush(timeout_s=0.05)
    gate.open()
    assert receiver.flush()
    assert post(address, as_json(spans(1, 10)), JSON)[0] == 200
    assert receiver.flush()
    assert len(names(store, database)) == 11
    counts = receiver.stop()
    assert (counts.traces.received, counts.traces.stored, counts.lost) == (12, 11, 0)
    assert otlp.balanced(counts)


def test_rejected_records_are_reported_and_the_others_are_stored(
    start: Start, store: Store, database: str
) -> None:
    receiver = start()
    request = spans(4)
    odd = request.resource_spans[0].scope_spans[0].spans
    odd[1].start_time_unix_nano, odd[2].trace_id = 2**63, b"short"
    status, content, _ = post(receiver.addresses.http, request.SerializeToString())
    answer = ExportTraceServiceResponse.FromString(content)
    assert status == 200
    assert answer.partial_success.rejected_spans == 2
    assert "beyond the year 2106" in answer.partial_success.error_message
    assert receiver.flush()
    assert names(store, database) == ["span 0", "span 3"]
    counts = receiver.stop()
    assert sum(counts.traces.rejected.values()) == 2
    assert otlp.balanced(counts)


@pytest.mark.parametrize("megabytes", [1, 16])
def test_huge_attributes_are_stored_whole(start: Start, store: Store, database: str, megabytes: int) -> None:
    receiver = start()
    request = spans(2)
    span = request.resource_spans[0].scope_spans[0].spans[0]
    span.attributes.add(key="blob").value.string_value = "é" * (megabytes << 19)
    assert post(receiver.addresses.http, gzip.compress(request.SerializeToString(), 1), GZIP)[0] == 200
    assert receiver.flush()
    sizes = otlp.ask(
        store, database, "SELECT length(SpanAttributes['blob']) AS n FROM otel_traces ORDER BY n"
    )
    assert sizes == [(0,), (megabytes << 20,)]


def test_records_of_a_huge_resource_are_rejected(start: Start) -> None:
    receiver = start(limits=Limits(expanded_bytes=1_000_000))
    status, content, _ = post(receiver.addresses.http, spans(100, service="s" * 20_000).SerializeToString())
    assert status == 200
    assert ExportTraceServiceResponse.FromString(content).partial_success.rejected_spans == 100


def test_a_request_in_progress_is_accepted_while_the_receiver_stops(
    start: Start, store: Store, database: str
) -> None:
    receiver = start()
    body = spans(1).SerializeToString()
    with raw(receiver.addresses.http) as wire, raw(receiver.addresses.http) as idle:
        address = receiver.addresses.http
        wire.sendall(head(len(body)) + body[:5])
        assert in_progress(receiver, 1)
        with otlp.in_background(receiver.stop):
            assert read_all(idle) == b""
            wire.sendall(body[5:])
            assert read_answer(wire)[0] == 200
    assert names(store, database) == ["span 0"]
    with pytest.raises(ConnectionError):
        raw(address)


def test_an_endless_request_does_not_keep_the_receiver_from_stopping(start: Start) -> None:
    receiver = start(limits=Limits(stop_s=0.3))
    with raw(receiver.addresses.http) as wire:
        wire.sendall(head(100) + b"abc")
        assert in_progress(receiver, 1)
        with otlp.in_background(receiver.stop):
            assert statuses(read_all(wire)) in ([], [400])


def test_a_port_in_use_is_an_error(start: Start, store: Store) -> None:
    taken = start().addresses.http
    with pytest.raises(ConfigurationError, match=f"OTLP/HTTP on {taken}.*another address"):
        Receiver(store, "other", http=taken, grpc=None).start()
    with pytest.raises(ConfigurationError, match=r"OTLP/HTTP on no\.such\.host\.invalid:1"):
        Receiver(store, "other", http="no.such.host.invalid:1", grpc=None).start()


FUZZ = settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
FIELDS = ["resourceSpans", "scopeSpans", "spans", "attributes", "value", "traceId", "kind", "key"]
json_values = st.recursive(
    st.none() | st.booleans() | st.floats() | st.integers() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from(FIELDS), inner, max_size=3),
    max_leaves=15,
)


def test_arbitrary_bytes_and_json_get_a_response(start: Start) -> None:
    receiver = start()
    connection = otlp.http.client.HTTPConnection(receiver.addresses.http, timeout=otlp.WAIT_S)

    def answered(body: bytes, headers: dict[str, str]) -> None:
        connection.request("POST", "/v1/traces", body, headers)
        answer = connection.getresponse()
        assert answer.status in {200, 400}
        answer.read()

    @FUZZ
    @given(st.binary(max_size=40) | st.integers(0, 60).map(lambda cut: spans(1).SerializeToString()[:cut]))
    def of_bytes(body: bytes) -> None:
        answered(body, PROTOBUF)

    @FUZZ
    @given(json_values)
    def of_json(value: object) -> None:
        answered(json.dumps(value).encode(), JSON)

    of_bytes()
    of_json()
    connection.close()
    assert receiver.flush()
