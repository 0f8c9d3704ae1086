"""The simulated world: virtual time, randomness by component, hosts, services, brokers."""

from __future__ import annotations

import math
import random
from collections.abc import Generator
from dataclasses import dataclass
from typing import Any

from simpy import Environment, Event, Interrupt, Process

from pytest_otel_diag.errors import ConfigurationError, nearest
from pytest_otel_diag.model.base import Nanos
from pytest_otel_diag.model.windows import NANOS_PER_SECOND
from pytest_otel_diag.shop.emission import span_metrics
from pytest_otel_diag.shop.emission.recorder import CollectorPeriods, Recorder
from pytest_otel_diag.shop.flagging import FlagReader
from pytest_otel_diag.shop.kernel.broker import Broker
from pytest_otel_diag.shop.kernel.receivers import receive
from pytest_otel_diag.shop.kernel.service import Service
from pytest_otel_diag.shop.kernel.specs import ServiceSpec
from pytest_otel_diag.shop.kernel.unrest import Noise, Tail, bursts, drift, late_messages

MAX_SKEW_NS = 3_000_000
_NOISE_SIZE = 4096


@dataclass(slots=True)
class Counters:
    """What the whole run has done; begun and ended differ by what is in flight."""

    requests_begun: int = 0
    requests_ended: int = 0
    requests_failed: int = 0
    messages_produced: int = 0
    messages_consumed: int = 0
    spans: int = 0
    logs: int = 0
    points: int = 0
    records_lost: int = 0
    kills: int = 0


class Host:
    """A machine. ``runnable`` counts threads that want a core now, hogs of faults and ``rivals`` included.

    ``rivals`` are threads of programs that are not simulated; work takes ``pace`` times as long as usual.
    """

    __slots__ = ("cores", "name", "pace", "rivals", "runnable", "skew_ns")

    cores: float

    def __init__(self, name: str, cores: float, skew_ns: int) -> None:
        self.name = name
        self.cores = cores
        self.skew_ns = skew_ns
        self.runnable = 0
        self.rivals = 0
        self.pace = 1.0


class Network:
    """Delay between two services: a floor and a log-normal part, ``scale`` times as slow as usual."""

    __slots__ = ("_draws", "_next", "scale")

    def __init__(self, rng: random.Random, scale: float) -> None:
        self.scale = scale
        self._draws = [0.00012 + rng.lognormvariate(math.log(0.00018), 0.5) for _ in range(_NOISE_SIZE)]
        self._next = 0

    def unsettle(self, rng: random.Random) -> None:
        """Make a few of the messages late."""
        late_messages(rng, self._draws)

    def delay_s(self) -> float:
        """Return the time of one message, in seconds."""
        self._next = (self._next + 1) % _NOISE_SIZE
        return self._draws[self._next] * self.scale


class World:
    """Everything that is simulated. Nothing in it knows wall time or global randomness.

    ``seed`` decides every draw: each component has a generator of its own (:meth:`rng`), so a change in
    one does not shift the others. ``latency_scale`` slows the network.
    """

    def __init__(
        self,
        seed: int,
        *,
        flags: FlagReader,
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
        self.services: dict[str, Service] = {}
        self.broker = Broker(self)

    def rng(self, name: str) -> random.Random:
        """Return a new generator for the component of this name; the same name draws the same."""
        return random.Random(f"{self.seed}/{name}")  # noqa: S311 - a simulation, repeatable on purpose

    @property
    def now_s(self) -> float:
        """Virtual seconds since the start."""
        return float(self.env.now)

    @property
    def now_ns(self) -> Nanos:
        """The virtual instant."""
        return self.start_ns + round(self.env.now * NANOS_PER_SECOND)

    @property
    def events(self) -> int:
        """Events of the simulation so far; each is at least one step of one process."""
        # SimPy numbers its events for the order of the queue and tells nobody; repr is "count(n)"
        return int(repr(self.env._eid)[6:-1])

    def host(self, name: str, cores: float = 8.0) -> Host:
        """Return the host of this name, made with *cores* when it is new; its clock is a little off."""
        host = self.hosts.get(name)
        if host is None:
            skew_ns = self.rng(f"skew/{name}").randint(-MAX_SKEW_NS, MAX_SKEW_NS)
            host = self.hosts[name] = Host(name, cores, skew_ns)
        return host

    def add(self, spec: ServiceSpec) -> Service:
        """Start a service, warm and running; raises ConfigurationError for a name in use."""
        if spec.name in self.services:
            raise ConfigurationError(f"service {spec.name!r} is there already")
        service = self.services[spec.name] = Service(self, spec)
        return service

    def service(self, name: str) -> Service:
        """Return a service; raises ConfigurationError with the nearest spelling."""
        found = self.services.get(name)
        if found is None:
            raise ConfigurationError(
                f"there is no service {name!r}{nearest(name, self.services)}; "
                f"there are {', '.join(self.services)}"
            )
        return found

    def sleep(self, seconds: float) -> Event:
        """Return an event that happens in *seconds*; for loops that hold no call."""
        return self.env.timeout(seconds)

    def spawn(self, steps: Generator[Event, Any, Any]) -> Process:
        """Run a generator as a process of its own; an interrupt ends it quietly."""
        return self.env.process(_quiet(steps))

    def unsettle(self) -> None:
        """Make the machines that are there, the network and the broker as restless as real ones."""
        self.network.unsettle(self.rng("late messages"))
        self.broker.noise = Noise(self.rng("broker"), 0.4, Tail(0.02))
        for host in list(self.hosts.values()):
            self.spawn(drift(self, host))
            self.spawn(bursts(self, host))

    def watch(self, *, kafka: bool = True) -> None:
        """Let the collector's receivers and its span metrics run; *kafka* as the release has it."""
        self.spawn(receive(self, kafka=kafka))
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


def _quiet(steps: Generator[Event, Any, Any]) -> Generator[Event, Any, Any]:
    try:
        return (yield from steps)
    except Interrupt:
        return None
