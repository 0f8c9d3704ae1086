"""The simulated shop as a model that can be paced."""

from __future__ import annotations

from pytest_otel_diag.model.base import Nanos
from pytest_otel_diag.shop.records import Batch
from pytest_otel_diag.shop.simulation import Shop

_END_OF_TIME: Nanos = 2**63 - 1


class PacedShop:
    """A shop that can also flush records that its processes have not exported yet.

    Records appear when a store behind the demo's collector would show them, after the batch timers of the
    SDKs and of that collector. A real collector that receives them adds its batch timers.
    """

    def __init__(self, shop: Shop) -> None:
        self._shop = shop

    @property
    def now_ns(self) -> Nanos:
        """The shop's virtual instant."""
        return self._shop.now_ns

    def advance(self, until_ns: Nanos) -> None:
        """Run the shop up to this instant."""
        self._shop.advance(until_ns)

    def take(self, until_ns: Nanos) -> Batch:
        """Remove and return the records that are visible at this instant."""
        return self._shop.take(until_ns)

    def flush(self) -> Batch:
        """Return all records as if all timers expired now; this ends the shop."""
        return self._shop.world.recorder.take(_END_OF_TIME, _END_OF_TIME)
