"""Spans and metrics of the demo's instrumentation libraries for RPCs, HTTP requests and flags.

gRPC attributes follow one of two conventions: the older one (``rpc.system``, ``rpc.service``,
``rpc.grpc.status_code``; Java, Node.js and Python in every release, all of 2.x) and the newer one
(``rpc.system.name``, ``rpc.method``, ``rpc.response.status_code``; Go, .NET and C++ of 3.x). Shapes are built
once per caller and operation.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from pytest_otel_diag.shop.emission.instruments import SECONDS_BOUNDS, MetricShape, Series
from pytest_otel_diag.shop.kernel.resources.failures import RpcFailure
from pytest_otel_diag.shop.kernel.span_shape import EventShape, SpanOutcome, SpanShape, exception_event
from pytest_otel_diag.shop.records import Attributes, AttributeValue, Instrument, Scope, SpanKind

GRPC_CODES = {
    "OK": 0,
    "CANCELLED": 1,
    "UNKNOWN": 2,
    "INVALID_ARGUMENT": 3,
    "DEADLINE_EXCEEDED": 4,
    "NOT_FOUND": 5,
    "RESOURCE_EXHAUSTED": 8,
    "FAILED_PRECONDITION": 9,
    "UNIMPLEMENTED": 12,
    "INTERNAL": 13,
    "UNAVAILABLE": 14,
}

# codes that set the server span's status to Error (semantic conventions, gRPC spans)
_SERVER_FAULTS = frozenset({"UNKNOWN", "DEADLINE_EXCEEDED", "UNIMPLEMENTED", "INTERNAL", "UNAVAILABLE"})

Failed = Callable[[RpcFailure], SpanOutcome]


def grpc_number(code: str) -> int:
    """Return the number of a gRPC code; that of UNKNOWN for any other text."""
    return GRPC_CODES.get(code, 2)


def node_message(failure: RpcFailure) -> str:
    """Return the message of @grpc/grpc-js for a failure: ``13 INTERNAL: message``."""
    number = grpc_number(failure.code)
    name = failure.code if failure.code in GRPC_CODES else "UNKNOWN"
    return f"{number} {name}: {failure.message}"


def go_message(failure: RpcFailure) -> str:
    """Return the message of grpc-go for a failure: ``rpc error: code = Internal desc = message``."""
    name = "".join(part.capitalize() for part in failure.code.split("_"))
    return f"rpc error: code = {name} desc = {failure.message}"


def _seconds(name: str, scope: Scope) -> MetricShape:
    return MetricShape(Instrument(name, "histogram", "s"), scope, SECONDS_BOUNDS)


def _milliseconds(name: str, scope: Scope) -> MetricShape:
    return MetricShape(Instrument(name, "histogram", "ms"), scope)


def _rpc_attributes(rpc: str, *, new: bool) -> dict[str, AttributeValue]:
    service, _, method = rpc.partition("/")
    if new:
        return {"rpc.system.name": "grpc", "rpc.method": rpc}
    return {"rpc.system": "grpc", "rpc.service": service, "rpc.method": method}


def _rpc_status(code: str, *, new: bool) -> dict[str, AttributeValue]:
    if new:
        return {"rpc.response.status_code": code}
    return {"rpc.grpc.status_code": grpc_number(code)}


@dataclass(frozen=True)
class Rpc:
    """The gRPC instrumentation of a language; ``modern`` selects release 3.x."""

    language: str
    modern: bool

    @property
    def new(self) -> bool:
        """Whether the library follows the newer RPC conventions."""
        return self.modern and self.language in ("go", "dotnet", "cpp")

    @property
    def scope(self) -> Scope:
        """The instrumentation library."""
        return _RPC_SCOPES[self.language]

    def server(self, rpc: str) -> SpanShape:
        """Return the shape of the server span of ``package.Service/Method``."""
        attributes = _rpc_attributes(rpc, new=self.new) | self._original(rpc)
        if self.language == "python":
            attributes |= {
                "net.peer.ip": "172.18.0.25",
                "net.peer.port": "44720",
                "rpc.user_agent": "grpc-js",
            }
        elif self.language == "java":
            attributes |= {"network.type": "ipv4", "network.peer.address": "172.18.0.25", "server.port": 9555}
        return SpanShape(
            self._span_name(rpc),
            "Server",
            self.scope,
            attributes,
            SpanOutcome(attributes=_rpc_status("OK", new=self.new)),
            self._server_failed,
            duration=self._duration("server"),
            duration_series=self._series(rpc, "OK"),
            failed_series=lambda failure: self._series(rpc, failure.code),
        )

    def client(self, rpc: str, *, host: str = "", port: int = 0) -> SpanShape:
        """Return the shape of the client span of a call to ``host:port``."""
        attributes = _rpc_attributes(rpc, new=self.new) | self._original(rpc)
        if host:
            attributes["server.address"] = host
            attributes["server.port"] = port
        return SpanShape(
            self._span_name(rpc),
            "Client",
            self.scope,
            attributes,
            SpanOutcome(attributes=_rpc_status("OK", new=self.new)),
            self._client_failed,
            duration=self._duration("client"),
            duration_series=self._series(rpc, "OK", host, port),
            failed_series=lambda failure: self._series(rpc, failure.code, host, port),
        )

    def _original(self, rpc: str) -> dict[str, AttributeValue]:
        """Return the name that the SDK gave the span, where the collector of 3.x renames it."""
        prefix = {"nodejs": "grpc.", "python": "/"}.get(self.language, "") if self.modern else ""
        return {"original_span_name": f"{prefix}{rpc}"} if prefix else {}

    def _span_name(self, rpc: str) -> str:
        return f"grpc.{rpc}" if self.language == "nodejs" and not self.modern else rpc

    def _duration(self, side: str) -> MetricShape | None:
        return _RPC_DURATIONS.get((self.language, side, self.new))

    def _series(self, rpc: str, code: str, host: str = "", port: int = 0) -> Series:
        attributes = _rpc_attributes(rpc, new=self.new) | _rpc_status(code, new=self.new)
        if host and self.new:
            attributes |= {"server.address": host, "server.port": port}
        if self.new and code != "OK":
            attributes["error.type"] = code
        return tuple(attributes.items())

    def _server_failed(self, failure: RpcFailure) -> SpanOutcome:
        attributes = _rpc_status(failure.code, new=self.new)
        if self.language == "java":
            return SpanOutcome("Error", "", attributes)
        if self.language == "nodejs":
            error = {"grpc.error_name": "Error", "grpc.error_message": failure.message}
            if self.modern:  # a span that failed ends without the code
                return SpanOutcome("Error", failure.message, {**error, "error.type": "Error"})
            return SpanOutcome("Error", failure.message, attributes | error)
        if self.language == "python":
            return SpanOutcome("Error", f"{failure.code}:{failure.message}", attributes)
        if failure.code not in _SERVER_FAULTS:
            return SpanOutcome("Unset", "", attributes)
        return SpanOutcome("Error", failure.message, attributes)

    def _client_failed(self, failure: RpcFailure) -> SpanOutcome:
        attributes = _rpc_status(failure.code, new=self.new)
        if self.language == "nodejs":
            text = node_message(failure)
            attributes |= {"grpc.error_name": "Error", "grpc.error_message": text}
            return SpanOutcome("Error", "" if self.modern else text, attributes)
        if self.language == "python":
            event = exception_event("grpc._channel._InactiveRpcError", failure.message)
            return SpanOutcome("Error", f"StatusCode.{failure.code}: {failure.message}", attributes, (event,))
        return SpanOutcome("Error", failure.message, attributes)


_RPC_SCOPES = {
    "go": Scope("go.opentelemetry.io/contrib/instrumentation/google.golang.org/grpc/otelgrpc", "0.64.0"),
    "java": Scope("io.opentelemetry.grpc-1.6", "2.20.1-alpha"),
    "nodejs": Scope("@opentelemetry/instrumentation-grpc", "0.208.0"),
    "python": Scope("opentelemetry.instrumentation.grpc", "0.60b0"),
    "dotnet": Scope("Microsoft.AspNetCore", ""),
    "cpp": Scope("currency", ""),
}

_RPC_DURATIONS = {
    ("java", "server", False): _milliseconds("rpc.server.duration", _RPC_SCOPES["java"]),
    ("go", "server", False): _milliseconds("rpc.server.duration", _RPC_SCOPES["go"]),
    ("go", "client", False): _milliseconds("rpc.client.duration", _RPC_SCOPES["go"]),
    ("go", "server", True): _seconds("rpc.server.call.duration", _RPC_SCOPES["go"]),
    ("go", "client", True): _seconds("rpc.client.call.duration", _RPC_SCOPES["go"]),
}


def http_error(failure: RpcFailure) -> int:
    """Return the HTTP status of a failure, 0 without a response."""
    return int(failure.code) if failure.code.isdigit() else 0


@dataclass(frozen=True)
class Http:
    """An HTTP instrumentation with the stable conventions; ``metric`` adds the duration histogram."""

    scope: Scope
    host: str = ""
    port: int = 0
    metric: bool = False

    def server(
        self, method: str, route: str, *, name: str = "", extra: Attributes | None = None
    ) -> SpanShape:
        """Return the shape of a server span ``METHOD route`` (or another name)."""
        attributes: dict[str, AttributeValue] = {
            "http.request.method": method,
            "url.scheme": "http",
            "http.route": route,
            "server.address": self.host,
            "server.port": self.port,
        }
        if extra:
            attributes |= extra
        series = (("http.request.method", method), ("http.route", route), ("url.scheme", "http"))
        return SpanShape(
            name or f"{method} {route}",
            "Server",
            self.scope,
            attributes,
            SpanOutcome(attributes={"http.response.status_code": 200}),
            _http_server_failed,
            duration=_seconds("http.server.request.duration", self.scope) if self.metric else None,
            duration_series=(*series, ("http.response.status_code", 200)),
            failed_series=lambda failure: (
                *series,
                ("http.response.status_code", http_error(failure) or 500),
            ),
        )

    def client(self, method: str, url: str, *, name: str = "", kind: SpanKind = "Client") -> SpanShape:
        """Return the shape of a client span for one URL."""
        host, _, port = url.split("/")[2].partition(":")
        attributes: dict[str, AttributeValue] = {
            "http.request.method": method,
            "url.full": url,
            "server.address": host,
            "server.port": int(port or 80),
        }
        series: Series = (
            ("http.request.method", method),
            ("server.address", host),
            ("server.port", int(port or 80)),
        )
        return SpanShape(
            name or method,
            kind,
            self.scope,
            attributes,
            SpanOutcome(attributes={"http.response.status_code": 200}),
            _http_client_failed,
            duration=_seconds("http.client.request.duration", self.scope) if self.metric else None,
            duration_series=(*series, ("http.response.status_code", 200)),
            failed_series=lambda failure: (
                *series,
                ("http.response.status_code", http_error(failure)),
                ("error.type", str(http_error(failure) or failure.code)),
            ),
        )


def _http_server_failed(failure: RpcFailure) -> SpanOutcome:
    status = http_error(failure) or 500
    if status < 500:
        return SpanOutcome("Unset", "", {"http.response.status_code": status})
    return SpanOutcome("Error", "", {"http.response.status_code": status, "error.type": str(status)})


def _http_client_failed(failure: RpcFailure) -> SpanOutcome:
    status = http_error(failure)
    if status:
        return SpanOutcome("Error", "", {"http.response.status_code": status, "error.type": str(status)})
    return SpanOutcome("Error", failure.message, {"error.type": failure.code}, ())


def flag_event(*, modern: bool) -> Callable[..., EventShape]:
    """Return the maker of the span events that OpenFeature's tracing hook records.

    Hooks of 3.x follow the conventions of evaluation events, hooks of 2.x the older ones.
    """
    made: dict[tuple[str, str, AttributeValue], EventShape] = {}

    def event(key: str, evaluation: tuple[AttributeValue, str, str]) -> EventShape:
        value, variant, reason = evaluation
        found = made.get((key, variant, reason))
        if found is None:
            found = made[key, variant, reason] = (
                ("feature_flag.evaluation", _new_flag(key, value, variant, reason))
                if modern
                else ("feature_flag", _old_flag(key, value, variant))
            )
        return found

    return event


def _new_flag(key: str, value: AttributeValue, variant: str, reason: str) -> Attributes:
    attributes: dict[str, AttributeValue] = {
        "feature_flag.key": key,
        "feature_flag.provider.name": "flagd",
        "feature_flag.result.reason": reason.lower(),
    }
    if variant:
        attributes["feature_flag.result.variant"] = variant
    else:
        attributes["feature_flag.result.value"] = value
    return attributes


def _old_flag(key: str, value: AttributeValue, variant: str) -> Attributes:
    return {
        "feature_flag.key": key,
        "feature_flag.provider_name": "flagd",
        "feature_flag.variant": variant or str(value),
    }
