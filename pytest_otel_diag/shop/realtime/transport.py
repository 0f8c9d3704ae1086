"""Sends one request to a collector over gRPC or HTTP and classifies the outcome.

Retryable failures follow the OTLP specification: over HTTP the statuses 429, 502, 503 and 504 and failed
connections; over gRPC CANCELLED, DEADLINE_EXCEEDED, ABORTED, OUT_OF_RANGE, UNAVAILABLE and DATA_LOSS, and
RESOURCE_EXHAUSTED with RetryInfo. A retry may repeat an accepted request: OTLP delivers at least once.
"""

from __future__ import annotations

import gzip
from collections.abc import Callable
from dataclasses import dataclass
from email.utils import parsedate_to_datetime
from typing import Any, Protocol

from pytest_otel_diag.shop.realtime import packages
from pytest_otel_diag.shop.realtime.encode import SIGNALS, ExportRequest
from pytest_otel_diag.shop.realtime.endpoint import OtlpEndpoint

RETRIED_HTTP = frozenset({429, 502, 503, 504})
RETRIED_GRPC = frozenset(
    {"CANCELLED", "DEADLINE_EXCEEDED", "ABORTED", "OUT_OF_RANGE", "UNAVAILABLE", "DATA_LOSS"}
)
_LONGEST_REASON = 200


@dataclass(frozen=True, slots=True)
class Accepted:
    """The collector accepted the request, except for ``rejected`` records; ``message`` is its reason."""

    rejected: int = 0
    message: str = ""


@dataclass(frozen=True, slots=True)
class Retryable:
    """The request may be retried, after ``after_s`` seconds if the collector sent a delay."""

    reason: str
    after_s: float | None = None


@dataclass(frozen=True, slots=True)
class Rejected:
    """A retry would fail the same way."""

    reason: str


Outcome = Accepted | Retryable | Rejected


class Transport(Protocol):
    """Sends requests sequentially, from one thread."""

    def send(self, request: ExportRequest, timeout_s: float | None = None) -> Outcome:
        """Send one request within *timeout_s* or the endpoint's timeout, whichever is shorter.

        Failures of the network and the collector are returned, never raised.
        """
        ...

    def close(self) -> None:
        """Close the connection."""
        ...


def open_transport(endpoint: OtlpEndpoint, *, now_s: Callable[[], float]) -> Transport:
    """Return the transport of the endpoint's protocol; it connects on first use.

    *now_s* is the Unix time in seconds, for dates in ``Retry-After``.
    """
    return GrpcTransport(endpoint) if endpoint.protocol == "grpc" else HttpTransport(endpoint, now_s=now_s)


class HttpTransport:
    """OTLP over HTTP with protobuf bodies."""

    def __init__(self, endpoint: OtlpEndpoint, *, now_s: Callable[[], float]) -> None:
        self._httpx = packages.httpx()
        self._endpoint = endpoint
        self._now_s = now_s
        headers = {**endpoint.headers, "content-type": "application/x-protobuf"}
        if endpoint.compression == "gzip":
            headers["content-encoding"] = "gzip"
        # trust_env off: only config reads the environment, which includes proxy settings.
        self._client = self._httpx.Client(headers=headers, timeout=endpoint.timeout_s, trust_env=False)
        modules = packages.otlp()
        self._answers = {
            "traces": modules.traces_request.ExportTraceServiceResponse,
            "logs": modules.logs_request.ExportLogsServiceResponse,
            "metrics": modules.metrics_request.ExportMetricsServiceResponse,
        }

    def send(self, request: ExportRequest, timeout_s: float | None = None) -> Outcome:
        """POST the request to its signal's path."""
        body = request.message.SerializeToString()
        if self._endpoint.compression == "gzip":
            body = gzip.compress(body, compresslevel=6, mtime=0)
        allowed_s = _shorter(self._endpoint.timeout_s, timeout_s)
        url = self._endpoint.path(request.signal)
        try:
            response = self._client.post(url, content=body, timeout=allowed_s)
        except self._httpx.HTTPError as error:
            return Retryable(f"{type(error).__name__}: {error}"[:_LONGEST_REASON])
        if response.is_success:
            return self._accepted(request, response.content)
        reason = f"HTTP {response.status_code} from {url}: {_plain(response.text)}"
        if response.status_code in RETRIED_HTTP:
            return Retryable(reason, retry_after_s(response.headers.get("retry-after"), self._now_s()))
        return Rejected(reason)

    def close(self) -> None:
        """Close the connections."""
        self._client.close()

    def _accepted(self, request: ExportRequest, content: bytes) -> Outcome:
        answer = self._answers[request.signal]()
        try:
            answer.ParseFromString(content)
        except packages.decode_error() as error:
            return Rejected(f"the answer to {request.signal} is not OTLP: {error}")
        return _partial(request, answer)


class GrpcTransport:
    """OTLP over gRPC."""

    def __init__(self, endpoint: OtlpEndpoint) -> None:
        self._grpc = packages.grpc()
        self._endpoint = endpoint
        self._metadata = tuple(endpoint.headers.items())
        gzipped = endpoint.compression == "gzip"
        self._compression = self._grpc.Compression.Gzip if gzipped else self._grpc.Compression.NoCompression
        # Short back-off in the channel: the exporter has a longer one.
        options = (("grpc.max_reconnect_backoff_ms", 5_000), ("grpc.enable_http_proxy", 0))
        if endpoint.secure:
            credentials = self._grpc.ssl_channel_credentials()
            self._channel = self._grpc.secure_channel(endpoint.authority, credentials, options)
        else:
            self._channel = self._grpc.insecure_channel(endpoint.authority, options)
        traces, logs, metrics = packages.otlp_services()
        stubs = (
            traces.TraceServiceStub(self._channel),
            logs.LogsServiceStub(self._channel),
            metrics.MetricsServiceStub(self._channel),
        )
        self._calls = {signal: stub.Export for signal, stub in zip(SIGNALS, stubs, strict=True)}

    def send(self, request: ExportRequest, timeout_s: float | None = None) -> Outcome:
        """Call the signal's ``Export``."""
        try:
            answer = self._calls[request.signal](
                request.message,
                timeout=_shorter(self._endpoint.timeout_s, timeout_s),
                metadata=self._metadata,
                compression=self._compression,
            )
        except self._grpc.RpcError as error:
            return self._failed(error)
        return _partial(request, answer)

    def close(self) -> None:
        """Close the channel."""
        self._channel.close()

    def _failed(self, error: Any) -> Outcome:
        code = error.code().name
        reason = f"gRPC {code} from {self._endpoint.authority}: {_plain(error.details() or '')}"
        if code in RETRIED_GRPC or (code == "RESOURCE_EXHAUSTED" and _says_when(error)):
            return Retryable(reason)
        return Rejected(reason)


def retry_after_s(header: str | None, now_s: float) -> float | None:
    """Return the seconds of a ``Retry-After`` header (a number or a date), None for anything else."""
    if not header:
        return None
    if header.strip().isdigit():
        return float(header)
    try:
        return max(0.0, parsedate_to_datetime(header).timestamp() - now_s)
    except ValueError:
        return None


def _says_when(error: Any) -> bool:
    """Return whether the status carries google.rpc.RetryInfo; its delay is ignored."""
    trailers = dict(error.trailing_metadata() or ())
    return b"google.rpc.RetryInfo" in trailers.get("grpc-status-details-bin", b"")


def _partial(request: ExportRequest, answer: Any) -> Accepted:
    partial = answer.partial_success
    fields = {
        "traces": "rejected_spans",
        "logs": "rejected_log_records",
        "metrics": "rejected_data_points",
    }
    return Accepted(getattr(partial, fields[request.signal]), partial.error_message)


def _shorter(usual_s: float, given_s: float | None) -> float:
    return usual_s if given_s is None else max(0.001, min(usual_s, given_s))


def _plain(text: str) -> str:
    return " ".join(text.split())[:_LONGEST_REASON]
