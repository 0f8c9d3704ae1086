"""The simulated shop as a model to pace."""

from __future__ import annotations

from pytest_otel_diag.model.base import Nanos
from pytest_otel_diag.shop.records import Batch
from pytest_otel_diag.shop.simulation import Shop

_END_OF_TIME: Nanos = 2**63 - 1


class PacedShop:
    """A shop that can also give what its processes have emitted and not exported yet.

    Records come when they would be readable in the store behind the demo's collector: the batch timers of
    SDKs and of that collector have passed. A real collector behind this one adds its own.
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
        """Give and forget what is visible at this instant."""
        return self._shop.take(until_ns)

    def flush(self) -> Batch:
        """Give everything, as if all timers ran out now; the shop ends with it."""
        return self._shop.world.recorder.take(_END_OF_TIME, _END_OF_TIME)
