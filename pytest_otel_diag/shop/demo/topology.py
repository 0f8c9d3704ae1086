"""Services of the shop with their runtimes and call edges, per release of the demo.

Memory limits come from the demo's compose file. Idle memory, workers and CPU shares have the order of
magnitude that a laptop shows (the tests of the services check figures of a run without faults).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from pytest_otel_diag.shop.demo.releases import DemoRelease

Runtime = Literal[
    "jvm", "go", "dotnet", "nodejs", "cpython", "ruby", "php", "rust", "cpp", "nginx", "envoy", "browser"
]

MB = 1 << 20


@dataclass(frozen=True, slots=True)
class ServicePlan:
    """One service: runtime, number of concurrent workers, memory.

    ``cores`` bounds the CPU of single-threaded runtimes (0: unbounded; the demo sets no CPU limits).
    ``memory_limit`` and ``memory_base`` are bytes (limit 0: none), ``heap`` the maximal bytes of a managed
    heap (0: none), ``start_s`` the seconds from start until it serves. ``most_replicas`` bounds the number
    of replicas that jitter draws.
    """

    name: str
    language: str
    runtime: Runtime
    workers: int
    cores: float = 0.0
    memory_limit: int = 0
    memory_base: int = 50 * MB
    heap: int = 0
    start_s: float = 1.0
    most_replicas: int = 1


_PLANS = (
    ServicePlan("load-generator", "python", "cpython", 1000, memory_limit=1500 * MB, memory_base=180 * MB),
    ServicePlan("frontend-web", "webjs", "browser", 1000, memory_base=300 * MB),
    ServicePlan(
        "frontend-proxy", "cpp", "envoy", 1000, memory_limit=65 * MB, memory_base=28 * MB, start_s=1.5
    ),
    ServicePlan(
        "frontend",
        "nodejs",
        "nodejs",
        1000,
        cores=1.0,
        memory_limit=250 * MB,
        memory_base=120 * MB,
        heap=180 * MB,
        start_s=4.0,
        most_replicas=3,
    ),
    ServicePlan(
        "ad", "java", "jvm", 64, memory_limit=300 * MB, memory_base=155 * MB, heap=200 * MB, start_s=8.0
    ),
    ServicePlan(
        "recommendation",
        "python",
        "cpython",
        10,
        cores=1.0,
        memory_limit=500 * MB,
        memory_base=62 * MB,
        start_s=3.0,
    ),
    ServicePlan(
        "product-catalog",
        "go",
        "go",
        500,
        memory_limit=20 * MB,
        memory_base=11 * MB,
        start_s=0.6,
        most_replicas=3,
    ),
    ServicePlan(
        "cart",
        "dotnet",
        "dotnet",
        64,
        memory_limit=160 * MB,
        memory_base=78 * MB,
        start_s=2.5,
        most_replicas=3,
    ),
    ServicePlan(
        "checkout", "go", "go", 500, memory_limit=20 * MB, memory_base=13 * MB, start_s=0.6, most_replicas=2
    ),
    ServicePlan(
        "currency", "cpp", "cpp", 16, memory_limit=20 * MB, memory_base=9 * MB, start_s=0.4, most_replicas=3
    ),
    ServicePlan(
        "payment",
        "nodejs",
        "nodejs",
        1000,
        cores=1.0,
        memory_limit=120 * MB,
        memory_base=72 * MB,
        heap=90 * MB,
        start_s=2.5,
        most_replicas=2,
    ),
    ServicePlan(
        "shipping",
        "rust",
        "rust",
        256,
        memory_limit=20 * MB,
        memory_base=6 * MB,
        start_s=0.3,
        most_replicas=2,
    ),
    ServicePlan(
        "quote", "php", "php", 32, memory_limit=40 * MB, memory_base=26 * MB, start_s=1.0, most_replicas=2
    ),
    ServicePlan(
        "email", "ruby", "ruby", 5, cores=1.0, memory_limit=100 * MB, memory_base=44 * MB, start_s=4.0
    ),
    ServicePlan(
        "image-provider", "nginx", "nginx", 1000, memory_limit=50 * MB, memory_base=12 * MB, start_s=0.5
    ),
    ServicePlan("flagd", "go", "go", 500, memory_limit=75 * MB, memory_base=32 * MB, start_s=0.5),
    ServicePlan("accounting", "dotnet", "dotnet", 1, memory_limit=120 * MB, memory_base=92 * MB, start_s=3.0),
    ServicePlan(
        "fraud-detection",
        "java",
        "jvm",
        1,
        memory_limit=300 * MB,
        memory_base=150 * MB,
        heap=150 * MB,
        start_s=8.0,
    ),
)

_REVIEWS = (
    ServicePlan(
        "product-reviews",
        "python",
        "cpython",
        10,
        cores=1.0,
        memory_limit=100 * MB,
        memory_base=66 * MB,
        start_s=3.0,
    ),
    ServicePlan(
        "llm", "python", "cpython", 10, cores=1.0, memory_limit=50 * MB, memory_base=34 * MB, start_s=2.0
    ),
)

SERVICE_EDGES = frozenset(
    {
        ("frontend", "ad"),
        ("frontend", "recommendation"),
        ("frontend", "product-catalog"),
        ("frontend", "cart"),
        ("frontend", "checkout"),
        ("checkout", "cart"),
        ("checkout", "payment"),
        ("checkout", "shipping"),
        ("checkout", "email"),
        ("checkout", "product-catalog"),
        ("checkout", "currency"),
        ("recommendation", "product-catalog"),
        ("shipping", "quote"),
    }
)
"""Call edges that the demo's telemetry test verifies in its traces."""

ENTRY_EDGES = frozenset(
    {
        ("load-generator", "frontend-proxy"),
        ("frontend-web", "frontend-proxy"),
        ("frontend-proxy", "frontend"),
        ("frontend-proxy", "image-provider"),
        ("frontend", "currency"),
        ("frontend", "shipping"),
    }
)
"""Call edges of traffic from outside and of the pages that only a browser loads."""

REVIEW_EDGES = frozenset(
    {("frontend", "product-reviews"), ("product-reviews", "llm"), ("product-reviews", "product-catalog")}
)
"""Call edges of the release with product reviews."""

CONSUMERS = ("accounting", "fraud-detection")
"""Consumer groups of the topic ``orders``; their traces link to the trace of the order."""

TOPIC = "orders"


def plans(release: DemoRelease) -> dict[str, ServicePlan]:
    """Return the plans of a release's services by name."""
    chosen = _PLANS + (_REVIEWS if release.reviews else ())
    return {plan.name: plan for plan in chosen}


def edges(release: DemoRelease) -> frozenset[tuple[str, str]]:
    """Return the edges (caller, callee) between services in the traces of a release."""
    return SERVICE_EDGES | ENTRY_EDGES | (REVIEW_EDGES if release.reviews else frozenset())
