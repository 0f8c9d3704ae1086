"""The simulation kernel of the shop, which simulated services are built on.

Behaviours use :class:`Call`; a topology is a :class:`World` with a :class:`ServiceSpec` per service. Times
are virtual seconds since the start; one SimPy process runs a request through all services.
"""

from pytest_otel_diag.shop.kernel.call import Call
from pytest_otel_diag.shop.kernel.instance import Instance
from pytest_otel_diag.shop.kernel.process_spec import FlagClient
from pytest_otel_diag.shop.kernel.resources.broker import Broker, ConsumerGroup, Message, Topic
from pytest_otel_diag.shop.kernel.resources.counters import Counters
from pytest_otel_diag.shop.kernel.resources.failures import RpcFailure
from pytest_otel_diag.shop.kernel.resources.heap import (
    DOTNET,
    GO,
    JVM,
    MANUAL,
    MB,
    NODE,
    PYTHON,
    RUBY,
    GcPolicy,
    Heap,
    HeapSpec,
)
from pytest_otel_diag.shop.kernel.resources.hosts import Host, Network
from pytest_otel_diag.shop.kernel.resources.ids import uuid4
from pytest_otel_diag.shop.kernel.resources.noise import NO_TAIL, Noise, Tail
from pytest_otel_diag.shop.kernel.resources.pool import Pool
from pytest_otel_diag.shop.kernel.resources.propagation import SpanContext
from pytest_otel_diag.shop.kernel.service import Service
from pytest_otel_diag.shop.kernel.service_spec import (
    Behaviour,
    ConsumerSpec,
    Loop,
    Operation,
    ServiceSpec,
    Steps,
)
from pytest_otel_diag.shop.kernel.span import Span
from pytest_otel_diag.shop.kernel.span_shape import (
    SpanOutcome,
    SpanShape,
    described,
    errored,
    exception_event,
)
from pytest_otel_diag.shop.kernel.world import World

__all__ = [
    "DOTNET",
    "GO",
    "JVM",
    "MANUAL",
    "MB",
    "NODE",
    "NO_TAIL",
    "PYTHON",
    "RUBY",
    "Behaviour",
    "Broker",
    "Call",
    "ConsumerGroup",
    "ConsumerSpec",
    "Counters",
    "FlagClient",
    "GcPolicy",
    "Heap",
    "HeapSpec",
    "Host",
    "Instance",
    "Loop",
    "Message",
    "Network",
    "Noise",
    "Operation",
    "Pool",
    "RpcFailure",
    "Service",
    "ServiceSpec",
    "Span",
    "SpanContext",
    "SpanOutcome",
    "SpanShape",
    "Steps",
    "Tail",
    "Topic",
    "World",
    "described",
    "errored",
    "exception_event",
    "uuid4",
]  # fmt: skip
