"""What all parts of a simulation share: virtual time, randomness, hosts, the network, the broker."""

from __future__ import annotations

import random
from collections.abc import Generator, Mapping
from typing import Any, Protocol

from simpy import Environment, Event, Interrupt, Process

from pytest_otel_diag.model.base import Nanos
from pytest_otel_diag.model.windows import NANOS_PER_SECOND
from pytest_otel_diag.shop.emission.recorder import CollectorPeriods, Recorder
from pytest_otel_diag.shop.flag_provider import FlagProvider
from pytest_otel_diag.shop.kernel.resources.broker import Broker
from pytest_otel_diag.shop.kernel.resources.counters import Counters
from pytest_otel_diag.shop.kernel.resources.hosts import MAX_SKEW_NS, Host, Network
from pytest_otel_diag.shop.kernel.resources.propagation import RequestContext


class Callee(Protocol):
    """An instance that accepts requests."""

    def serve(self, operation: str, request: Any, caller: RequestContext) -> Generator[Event, Any, Any]:
        """Handle one request and return the reply; raises RpcFailure."""
        ...


class Endpoint(Protocol):
    """A service name that resolves to instances."""

    def pick(self) -> Callee | None:
        """Return the instance that gets the next request, None while none runs."""
        ...


class SimulationContext:
    """Clock, randomness, flags, hosts and network of one simulation. It never reads wall time.

    *seed* decides every draw: each component has its own generator (:meth:`rng`), so a change in one does
    not shift the draws of the others. *latency_scale* multiplies network latency.
    """

    services: Mapping[str, Endpoint]

    def __init__(
        self,
        seed: int,
        *,
        flags: FlagProvider,
        start_ns: Nanos,
        latency_scale: float = 1.0,
        collector: CollectorPeriods | None = None,
    ) -> None:
        self.seed = seed
        self.flags = flags
        self.start_ns = start_ns
        self.env = Environment()
        self.counters = Counters()
        self.ids = self.rng("ids")
        self.network = Network(self.rng("network"), latency_scale)
        self.recorder = Recorder(start_ns, self.rng("exporters"), collector or CollectorPeriods())
        self.hosts: dict[str, Host] = {}
        self.broker = Broker(self.env, self.network, self.counters)
        self.services = {}

    def rng(self, name: str) -> random.Random:
        """Return a new generator for a component; the same name gives the same draws."""
        return random.Random(f"{self.seed}/{name}")  # noqa: S311 - a simulation, repeatable on purpose

    @property
    def now_s(self) -> float:
        """Virtual seconds since the start."""
        return float(self.env.now)

    @property
    def now_ns(self) -> Nanos:
        """The virtual instant."""
        return self.start_ns + round(self.env.now * NANOS_PER_SECOND)

    def host(self, name: str, cores: float = 8.0) -> Host:
        """Return the host of this name; a new one gets *cores* cores and a small clock skew."""
        host = self.hosts.get(name)
        if host is None:
            skew_ns = self.rng(f"skew/{name}").randint(-MAX_SKEW_NS, MAX_SKEW_NS)
            host = self.hosts[name] = Host(name, cores, skew_ns)
        return host

    def sleep(self, seconds: float) -> Event:
        """Return an event that fires after *seconds*; for loops that hold no call."""
        return self.env.timeout(seconds)

    def spawn(self, steps: Generator[Event, Any, Any]) -> Process:
        """Run a generator as a separate process; an interrupt ends it without an error."""
        return self.env.process(_ignore_interrupt(steps))


def _ignore_interrupt(steps: Generator[Event, Any, Any]) -> Generator[Event, Any, Any]:
    try:
        return (yield from steps)
    except Interrupt:
        return None
