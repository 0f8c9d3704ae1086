"""Putting a shop together: a drawn scene, its services, its users."""

from __future__ import annotations

from pytest_otel_diag.shop.kernel.world import World
from pytest_otel_diag.shop.services import (
    accounting,
    ad,
    browser,
    cart,
    checkout,
    currency,
    email,
    flagd,
    fraud_detection,
    frontend,
    images,
    load_generator,
    payment,
    product_catalog,
    proxy,
    quote,
    recommendation,
    reviews,
    shipping,
    stores,
)
from pytest_otel_diag.shop.services.entry import Entry
from pytest_otel_diag.shop.services.scene import Scene
from pytest_otel_diag.shop.topology import TOPIC
from pytest_otel_diag.shop.variation import Variation

_MODULES = (
    stores,
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
    images,
    frontend,
    proxy,
    browser,
)


def build(world: World, variation: Variation) -> Entry:
    """Add the services of the variation's release to an empty world and return the entry of its traffic.

    Nothing runs until the world advances; users come after ``entry.start()``. Raises ConfigurationError
    for a release that the shop cannot be like.
    """
    scene = Scene.drawn(variation, world.rng("topology"))
    world.broker.topic(TOPIC)
    for module in _MODULES:
        for spec in module.specs(scene):
            world.add(spec)
    if scene.generation.reviews:
        for spec in reviews.specs(scene):
            world.add(spec)
    entry = Entry(world, scene.generation, users=variation.users, browser_users=variation.browser_users)
    world.add(load_generator.spec(scene, entry.run))
    world.add_disruptions()
    return entry
