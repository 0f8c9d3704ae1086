"""A complete simulation: the shared context, the services, and the collector that observes them."""

from __future__ import annotations

from collections.abc import Generator
from typing import Any

from simpy import Event

from pytest_otel_diag.errors import ConfigurationError, nearest
from pytest_otel_diag.model.base import Nanos
from pytest_otel_diag.model.windows import NANOS_PER_SECOND
from pytest_otel_diag.shop.emission import span_metrics
from pytest_otel_diag.shop.emission.recorder import CollectorPeriods
from pytest_otel_diag.shop.flag_provider import FlagProvider
from pytest_otel_diag.shop.kernel.contention import bursts, drift
from pytest_otel_diag.shop.kernel.context import SimulationContext
from pytest_otel_diag.shop.kernel.metrics.collector_receivers import receive
from pytest_otel_diag.shop.kernel.resources.noise import Noise, Tail
from pytest_otel_diag.shop.kernel.service import Service
from pytest_otel_diag.shop.kernel.service_spec import ServiceSpec


class World(SimulationContext):
    """A simulation with its services; see :class:`SimulationContext` for the parameters."""

    services: dict[str, Service]

    def __init__(
        self,
        seed: int,
        *,
        flags: FlagProvider,
        start_ns: Nanos,
        latency_scale: float = 1.0,
        collector: CollectorPeriods | None = None,
    ) -> None:
        super().__init__(
            seed, flags=flags, start_ns=start_ns, latency_scale=latency_scale, collector=collector
        )
        self.services = {}

    @property
    def events(self) -> int:
        """Number of simulation events so far; each is at least one step of one process."""
        # SimPy numbers its events to order the queue but does not expose the counter; repr is "count(n)"
        return int(repr(self.env._eid)[6:-1])

    def add(self, spec: ServiceSpec) -> Service:
        """Start a service, warmed up and running; raises ConfigurationError for a name in use."""
        if spec.name in self.services:
            raise ConfigurationError(f"the simulation already has a service {spec.name!r}")
        service = self.services[spec.name] = Service(self, spec)
        return service

    def service(self, name: str) -> Service:
        """Return a service; raises ConfigurationError with the nearest spelling."""
        found = self.services.get(name)
        if found is None:
            raise ConfigurationError(
                f"unknown service {name!r}{nearest(name, self.services)}; "
                f"choose from {', '.join(self.services)}"
            )
        return found

    def add_disruptions(self) -> None:
        """Add contention to all hosts known so far, stragglers to the network, noise to the broker."""
        self.network.add_stragglers(self.rng("late messages"))
        self.broker.noise = Noise(self.rng("broker"), 0.4, Tail(0.02))
        for host in list(self.hosts.values()):
            self.spawn(drift(self, host))
            self.spawn(bursts(self, host))

    def start_collector(self, *, kafka: bool = True) -> None:
        """Start the collector's receivers and its span metrics; *kafka* adds the Kafka receiver."""
        self.spawn(receive(self, self.services, kafka=kafka))
        self.spawn(self._span_metrics())

    def _span_metrics(self) -> Generator[Event, Any, None]:
        yield self.sleep(span_metrics.PERIOD_S * self.rng("span metrics").random())
        while True:
            self.counters.points += self.recorder.read_span_metrics(self.now_ns)
            yield self.sleep(span_metrics.PERIOD_S)

    def advance(self, until_ns: Nanos) -> None:
        """Run until the instant; does nothing when it has passed."""
        until_s = (until_ns - self.start_ns) / NANOS_PER_SECOND
        if until_s > self.env.now:
            self.env.run(until=until_s)
