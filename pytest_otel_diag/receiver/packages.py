"""Imports the packages of the ``otlp`` extra on first use: gRPC, uvicorn, protobuf and OTLP's messages.

Most of them are not typed, so they are ``Any`` here.
"""

from __future__ import annotations

from functools import cache
from typing import Any, Literal, NamedTuple

from pytest_otel_diag.extras import require

Signal = Literal["traces", "logs", "metrics"]
SIGNALS: tuple[Signal, ...] = ("traces", "logs", "metrics")

_COLLECTOR = "opentelemetry.proto.collector"


class ExportTypes(NamedTuple):
    """Request and response class of a signal's export service, and its gRPC method path."""

    request: Any
    response: Any
    method: str


def load(module: str) -> Any:
    """Import a module; raises ConfigurationError that names the extra when that fails."""
    return require(module, "otlp", "receiving OTLP")


@cache
def services() -> dict[Signal, ExportTypes]:
    """Return the export service of each signal."""
    return {
        "traces": _service("trace", "Trace"),
        "logs": _service("logs", "Logs"),
        "metrics": _service("metrics", "Metrics"),
    }


def _service(package: str, name: str) -> ExportTypes:
    module = load(f"{_COLLECTOR}.{package}.v1.{package}_service_pb2")
    return ExportTypes(
        request=getattr(module, f"Export{name}ServiceRequest"),
        response=getattr(module, f"Export{name}ServiceResponse"),
        method=f"/{_COLLECTOR}.{package}.v1.{name}Service/Export",
    )


def grpc() -> Any:
    """Return the module ``grpc``."""
    return load("grpc")


@cache
def decode_error() -> Any:
    """Return the exception that protobuf raises for bytes it cannot parse."""
    return load("google.protobuf.message").DecodeError


@cache
def json_format() -> Any:
    """Return the module ``google.protobuf.json_format``."""
    return load("google.protobuf.json_format")


def status(code: int, message: str, *, retry_after_s: float | None = None) -> Any:
    """Return a ``google.rpc.Status``, with a RetryInfo detail when *retry_after_s* is given."""
    made = load("google.rpc.status_pb2").Status(code=code, message=message)
    if retry_after_s is not None:
        made.details.add().Pack(retry_info(retry_after_s))
    return made


def retry_info(retry_after_s: float) -> Any:
    """Return a ``google.rpc.RetryInfo``."""
    info = load("google.rpc.error_details_pb2").RetryInfo()
    info.retry_delay.FromNanoseconds(round(retry_after_s * 1e9))
    return info
