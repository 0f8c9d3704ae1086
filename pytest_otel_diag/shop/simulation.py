"""The simulated shop: one run of the demo in virtual time."""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence
from typing import Protocol

from pytest_otel_diag.errors import ConfigurationError
from pytest_otel_diag.model.base import Nanos
from pytest_otel_diag.model.scenario import Disturbance
from pytest_otel_diag.shop.flag_provider import FlagProvider
from pytest_otel_diag.shop.kernel import Counters, World
from pytest_otel_diag.shop.records import Batch
from pytest_otel_diag.shop.variation import Variation

__all__ = ["Entrance", "Shop", "Variation"]


class Entrance(Protocol):
    """Where traffic comes in."""

    def start(self) -> None:
        """Let the users in."""
        ...

    def load(self, factor: float) -> None:
        """Have *factor* times as many users as the variation says."""
        ...

    def drive(self, services: Sequence[str], calls: int) -> int:
        """Send requests soon that reach each of the services about *calls* times; return how many."""
        ...


Build = Callable[[World, Variation], Entrance]


class Shop:
    """A shop that runs only while :meth:`advance` is called.

    The same variation, answers of flags and disturbances give the same telemetry, byte for byte, however
    the time is cut into steps. Raises ConfigurationError for a release that the shop cannot be like.
    """

    def __init__(
        self, variation: Variation, flags: FlagProvider, start_ns: Nanos, *, build: Build | None = None
    ) -> None:
        self.variation = variation
        scale = _network_scale(variation)
        self.world = World(variation.seed, flags=flags, start_ns=start_ns, latency_scale=scale)
        self._entrance = (build or _demo())(self.world, variation)
        self._entrance.start()
        # the Kafka receiver came with release 3.0
        self.world.start_collector(kafka=not variation.demo.startswith(("1", "2")))

    @property
    def now_ns(self) -> Nanos:
        """The virtual instant."""
        return self.world.now_ns

    @property
    def counters(self) -> Counters:
        """What the run has done so far; live."""
        return self.world.counters

    @property
    def services(self) -> tuple[str, ...]:
        """The services by name."""
        return tuple(self.world.services)

    def advance(self, until_ns: Nanos) -> None:
        """Run the model up to the instant; does nothing when that has passed."""
        self.world.advance(until_ns)

    def take(self, until_ns: Nanos) -> Batch:
        """Give and forget what a reader of the store can see at *until_ns*, at most now."""
        return self.world.recorder.take(self.world.now_ns, until_ns)

    def drive(self, services: Sequence[str], calls: int) -> int:
        """Add requests soon that reach these services about *calls* times; return how many were added.

        Raises ConfigurationError for unknown services.
        """
        for name in services:
            self.world.service(name)
        return self._entrance.drive(services, calls) if services and calls > 0 else 0

    def disturb(self, disturbance: Disturbance) -> None:
        """Make a harmless change happen now; raises ConfigurationError for an unknown service."""
        if disturbance.kind == "load":
            self._entrance.load(disturbance.factor)
            return
        if disturbance.service is None:
            raise ConfigurationError(f"a disturbance of kind {disturbance.kind!r} needs a service")
        service = self.world.service(disturbance.service)
        if disturbance.kind == "restart":
            service.replace()
        else:
            service.collect_garbage()


def _network_scale(variation: Variation) -> float:
    """Return how slow the network is: as usual, or about ±25 % of it under jitter."""
    if not variation.jitter:
        return 1.0
    rng = random.Random(f"{variation.seed}/network scale")  # noqa: S311 - a simulation, repeatable
    return rng.lognormvariate(0.0, 0.22)


def _demo() -> Build:
    from pytest_otel_diag.shop.assembly import build  # noqa: PLC0415 - twenty modules, only when needed

    return build
