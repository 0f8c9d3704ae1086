"""What a service is, as data: what the services package writes and the kernel runs.

A behaviour is a generator function ``behaviour(call, request)`` run with ``yield from``; what it returns
is the reply. It runs in the callee's worker, in the one SimPy process of the whole request.
"""

from __future__ import annotations

from collections.abc import Callable, Generator, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, TypeAlias

from simpy import Event

from pytest_otel_diag.shop.emission.recorder import ExportPeriods
from pytest_otel_diag.shop.flagging import Evaluation, FlagScalar
from pytest_otel_diag.shop.kernel.failures import RpcFailure
from pytest_otel_diag.shop.kernel.heap import HeapSpec
from pytest_otel_diag.shop.kernel.shapes import EventShape, SpanShape
from pytest_otel_diag.shop.kernel.unrest import NO_TAIL, Tail

if TYPE_CHECKING:
    from pytest_otel_diag.shop.kernel.broker import Message
    from pytest_otel_diag.shop.kernel.call import Call
    from pytest_otel_diag.shop.kernel.instance import Instance

Steps: TypeAlias = Generator[Event, Any, Any]
Behaviour: TypeAlias = "Callable[[Call, Any], Steps]"
Loop: TypeAlias = "Callable[[Instance], Steps]"
ClientShapes: TypeAlias = Callable[[str, str], SpanShape | None]


@dataclass(frozen=True, eq=False)
class Operation:
    """One thing a service answers.

    ``server`` is its server span (None: not instrumented, such as a database). ``allocates`` are bytes of
    garbage that one request leaves on the heap.
    """

    behaviour: Behaviour
    server: SpanShape | None = None
    allocates: int = 200_000


@dataclass(frozen=True, eq=False)
class FlagClient:
    """How the SDK of a service asks for flags and what it leaves on the current span.

    ``event(key, evaluation)`` is the span event of the OpenTelemetry hook (None: no hook). With
    ``remote``, every evaluation is a call of that service's operation (a provider without cache), whose
    client span comes from the service's ``client`` shapes; ``operation(default)`` names the method.
    A remote that cannot be reached answers the default.
    """

    event: Callable[[str, Evaluation], EventShape] | None = None
    remote: str = ""
    operation: Callable[[FlagScalar], str] = lambda _: "resolve"


@dataclass(frozen=True, eq=False)
class ConsumerSpec:
    """A consumer of a topic, run by every instance of the service.

    ``behaviour(call, message)`` runs once a message inside a span of shape ``process`` (None: no span of
    its own; the behaviour may make one). ``receive`` is the span of a poll that returned messages.
    ``linked``: each processing is a trace of its own (or a child of the receive span) with a link to the
    producer; otherwise it is a child of the producer's span. A batch that takes longer than
    ``max_poll_interval_s`` gets the consumer thrown out of its group: its offsets are not committed and
    the messages come again. ``receive_s`` is the CPU time of a poll that returned something, ``overhead_s``
    that of the library before a message's behaviour and, half of it, after; ``allocates`` are bytes of
    garbage of one message.
    """

    topic: str
    group: str
    behaviour: Callable[[Call, Message], Steps]
    process: SpanShape | None = None
    receive: SpanShape | None = None
    linked: bool = True
    max_records: int = 500
    max_poll_interval_s: float = 300.0
    fetch_wait_s: float = 0.02
    receive_s: float = 0.0
    overhead_s: float = 0.0
    allocates: int = 200_000
    process_attributes: Callable[[Message], Mapping[str, str | int]] | None = None


def no_client_spans(target: str, operation: str) -> SpanShape | None:  # noqa: ARG001 - the signature
    """Return None: the service's calls are not instrumented."""
    return None


def no_state(instance: Instance) -> Any:  # noqa: ARG001 - the signature
    """Return None: the service keeps nothing in memory."""
    return None


def connection_failure(failure: RpcFailure) -> RpcFailure:
    """Return the failure as it is; a service may put its client library's words in."""
    return failure


@dataclass(frozen=True, eq=False)
class ServiceSpec:
    """A service.

    Load: ``workers`` requests at a time per instance (FIFO queue of at most ``queue_limit``),
    ``cpu_limit`` in cores, ``heap`` with its limits, ``cpu_noise`` the coefficient of variation of CPU
    times, ``tail`` the rare slow ones, ``idle_cpu`` the cores used while idle. Life: ``replicas``,
    ``startup_s`` until a new instance serves (``warmup`` times slower at first, fading over ``warmup_s``),
    ``restart_s`` from a kill to the new process. Telemetry: ``resource`` attributes beside service.name and
    service.instance.id;
    ``client(target, operation)`` is the span of an outgoing call (asked once each and kept), ``rephrase``
    puts connection failures in the words of the client library; ``export`` periods; ``metrics(instance)``
    registers callbacks on ``instance.meter`` (its runtime's are there already); ``contained``: it runs in
    a container that the collector looks at (a browser does not). ``state(instance)`` makes what dies with
    a restart; ``loops`` run in every instance.
    """

    name: str
    operations: Mapping[str, Operation] = field(default_factory=dict)
    resource: Mapping[str, str] = field(default_factory=dict)
    host: str = "node-1"
    replicas: int = 1
    workers: int = 64
    queue_limit: int = 1000
    queue_in_span: bool = False
    cpu_limit: float | None = None
    heap: HeapSpec = field(default_factory=HeapSpec)
    cpu_noise: float = 0.35
    tail: Tail = NO_TAIL
    idle_cpu: float = 0.002
    startup_s: float = 4.0
    warmup: float = 1.0
    warmup_s: float = 20.0
    restart_s: float = 2.0
    export: ExportPeriods = field(default_factory=ExportPeriods)
    client: ClientShapes = no_client_spans
    rephrase: Callable[[RpcFailure], RpcFailure] = connection_failure
    flags: FlagClient = field(default_factory=FlagClient)
    state: Callable[[Instance], Any] = no_state
    loops: tuple[Loop, ...] = ()
    consumers: tuple[ConsumerSpec, ...] = ()
    metrics: Callable[[Instance], None] | None = None
    contained: bool = True
