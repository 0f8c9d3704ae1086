"""The class Shop."""

from __future__ import annotations

from collections.abc import Sequence

import pytest

from pytest_otel_diag.errors import ConfigurationError
from pytest_otel_diag.model.scenario import Disturbance
from pytest_otel_diag.shop.flag_provider import NoFlags
from pytest_otel_diag.shop.kernel import Operation, ServiceSpec, World
from pytest_otel_diag.shop.simulation import Shop, Variation
from tests.shop.kernel.tiny_world import BACK, START_NS, back


class SingleServiceTraffic:
    """Traffic of a shop with one service."""

    def __init__(self, world: World) -> None:
        self.asked: list[tuple[str, ...]] = []
        self.factor = 1.0
        self.open = False
        world.add(ServiceSpec("back", {"Answer": Operation(back, BACK)}))

    def start(self) -> None:
        self.open = True

    def load(self, factor: float) -> None:
        self.factor = factor

    def drive(self, services: Sequence[str], calls: int) -> int:
        self.asked.append(tuple(services))
        return calls


def _shop(variation: Variation | None = None) -> tuple[Shop, SingleServiceTraffic]:
    made: list[SingleServiceTraffic] = []

    def build(world: World, _: Variation) -> SingleServiceTraffic:
        made.append(SingleServiceTraffic(world))
        return made[0]

    shop = Shop(variation or Variation(), NoFlags(), START_NS, build=build)
    return shop, made[0]


def test_a_shop_starts_its_users_and_runs_up_to_the_instant() -> None:
    shop, traffic = _shop()
    assert traffic.open
    assert shop.now_ns == START_NS
    shop.advance(START_NS + 5_000_000_000)
    shop.advance(START_NS)  # has passed
    assert shop.now_ns == START_NS + 5_000_000_000
    assert shop.services == ("back",)
    assert shop.world.events > 0


def test_driving_requests_the_known_services_from_the_traffic() -> None:
    shop, traffic = _shop()
    assert shop.drive(["back"], 3) == 3
    assert shop.drive([], 3) == shop.drive(["back"], 0) == 0
    assert traffic.asked == [("back",)]
    with pytest.raises(ConfigurationError, match="did you mean 'back'"):
        shop.drive(["bakc"], 1)


def test_disturbances_reach_load_instances_and_heaps() -> None:
    shop, traffic = _shop()
    first = shop.world.service("back").instances[0]
    shop.disturb(Disturbance(kind="load", factor=4.0))
    shop.disturb(Disturbance(kind="gc", service="back"))
    assert traffic.factor == 4.0
    assert first.heap.collections["full"] == 1
    shop.disturb(Disturbance(kind="restart", service="back"))
    shop.advance(START_NS + 60_000_000_000)
    (second,) = shop.world.service("back").instances
    assert second is not first
    assert not first.alive
    with pytest.raises(ConfigurationError, match="unknown service 'nobody'"):
        shop.disturb(Disturbance(kind="gc", service="nobody"))


def test_jitter_draws_the_network_latency() -> None:
    scales = {_shop(Variation(seed=seed, jitter=True))[0].world.network.scale for seed in range(5)}
    assert len(scales) == 5
    assert all(0.3 < scale < 3.0 for scale in scales)
    assert _shop(Variation(seed=3))[0].world.network.scale == 1.0


def test_the_kafka_receiver_runs_since_release_3() -> None:
    for demo, read in (("2.2", False), ("3.0", True)):
        shop, _ = _shop(Variation(demo=demo))
        shop.advance(START_NS + 60_000_000_000)
        names = {point.instrument.name for point in shop.take(shop.now_ns).metrics}
        assert ("kafka.brokers" in names) is read
