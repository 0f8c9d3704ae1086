"""Imports of grpc, httpx and the protobuf classes of OTLP and flagd: the ``otlp`` extra.

They are imported on first use. None of them is typed, so all are ``Any``.
"""

from __future__ import annotations

from functools import cache
from typing import Any, NamedTuple

from pytest_otel_diag.extras import require

_OTLP = "opentelemetry.proto"
_FLAGD = "openfeature.schemas.protobuf.flagd.evaluation.v1"


class Otlp(NamedTuple):
    """Modules of generated code: records, requests, and services (gRPC)."""

    common: Any
    resource: Any
    trace: Any
    logs: Any
    metrics: Any
    traces_request: Any
    logs_request: Any
    metrics_request: Any


def load(module: str) -> Any:
    """Return the module; raises ConfigurationError that names the extra when it is not installed."""
    return require(module, "otlp", "the simulated shop in real time")


def grpc() -> Any:
    """Return the module ``grpc``."""
    return load("grpc")


def httpx() -> Any:
    """Return the module ``httpx``."""
    return load("httpx")


@cache
def otlp() -> Otlp:
    """Return the protobuf classes of OTLP."""
    return Otlp(
        common=load(f"{_OTLP}.common.v1.common_pb2"),
        resource=load(f"{_OTLP}.resource.v1.resource_pb2"),
        trace=load(f"{_OTLP}.trace.v1.trace_pb2"),
        logs=load(f"{_OTLP}.logs.v1.logs_pb2"),
        metrics=load(f"{_OTLP}.metrics.v1.metrics_pb2"),
        traces_request=load(f"{_OTLP}.collector.trace.v1.trace_service_pb2"),
        logs_request=load(f"{_OTLP}.collector.logs.v1.logs_service_pb2"),
        metrics_request=load(f"{_OTLP}.collector.metrics.v1.metrics_service_pb2"),
    )


def otlp_services() -> tuple[Any, Any, Any]:
    """Return the generated gRPC services of traces, logs and metrics."""
    return (
        load(f"{_OTLP}.collector.trace.v1.trace_service_pb2_grpc"),
        load(f"{_OTLP}.collector.logs.v1.logs_service_pb2_grpc"),
        load(f"{_OTLP}.collector.metrics.v1.metrics_service_pb2_grpc"),
    )


def flagd_evaluation() -> tuple[Any, Any]:
    """Return flagd's evaluation protocol, version 1: messages, and the gRPC service."""
    return load(f"{_FLAGD}.evaluation_pb2"), load(f"{_FLAGD}.evaluation_pb2_grpc")


def decode_error() -> Any:
    """Return the exception that protobuf raises for bytes it cannot read."""
    return load("google.protobuf.message").DecodeError


def protobuf_structs() -> Any:
    """Return the module of protobuf's ``Struct``, which carries evaluation contexts."""
    return load("google.protobuf.struct_pb2")
