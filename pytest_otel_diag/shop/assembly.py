"""Assembles a shop: the blueprint of its topology, its services, and its traffic."""

from __future__ import annotations

from pytest_otel_diag.shop.demo.blueprint import Blueprint
from pytest_otel_diag.shop.demo.topology import TOPIC
from pytest_otel_diag.shop.kernel import uuid4
from pytest_otel_diag.shop.kernel.world import World
from pytest_otel_diag.shop.services import (
    accounting,
    ad,
    cart,
    checkout,
    currency,
    databases,
    email,
    flagd,
    fraud_detection,
    frontend,
    frontend_proxy,
    frontend_web,
    image_provider,
    load_generator,
    payment,
    product_catalog,
    product_reviews,
    quote,
    recommendation,
    shipping,
)
from pytest_otel_diag.shop.traffic.traffic import DemoTraffic
from pytest_otel_diag.shop.variation import Variation

_MODULES = (
    databases,
    flagd,
    currency,
    product_catalog,
    cart,
    quote,
    shipping,
    payment,
    email,
    ad,
    recommendation,
    checkout,
    accounting,
    fraud_detection,
    image_provider,
    frontend,
    frontend_proxy,
    frontend_web,
)


def build(world: World, variation: Variation) -> DemoTraffic:
    """Add the services of the variation's release to an empty world and return its traffic.

    Nothing runs until the world advances; users arrive after ``traffic.start()``. Raises ConfigurationError
    for a release that the shop does not simulate.
    """
    blueprint = Blueprint.drawn(variation, world.rng("topology"))
    world.broker.topic(TOPIC)
    if blueprint.modern:
        world.recorder.span_metrics.label(uuid4(world.rng("collector")))
    for module in _MODULES:
        for spec in module.specs(blueprint):
            world.add(spec)
    if blueprint.release.reviews:
        for spec in product_reviews.specs(blueprint):
            world.add(spec)
    traffic = DemoTraffic(
        world, blueprint.release, users=variation.users, browser_users=variation.browser_users
    )
    world.add(load_generator.spec(blueprint, traffic.run))
    world.add_disruptions()
    return traffic
