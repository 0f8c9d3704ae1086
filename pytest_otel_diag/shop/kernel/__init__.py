"""The simulation kernel of the shop: what every simulated service is made of.

Behaviours use :class:`Call`; topologies use :class:`World` and :class:`ServiceSpec`. Everything is virtual
time in seconds from the world's start; one SimPy process carries a whole request through all services.
"""

from pytest_otel_diag.shop.kernel.broker import Broker, Group, Message, Topic
from pytest_otel_diag.shop.kernel.call import Call
from pytest_otel_diag.shop.kernel.failures import RpcFailure
from pytest_otel_diag.shop.kernel.heap import (
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
from pytest_otel_diag.shop.kernel.identity import uuid4
from pytest_otel_diag.shop.kernel.instance import Instance
from pytest_otel_diag.shop.kernel.pool import Pool
from pytest_otel_diag.shop.kernel.service import Service
from pytest_otel_diag.shop.kernel.shapes import Outcome, SpanShape, described, errored, exception_event
from pytest_otel_diag.shop.kernel.span import Span
from pytest_otel_diag.shop.kernel.specs import (
    Behaviour,
    ConsumerSpec,
    FlagClient,
    Loop,
    Operation,
    ServiceSpec,
    Steps,
)
from pytest_otel_diag.shop.kernel.unrest import NO_TAIL, Noise, Tail
from pytest_otel_diag.shop.kernel.world import Counters, Host, Network, World

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
    "ConsumerSpec",
    "Counters",
    "FlagClient",
    "GcPolicy",
    "Group",
    "Heap",
    "HeapSpec",
    "Host",
    "Instance",
    "Loop",
    "Message",
    "Network",
    "Noise",
    "Operation",
    "Outcome",
    "Pool",
    "RpcFailure",
    "Service",
    "ServiceSpec",
    "Span",
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
