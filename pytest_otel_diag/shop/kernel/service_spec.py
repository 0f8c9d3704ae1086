"""Specification of a service as data: the services package writes it and the kernel runs it.

A behaviour is a generator function ``behaviour(call, request)``, run with ``yield from``; its return value
is the reply. It runs in a worker of the callee, within the one SimPy process of the whole request.
"""

from __future__ import annotations

from collections.abc import Callable, Generator, Mapping
from dataclasses import KW_ONLY, dataclass, field
from typing import Any, TypeAlias

from simpy import Event

from pytest_otel_diag.shop.kernel.call import Call
from pytest_otel_diag.shop.kernel.instance import Instance
from pytest_otel_diag.shop.kernel.process_spec import ProcessSpec
from pytest_otel_diag.shop.kernel.resources.broker import Message
from pytest_otel_diag.shop.kernel.span_shape import SpanShape

Steps: TypeAlias = Generator[Event, Any, Any]
Behaviour: TypeAlias = Callable[[Call, Any], Steps]
Loop: TypeAlias = Callable[[Instance], Steps]


@dataclass(frozen=True, eq=False)
class Operation:
    """One operation of a service.

    ``server`` is its server span (None: not instrumented, such as a database). ``allocates`` are the bytes
    of garbage that one request allocates.
    """

    behaviour: Behaviour
    server: SpanShape | None = None
    allocates: int = 200_000


@dataclass(frozen=True, eq=False)
class ConsumerSpec:
    """A consumer of a topic; every instance of the service runs one.

    ``behaviour(call, message)`` runs for each message inside a span of shape ``process`` (None: no span,
    the behaviour may create one). ``receive`` is the span of a poll that returned messages. With
    ``linked``, the processing is a separate trace (or a child of the receive span) with a link to the
    producer; otherwise it is a child of the producer's span. When a batch takes longer than
    ``max_poll_interval_s`` the group removes the consumer: its offsets are not committed and the messages
    are redelivered. ``receive_s`` is the CPU time of a poll that returned messages, ``overhead_s`` that of
    the library before each behaviour and, by half, after it; ``allocates`` are the bytes of garbage of a
    message.
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


def no_state(instance: Instance) -> Any:  # noqa: ARG001 - the signature
    """Return None: the service keeps nothing in memory."""
    return None


@dataclass(frozen=True, eq=False)
class ServiceSpec(ProcessSpec):
    """A service: its process, its operations, and its life cycle.

    Life cycle: ``replicas``, ``startup_s`` until a new instance serves, ``restart_s`` from a kill to the
    new process. ``queue_in_span`` makes server spans include the time in the worker queue.
    ``metrics(instance)`` registers callbacks on ``instance.meter``, in addition to the runtime's metrics.
    ``contained``: the service runs in a container that the collector observes (a browser does not).
    ``state(instance)`` creates the state that a restart loses; ``loops`` run in every instance.
    """

    operations: Mapping[str, Operation] = field(default_factory=dict)
    _: KW_ONLY
    replicas: int = 1
    queue_in_span: bool = False
    startup_s: float = 4.0
    restart_s: float = 2.0
    state: Callable[[Instance], Any] = no_state
    loops: tuple[Loop, ...] = ()
    consumers: tuple[ConsumerSpec, ...] = ()
    metrics: Callable[[Instance], None] | None = None
    contained: bool = True
