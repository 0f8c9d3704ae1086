"""The simulated shop: one run of the demo in virtual time."""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence
from typing import Protocol

from pytest_otel_diag.errors import ConfigurationError
from pytest_otel_diag.model.base import Nanos
from pytest_otel_diag.model.scenario import Disturbance
from pytest_otel_diag.shop.emission.texts import Text
from pytest_otel_diag.shop.flag_provider import FlagProvider
from pytest_otel_diag.shop.kernel import Counters, World
from pytest_otel_diag.shop.records import Batch
from pytest_otel_diag.shop.variation import Variation

__all__ = ["Shop", "ShopTraffic", "Variation"]


class ShopTraffic(Protocol):
    """The users of a shop."""

    def start(self) -> None:
        """Let the users start."""
        ...

    def load(self, factor: float) -> None:
        """Set the number of users to *factor* times that of the variation."""
        ...

    def drive(self, services: Sequence[str], calls: int) -> int:
        """Schedule requests that reach each of the services about *calls* times; return their number."""
        ...


Build = Callable[[World, Variation], ShopTraffic]


class Shop:
    """A shop that runs only while :meth:`advance` is called.

    The same variation, flag values and disturbances give the same telemetry, byte for byte, for any step
    size. Raises ConfigurationError for a release that the shop does not simulate.
    """

    def __init__(
        self, variation: Variation, flags: FlagProvider, start_ns: Nanos, *, build: Build | None = None
    ) -> None:
        self.variation = variation
        scale = _network_scale(variation)
        self.world = World(variation.seed, flags=flags, start_ns=start_ns, latency_scale=scale)
        self._traffic = (build or _demo())(self.world, variation)
        self._traffic.start()
        # the demo has the Kafka receiver since release 3.0
        self.world.start_collector(kafka=not variation.demo.startswith(("1", "2")))

    @property
    def now_ns(self) -> Nanos:
        """The virtual instant."""
        return self.world.now_ns

    @property
    def counters(self) -> Counters:
        """Totals of the run so far."""
        return self.world.counters

    @property
    def services(self) -> tuple[str, ...]:
        """The names of the services."""
        return tuple(self.world.services)

    def advance(self, until_ns: Nanos) -> None:
        """Run the shop up to the instant; does nothing when it has passed."""
        self.world.advance(until_ns)

    def take(self, until_ns: Nanos) -> Batch:
        """Remove and return the records that a reader of the store sees at *until_ns*, at most now."""
        return self.world.recorder.take(self.world.now_ns, until_ns)

    def drive(self, services: Sequence[str], calls: int) -> int:
        """Schedule requests that reach each of the services about *calls* times; return their number.

        Raises ConfigurationError for unknown services.
        """
        for name in services:
            self.world.service(name)
        return self._traffic.drive(services, calls) if services and calls > 0 else 0

    def disturb(self, disturbance: Disturbance) -> None:
        """Make a harmless change now; raises ConfigurationError for an unknown service."""
        if disturbance.kind == "load":
            self._traffic.load(disturbance.factor)
            return
        if disturbance.service is None:
            raise ConfigurationError(f"a disturbance of kind {disturbance.kind!r} needs a service")
        service = self.world.service(disturbance.service)
        if disturbance.kind == "text":
            self.world.recorder.texts.append(Text(disturbance, self.now_ns, self.variation.seed))
        elif disturbance.kind == "restart":
            service.replace()
        else:
            service.collect_garbage()


def _network_scale(variation: Variation) -> float:
    """Return the factor of network latency: 1, or under jitter within about ±25 %."""
    if not variation.jitter:
        return 1.0
    rng = random.Random(f"{variation.seed}/network scale")  # noqa: S311 - a simulation, repeatable
    return rng.lognormvariate(0.0, 0.22)


def _demo() -> Build:
    from pytest_otel_diag.shop.assembly import build  # noqa: PLC0415 - twenty modules, only when needed

    return build
