"""An OTLP collector for tests: real servers for gRPC and HTTP that keep the requests they receive.

::

    with otlp_collector() as collector:
        ...                                    # send to collector.http_url or collector.grpc_url
        assert collector.wait(lambda got: len(got.spans) >= 10, timeout_s=5)
        collector.received().spans             # records of the shop

Over both protocols, ``collector.fail(times=2)`` answers 503 or UNAVAILABLE to the next two requests,
``collector.fail(http_status=429, retry_after="1")`` another status, ``collector.slow(seconds)`` answers late,
``collector.reject(records, "why")`` answers with a partial success, and ``collector.heal()`` ends all of
these. Requests answered with a failure are not kept.
"""

from __future__ import annotations

import gzip
import sys
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

from pytest_otel_diag.shop.realtime import packages
from pytest_otel_diag.shop.records import Batch
from tests.support.otlp_decoding import decode

_PATHS = {"/v1/traces": "traces", "/v1/logs": "logs", "/v1/metrics": "metrics"}
_REJECTED = {"traces": "rejected_spans", "logs": "rejected_log_records", "metrics": "rejected_data_points"}


@dataclass(frozen=True)
class Received:
    """A request that was kept. ``encoding`` is gzip or empty, ``headers`` have names in lower case."""

    signal: str
    protocol: str
    headers: Mapping[str, str]
    encoding: str
    size_bytes: int
    message: Any = field(repr=False)


@dataclass(frozen=True)
class _Conduct:
    failures: int = 0
    http_status: int = 503
    grpc_code: str = "UNAVAILABLE"
    retry_after: str = ""
    trailers: tuple[tuple[str, bytes], ...] = ()
    delay_s: float = 0.0
    rejected: int = 0
    reason: str = ""


class OtlpCollector:
    """The requests that a started collector has received, and methods that make it misbehave."""

    def __init__(self) -> None:
        self.http_url = ""
        self.grpc_url = ""
        self.attempts = 0
        self._changed = threading.Condition()
        self._requests: list[Received] = []
        self._conduct = _Conduct()

    @property
    def requests(self) -> list[Received]:
        """The requests kept so far, in the order they came."""
        with self._changed:
            return list(self._requests)

    def received(self) -> Batch:
        """Return the records of all requests kept so far."""
        merged = Batch()
        for request in self.requests:
            batch = decode(request.signal, request.message)
            merged.spans += batch.spans
            merged.logs += batch.logs
            merged.metrics += batch.metrics
        return merged

    def wait(self, condition: Callable[[Batch], bool], timeout_s: float) -> bool:
        """Return whether *condition* holds for what was received, at most *timeout_s* seconds from now."""
        deadline = time.monotonic() + timeout_s
        while not condition(self.received()):
            with self._changed:
                if not self._changed.wait(max(0.0, deadline - time.monotonic())):
                    return condition(self.received())
        return True

    def wait_for_attempts(self, number: int, timeout_s: float) -> bool:
        """Return whether *number* requests have come, kept or not, within *timeout_s* seconds."""
        with self._changed:
            return self._changed.wait_for(lambda: self.attempts >= number, timeout_s)

    def fail(
        self,
        times: int = 1_000_000,
        *,
        http_status: int = 503,
        grpc_code: str = "UNAVAILABLE",
        retry_after: str = "",
        trailers: tuple[tuple[str, bytes], ...] = (),
    ) -> None:
        """Answer the next *times* requests with a failure; *trailers* go with the gRPC one."""
        self._behave(
            failures=times,
            http_status=http_status,
            grpc_code=grpc_code,
            retry_after=retry_after,
            trailers=trailers,
        )

    def slow(self, seconds: float) -> None:
        """Answer every request only after *seconds*."""
        self._behave(delay_s=seconds)

    def reject(self, records: int, reason: str) -> None:
        """Accept requests, and report *records* of each as rejected (0: only a warning)."""
        self._behave(rejected=records, reason=reason)

    def heal(self) -> None:
        """Accept everything again."""
        with self._changed:
            self._conduct = _Conduct()

    def _behave(self, **changes: Any) -> None:
        with self._changed:
            self._conduct = replace(self._conduct, **changes)

    def _arrived(self) -> _Conduct:
        """Count a request, delay it as configured, and return how to answer it."""
        with self._changed:
            self.attempts += 1
            conduct = self._conduct
            if conduct.failures:
                self._conduct = replace(conduct, failures=conduct.failures - 1)
            self._changed.notify_all()
        time.sleep(conduct.delay_s)
        return conduct

    def _keep(self, request: Received) -> None:
        with self._changed:
            self._requests.append(request)
            self._changed.notify_all()


@contextmanager
def otlp_collector() -> Iterator[OtlpCollector]:
    """Start a collector on free ports of this machine; it stops at the end of the block."""
    collector = OtlpCollector()
    http = _HttpServer(("127.0.0.1", 0), _http_handler(collector))
    grpc = packages.grpc().server(ThreadPoolExecutor(4, thread_name_prefix="otlp-collector"))
    _add_services(grpc, collector)
    collector.http_url = f"http://127.0.0.1:{http.server_address[1]}"
    collector.grpc_url = f"http://127.0.0.1:{grpc.add_insecure_port('127.0.0.1:0')}"
    serving = threading.Thread(target=http.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True)
    serving.start()
    grpc.start()
    try:
        yield collector
    finally:
        collector.heal()
        grpc.stop(grace=None).wait()
        http.shutdown()
        http.server_close()
        serving.join()


def _messages(signal: str) -> tuple[Any, Any]:
    modules = packages.otlp()
    named = {"traces": "Trace", "logs": "Logs", "metrics": "Metrics"}[signal]
    module = getattr(modules, f"{signal}_request")
    return getattr(module, f"Export{named}ServiceRequest"), getattr(module, f"Export{named}ServiceResponse")


def _answer(signal: str, conduct: _Conduct) -> Any:
    answer = _messages(signal)[1]()
    if conduct.rejected or conduct.reason:
        setattr(answer.partial_success, _REJECTED[signal], conduct.rejected)
        answer.partial_success.error_message = conduct.reason
    return answer


class _HttpServer(ThreadingHTTPServer):
    daemon_threads = True

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Ignore clients that disconnect before a slow response."""
        if not isinstance(sys.exc_info()[1], ConnectionError):
            super().handle_error(request, client_address)


def _http_handler(collector: OtlpCollector) -> type[BaseHTTPRequestHandler]:
    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_POST(self) -> None:
            headers = {name.lower(): value for name, value in self.headers.items()}
            body = self.rfile.read(int(headers.get("content-length", "0")))
            conduct = collector._arrived()
            signal = _PATHS.get(self.path)
            if signal is None or headers.get("content-type") != "application/x-protobuf":
                self._reply(404 if signal is None else 415, b"POST protobuf to /v1/traces, logs, metrics")
            elif conduct.failures:
                self._reply(conduct.http_status, b"failing as requested", conduct.retry_after)
            else:
                encoding = headers.get("content-encoding", "")
                plain = gzip.decompress(body) if encoding == "gzip" else body
                message = _messages(signal)[0].FromString(plain)
                collector._keep(Received(signal, "http/protobuf", headers, encoding, len(body), message))
                self._reply(200, _answer(signal, conduct).SerializeToString())

        def _reply(self, status: int, body: bytes, retry_after: str = "") -> None:
            self.send_response(status)
            self.send_header("content-type", "application/x-protobuf" if status == 200 else "text/plain")
            self.send_header("content-length", str(len(body)))
            if retry_after:
                self.send_header("retry-after", retry_after)
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, format: str, *args: object) -> None:
            """Log nothing."""

    return Handler


def _add_services(server: Any, collector: OtlpCollector) -> None:
    grpc = packages.grpc()
    names = {"traces": "trace.v1.Trace", "logs": "logs.v1.Logs", "metrics": "metrics.v1.Metrics"}
    for signal, name in names.items():
        handler = grpc.unary_unary_rpc_method_handler(
            _export(collector, signal),
            request_deserializer=lambda body, signal=signal: (
                _messages(signal)[0].FromString(body),
                len(body),
            ),
            response_serializer=_messages(signal)[1].SerializeToString,
        )
        service = f"opentelemetry.proto.collector.{name}Service"
        server.add_generic_rpc_handlers([grpc.method_handlers_generic_handler(service, {"Export": handler})])


def _export(collector: OtlpCollector, signal: str) -> Callable[[Any, Any], Any]:
    def export(request: tuple[Any, int], context: Any) -> Any:
        conduct = collector._arrived()
        headers = {name: str(value) for name, value in context.invocation_metadata()}
        if conduct.failures:
            context.set_trailing_metadata(conduct.trailers)
            context.abort(packages.grpc().StatusCode[conduct.grpc_code], "failing as requested")
        message, size = request
        encoding = headers.get("grpc-encoding", "")
        collector._keep(Received(signal, "grpc", headers, encoding, size, message))
        return _answer(signal, conduct)

    return export
