"""Specification of a process: its resources, its SDK and its client libraries."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import KW_ONLY, dataclass, field
from typing import TypeAlias

from pytest_otel_diag.shop.emission.recorder import ExportPeriods
from pytest_otel_diag.shop.flag_provider import Evaluation, FlagScalar
from pytest_otel_diag.shop.kernel.resources.failures import RpcFailure
from pytest_otel_diag.shop.kernel.resources.heap import HeapSpec
from pytest_otel_diag.shop.kernel.resources.noise import NO_TAIL, Tail
from pytest_otel_diag.shop.kernel.span_shape import EventShape, SpanShape

IDENTITY = ("service.instance.id", "host.name")
"""Resource attributes that tell the processes of a service apart."""

ClientShapes: TypeAlias = Callable[[str, str], SpanShape | None]


@dataclass(frozen=True, eq=False)
class FlagClient:
    """How the SDK of a service evaluates flags and what it records on the current span.

    ``event(key, evaluation)`` returns the span event of the OpenTelemetry hook (None: no hook). With
    ``remote``, every evaluation calls that service (a provider without a cache) through
    ``operation(default)``; its client span comes from the service's ``client`` shapes. When the call
    fails, the evaluation returns the default.
    """

    event: Callable[[str, Evaluation], EventShape] | None = None
    remote: str = ""
    operation: Callable[[FlagScalar], str] = lambda _: "resolve"


def no_client_spans(target: str, operation: str) -> SpanShape | None:  # noqa: ARG001 - the signature
    """Return None: the service's calls are not instrumented."""
    return None


def unchanged(failure: RpcFailure) -> RpcFailure:
    """Return the failure unchanged."""
    return failure


@dataclass(frozen=True, eq=False)
class ProcessSpec:
    """The process of a service, without the code that it runs.

    Load: ``workers`` concurrent requests per instance with a FIFO queue of at most ``queue_limit``,
    ``cpu_limit`` in cores, ``heap`` with its limits, ``cpu_noise`` the coefficient of variation of CPU
    times, ``tail`` the rare slow ones, ``idle_cpu`` the cores used while idle, ``warmup`` how many times
    slower a new process is at first; this decays with time constant ``warmup_s``. Telemetry: ``resource``
    attributes beside service.name and those of the process that ``identity`` names;
    ``client(target, operation)`` returns the span of an outgoing call (called once per pair), ``rephrase``
    converts connection failures to the messages of the client library; ``export`` periods; ``flags`` the
    flag SDK.
    """

    name: str
    _: KW_ONLY
    resource: Mapping[str, str] = field(default_factory=dict)
    identity: tuple[str, ...] = IDENTITY
    host: str = "node-1"
    workers: int = 64
    queue_limit: int = 1000
    cpu_limit: float | None = None
    heap: HeapSpec = field(default_factory=HeapSpec)
    cpu_noise: float = 0.35
    tail: Tail = NO_TAIL
    idle_cpu: float = 0.002
    warmup: float = 1.0
    warmup_s: float = 20.0
    export: ExportPeriods = field(default_factory=ExportPeriods)
    client: ClientShapes = no_client_spans
    rephrase: Callable[[RpcFailure], RpcFailure] = unchanged
    flags: FlagClient = field(default_factory=FlagClient)
