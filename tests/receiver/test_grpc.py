"""OTLP/gRPC with grpcio's own client."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import grpc
import pytest
from google.rpc.error_details_pb2 import RetryInfo
from google.rpc.status_pb2 import Status

from pytest_otel_diag.errors import ConfigurationError
from pytest_otel_diag.receiver import Limits, Receiver, packages
from pytest_otel_diag.receiver.grpc_server import UNREAD
from pytest_otel_diag.telemetry import Store
from tests.receiver.conftest import Start
from tests.support import otlp
from tests.support.otlp import names, spans

GRPC = {"http": None, "grpc": "127.0.0.1:0"}


@contextmanager
def exporting(receiver: Receiver, signal: str = "traces", **options: Any) -> Iterator[Any]:
    """Yield a function that exports a message or bytes."""
    service = packages.services()[signal]
    unlimited = [("grpc.max_send_message_length", -1)]
    with grpc.insecure_channel(receiver.addresses.grpc, options=unlimited, **options) as channel:
        call = channel.unary_unary(service.method, response_deserializer=service.response.FromString)

        def export(message: Any) -> Any:
            body = message if isinstance(message, bytes) else message.SerializeToString()
            return call(body, timeout=otlp.WAIT_S)

        yield export


@pytest.mark.parametrize("compression", [grpc.Compression.NoCompression, grpc.Compression.Gzip])
def test_three_signals_are_stored(start: Start, store: Store, database: str, compression: Any) -> None:
    receiver = start(**GRPC)
    for signal, message in (("traces", spans(2)), ("logs", otlp.logs(3)), ("metrics", otlp.points(4))):
        with exporting(receiver, signal, compression=compression) as export:
            assert not export(message).HasField("partial_success")
    assert receiver.flush()
    counts = receiver.stop()
    assert [counts.of(signal).stored for signal in ("traces", "logs", "metrics")] == [2, 3, 4]
    assert not any(counts.of(signal).refused for signal in ("traces", "logs", "metrics"))
    assert names(store, database) == ["span 0", "span 1"]


def test_rejected_records_are_reported_as_partial_success(start: Start) -> None:
    receiver = start(**GRPC)
    with exporting(receiver) as export:
        answer = export(spans(3, trace_id=b"short"))
    assert answer.partial_success.rejected_spans == 3
    assert "wrong size" in answer.partial_success.error_message


def test_bad_protobuf_is_an_invalid_argument(start: Start) -> None:
    receiver = start(**GRPC)
    with exporting(receiver) as export:
        with pytest.raises(grpc.RpcError) as refused:
            export(b"\xff\xff")
        assert refused.value.code() == grpc.StatusCode.INVALID_ARGUMENT
        export(spans(1))
    assert receiver.stop().traces.refused == {"malformed": 1}


@pytest.mark.parametrize("what", ["large", "bomb"])
def test_too_large_messages_are_refused_and_counted_when_the_server_stops(start: Start, what: str) -> None:
    receiver = start(**GRPC, limits=Limits(request_bytes=100_000))
    gzip = grpc.Compression.Gzip if what == "bomb" else grpc.Compression.NoCompression
    with exporting(receiver, compression=gzip) as export:
        with pytest.raises(grpc.RpcError) as refused:
            export(spans(1, name="x" * 10_000_000))
        assert refused.value.code() == grpc.StatusCode.RESOURCE_EXHAUSTED
        export(spans(1))
    counts = receiver.stop()
    assert counts.traces.refused == {UNREAD: 1}
    assert counts.traces.stored == 1


def test_back_pressure_sends_a_retry_delay(start: Start, store: Store) -> None:
    gate = otlp.Gate(store)
    receiver = start(**GRPC, into=gate, limits=Limits(queue_records=10, retry_after_s=3))
    with exporting(receiver) as export:
        export(spans(10))
        with pytest.raises(grpc.RpcError) as refused:
            export(spans(1, 10))
        assert refused.value.code() == grpc.StatusCode.RESOURCE_EXHAUSTED
        trailers = dict(refused.value.trailing_metadata())
        (detail,) = Status.FromString(trailers["grpc-status-details-bin"]).details
        info = RetryInfo()
        assert detail.Unpack(info)
        assert info.retry_delay.seconds == 3
        assert RetryInfo.FromString(trailers["google.rpc.retryinfo-bin"]) == info
        gate.open()
        assert receiver.flush()
        export(spans(1, 10))
    counts = receiver.stop()
    assert (counts.traces.stored, counts.traces.rejected) == (11, {"queue full": 1})
    assert otlp.balanced(counts)


def test_a_stopping_receiver_answers_unavailable(start: Start) -> None:
    receiver = start(**GRPC)
    with exporting(receiver) as export:
        receiver._backlog.close()
        with pytest.raises(grpc.RpcError) as refused:
            export(spans(1))
        assert refused.value.code() == grpc.StatusCode.UNAVAILABLE
    assert receiver.stop().traces.rejected == {"stopping": 1}


def test_other_services_are_unimplemented(start: Start) -> None:
    receiver = start(**GRPC)
    with grpc.insecure_channel(receiver.addresses.grpc) as channel:
        with pytest.raises(grpc.RpcError) as refused:
            channel.unary_unary("/opentelemetry.proto.collector.profiles.v1.ProfilesService/Export")(
                b"", timeout=otlp.WAIT_S
            )
        assert refused.value.code() == grpc.StatusCode.UNIMPLEMENTED


def test_a_port_in_use_is_an_error_and_stops_the_other_server(start: Start, store: Store) -> None:
    taken = start(**GRPC).addresses.grpc
    other = Receiver(store, "other", http="127.0.0.1:0", grpc=taken)
    with pytest.raises(ConfigurationError, match=f"OTLP/gRPC on {taken}"):
        other.start()
    assert other.addresses.http is None
    assert not other._http._thread.is_alive()
    store.drop_database("other")
