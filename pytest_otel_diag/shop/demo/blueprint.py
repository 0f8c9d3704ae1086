"""The blueprint of a shop: a release with a drawn topology, and helpers to build service specs."""

from __future__ import annotations

import random
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import cached_property

from pytest_otel_diag.shop.demo.instrumentation import Rpc, flag_event
from pytest_otel_diag.shop.demo.releases import DemoRelease, release_of
from pytest_otel_diag.shop.demo.topology import ServicePlan, plans
from pytest_otel_diag.shop.kernel.process_spec import IDENTITY, FlagClient
from pytest_otel_diag.shop.kernel.resources.heap import (
    DOTNET,
    GO,
    JVM,
    MANUAL,
    NODE,
    PYTHON,
    RUBY,
    GcPolicy,
    HeapSpec,
)
from pytest_otel_diag.shop.kernel.resources.noise import Tail
from pytest_otel_diag.shop.kernel.service_spec import ServiceSpec
from pytest_otel_diag.shop.variation import Variation

_POLICIES: dict[str, GcPolicy] = {
    "jvm": JVM,
    "go": GO,
    "dotnet": DOTNET,
    "nodejs": NODE,
    "cpython": PYTHON,
    "ruby": RUBY,
}

# slowdown of the first requests after a start: compilation, cold caches, new connections
_WARMUP = {"jvm": 6.0, "dotnet": 4.0, "nodejs": 3.0, "cpython": 1.5, "ruby": 2.0, "php": 1.5}
_WARMUP_S = {"jvm": 60.0, "dotnet": 40.0, "nodejs": 25.0}

# rare slow pieces of work: more frequent in runtimes with more background work
_TAILS = {
    "jvm": Tail(0.022),
    "go": Tail(0.014),
    "dotnet": Tail(0.018),
    "nodejs": Tail(0.022),
    "cpython": Tail(0.022),
    "ruby": Tail(0.024),
    "php": Tail(0.022),
    "browser": Tail(0.03, most=8.0),
}
_TAIL = Tail(0.014)

_RUNTIME_NAMES = {
    "jvm": ("OpenJDK Runtime Environment", "21.0.8+9-LTS"),
    "go": ("go", "go1.25.5"),
    "dotnet": (".NET", "10.0.1"),
    "nodejs": ("nodejs", "22.21.1"),
    "cpython": ("cpython", "3.14.2"),
    "ruby": ("ruby", "3.4.8"),
    "php": ("fpm-fcgi", "8.4.16"),
    "rust": ("rustc", "1.92.0"),
}

# resources of 3.x, as SDKs and detectors of each service fill them
_CRITICALITY = {
    **dict.fromkeys(("payment", "frontend", "checkout", "frontend-proxy"), "critical"),
    **dict.fromkeys(("currency", "cart", "shipping", "product-catalog"), "high"),
    **dict.fromkeys(("quote", "flagd", "load-generator"), "low"),
}
_SDK_VERSIONS = {"nodejs": "2.10.0", "python": "1.43.0", "go": "1.45.0"}
_WITHOUT_DETECTORS = ("product-catalog", "recommendation")
_PROCESS = ("host.name", "container.id", "process.pid")
_IDENTITIES: dict[str, tuple[str, ...]] = {
    "payment": ("service.instance.id", *_PROCESS),
    "frontend": _PROCESS,
    "checkout": _PROCESS,
    "load-generator": _PROCESS,
    "flagd": ("host.name",),
    "recommendation": ("service.instance.id",),
    "product-catalog": (),
}

NODES = ("node-1", "node-2", "node-3")
"""Hosts that the services share; their clocks differ by a few milliseconds."""
CLIENT = "client-1"
OUTSIDE = ("load-generator", "frontend-web")
"""Services on the host of the users."""

SLOWNESS_SIGMA = 0.22
"""Sigma of the log-normal latency factor of a service under jitter: about ±25 %."""


@dataclass(frozen=True)
class Blueprint:
    """A release with a drawn topology: ``replicas``, ``slowness`` (1.0 is usual) and ``nodes`` by service."""

    release: DemoRelease
    replicas: Mapping[str, int] = field(default_factory=dict)
    slowness: Mapping[str, float] = field(default_factory=dict)
    nodes: Mapping[str, str] = field(default_factory=dict)

    @classmethod
    def drawn(cls, variation: Variation, rng: random.Random) -> Blueprint:
        """Draw the blueprint of a variation; without jitter each service has one replica of usual speed."""
        release = release_of(variation.demo)
        names = plans(release)
        if not variation.jitter:
            return cls(release, nodes={name: NODES[turn % len(NODES)] for turn, name in enumerate(names)})
        replicas: dict[str, int] = {}
        slowness: dict[str, float] = {}
        nodes: dict[str, str] = {}
        for name, plan in names.items():
            replicas[name] = rng.randint(1, plan.most_replicas)
            slowness[name] = rng.lognormvariate(0.0, SLOWNESS_SIGMA)
            nodes[name] = rng.choice(NODES)
        return cls(release, replicas, slowness, nodes)

    @cached_property
    def plans(self) -> Mapping[str, ServicePlan]:
        """Return the plans of the release."""
        return plans(self.release)

    @property
    def modern(self) -> bool:
        """Whether this is a 3.x release."""
        return self.release.modern

    def cpu(self, service: str, milliseconds: float) -> float:
        """Return the CPU seconds of work that usually takes *milliseconds* in this service."""
        return milliseconds / 1e3 * self.slowness.get(service, 1.0)

    def rpc(self, language: str) -> Rpc:
        """Return the gRPC instrumentation of a language in this release."""
        return Rpc(language, self.modern)

    def flag_client(
        self, *, hook: bool, remote: str = "", operation: Callable[..., str] | None = None
    ) -> FlagClient:
        """Return a flag client: *hook* adds the tracing hook, *remote* calls that service each time."""
        event = flag_event(modern=self.modern) if hook else None
        if operation is None:
            return FlagClient(event=event, remote=remote)
        return FlagClient(event=event, remote=remote, operation=operation)

    def resource(self, plan: ServicePlan) -> dict[str, str]:
        """Return the resource attributes of a service, without its name and what identifies its processes."""
        attributes = {
            "service.namespace": "opentelemetry-demo",
            "service.version": f"{self.release.version}.0",
            "telemetry.sdk.language": plan.language,
            "telemetry.sdk.name": "opentelemetry",
        }
        if not self.modern:
            attributes["deployment.environment.name"] = "demo"
        else:
            attributes["service.criticality"] = _CRITICALITY.get(plan.name, "medium")
            if plan.language in _SDK_VERSIONS:
                attributes["telemetry.sdk.version"] = _SDK_VERSIONS[plan.language]
        if self.modern and plan.name == "recommendation":
            attributes["telemetry.auto.version"] = "0.64b0"
        if not self.modern or plan.name not in _WITHOUT_DETECTORS:
            attributes |= {"host.arch": "amd64", "os.type": "linux"}
            runtime = _RUNTIME_NAMES.get(plan.runtime)
            if runtime is not None:
                attributes["process.runtime.name"], attributes["process.runtime.version"] = runtime
        if plan.runtime in ("nginx", "envoy"):
            del attributes["telemetry.sdk.language"], attributes["telemetry.sdk.name"]
        return attributes

    def process(self, plan: ServicePlan) -> dict[str, object]:
        """Return the fields of :class:`ServiceSpec` for the resource of a service.

        Several replicas always carry an instance id: without one, their counters would be one series.
        """
        fields: dict[str, object] = {"resource": self.resource(plan)}
        if self.modern:
            identity = _IDENTITIES.get(plan.name, IDENTITY)
            if self.replicas.get(plan.name, 1) > 1:
                identity = tuple(dict.fromkeys((*identity, *IDENTITY)))
            fields["identity"] = identity
        return fields

    def base(self, name: str) -> dict[str, object]:
        """Return the fields of :class:`ServiceSpec` that the plan determines."""
        plan = self.plans[name]
        return {
            "name": name,
            **self.process(plan),
            "host": CLIENT if name in OUTSIDE else self.nodes[name],
            "replicas": self.replicas.get(name, 1),
            "workers": plan.workers,
            "cpu_limit": plan.cores or None,
            "heap": heap(plan),
            "startup_s": plan.start_s,
            "tail": _TAILS.get(plan.runtime, _TAIL),
            "warmup": _WARMUP.get(plan.runtime, 1.0),
            "warmup_s": _WARMUP_S.get(plan.runtime, 10.0),
        }

    def spec(self, name: str, **fields: object) -> ServiceSpec:
        """Return the service's spec: the fields of its plan, overridden by *fields*."""
        return ServiceSpec(**{**self.base(name), **fields})  # type: ignore[arg-type] # checked where written


def heap(plan: ServicePlan) -> HeapSpec:
    """Return the memory of a plan; a third of its base memory is live on the heap."""
    policy = _POLICIES.get(plan.runtime, MANUAL)
    live = plan.memory_base // 3
    return HeapSpec(
        policy,
        base_bytes=plan.memory_base - live,
        live_bytes=live,
        max_bytes=plan.heap or None,
        limit_bytes=plan.memory_limit or None,
    )
