"""Traffic on demand, and draws by seed."""

from __future__ import annotations

import random

import pytest

from pytest_otel_diag import catalog
from pytest_otel_diag.errors import ConfigurationError
from pytest_otel_diag.flags.document import FlagdDocument
from pytest_otel_diag.model.scenario import Disturbance
from pytest_otel_diag.shop.demo.blueprint import Blueprint
from pytest_otel_diag.shop.demo.releases import RELEASES, release_of
from pytest_otel_diag.shop.demo.topology import plans
from pytest_otel_diag.shop.simulation import Shop
from pytest_otel_diag.shop.variation import Variation
from tests.shop.services.shop_runs import START_NS, second


def shop(demo="3.0", **options):
    options = {"users": 5, "browser_users": 0, "seed": 3, **options}
    return Shop(Variation(demo=demo, **options), FlagdDocument(catalog.demo_document(demo)), START_NS)


def spans(made, until_s):
    made.advance(second(until_s))
    return made.take(made.now_ns).spans


def idle():
    """Return a shop without background traffic."""
    flags = FlagdDocument(catalog.demo_document("3.0"))
    flags.change("loadGeneratorTraffic", "off")
    return Shop(Variation(users=1, browser_users=0, seed=3), flags, START_NS)


@pytest.mark.parametrize(
    ("service", "name"),
    [
        ("payment", "charge"),
        ("email", "send_email"),
        ("accounting", "order-consumed"),
        ("fraud-detection", "orders process"),
        ("shipping", "POST /ship-order"),
        ("cart", "POST /oteldemo.CartService/EmptyCart"),
        ("ad", "oteldemo.AdService/GetAds"),
        ("recommendation", "get_product_list"),
        ("product-catalog", "oteldemo.ProductCatalogService/GetProduct"),
        ("image-provider", "GET /"),
        ("frontend", "GET /"),
    ],
)
def test_driven_requests_reach_the_named_service(service, name):
    made = idle()
    made.advance(second(5))
    assert made.drive([service], 4) == 4
    seen = [span for span in spans(made, 40) if (span.resource.service, span.name) == (service, name)]
    # one browser page requests many images
    assert len(seen) == 4 or (service in ("image-provider", "product-catalog", "frontend") and len(seen) > 4)


def test_a_checkout_reaches_all_its_services_and_every_second_one_ships_abroad():
    made = idle()
    made.advance(second(5))
    assert made.drive(["payment", "email", "accounting"], 6) == 6
    found = spans(made, 40)
    assert sum(span.name == "charge" for span in found) == 6
    assert sum(span.name == "user_checkout_single" for span in found) == 6


def test_driving_several_tasks_sends_each_equally_often():
    made = idle()
    made.advance(second(5))
    assert made.drive(["ad", "recommendation"], 3) == 6
    assert made.drive([], 3) == 0
    assert made.drive(["ad"], 0) == 0


def test_driven_products_begin_with_the_one_that_may_fail():
    made = idle()
    made.advance(second(5))
    made.drive(["product-catalog"], 1)
    asked = [
        span.attributes["demo.product.id"]
        for span in spans(made, 30)
        if span.name.endswith("/GetProduct") and span.kind == "Server"
    ]
    assert asked == ["OLJCESPC7Z"]


def test_load_doubles_and_goes_back():
    made = shop(users=10)
    spans(made, 30)
    before = len(spans(made, 150))
    made.disturb(Disturbance(kind="load", factor=2.0))
    spans(made, 180)
    doubled = len(spans(made, 300))
    made.disturb(Disturbance(kind="load", factor=1.0))
    spans(made, 330)
    again = len(spans(made, 450))
    assert 1.5 < doubled / before < 2.6
    assert 0.7 < again / before < 1.4


def test_disabled_users_resume_once():
    made = shop(users=10, browser_users=1)
    for at, factor in ((20, 2.0), (40, 0.1), (60, 2.0), (80, 0.1), (100, 2.0)):
        spans(made, at)
        made.disturb(Disturbance(kind="load", factor=factor))
    spans(made, 130)
    flapped = [span for span in spans(made, 250) if span.resource.service == "load-generator"]
    steady = shop(users=20, browser_users=2)
    spans(steady, 130)
    expected = [span for span in spans(steady, 250) if span.resource.service == "load-generator"]
    assert 0.8 < len(flapped) / len(expected) < 1.25


def test_the_load_generator_can_be_replaced():
    made = shop(users=10)
    spans(made, 60)
    made.disturb(Disturbance(kind="restart", service="load-generator"))
    made.advance(second(120))
    found = [span for span in spans(made, 180) if span.resource.service == "load-generator"]
    assert len({span.resource.attributes["container.id"] for span in found[-200:]}) <= 2
    assert sum(span.name == "user_browse_product" for span in found) > 10


def test_the_same_seed_gives_the_same_spans_and_another_seed_others():
    first, second_time, other = (
        spans(shop(seed=seed, jitter=True, browser_users=1), 60) for seed in (3, 3, 4)
    )
    assert [(span.trace_id, span.start_ns, span.duration_ns, dict(span.attributes)) for span in first] == [
        (span.trace_id, span.start_ns, span.duration_ns, dict(span.attributes)) for span in second_time
    ]
    assert [span.trace_id for span in first] != [span.trace_id for span in other]


def test_the_step_size_does_not_change_the_spans():
    whole, cut = shop(), shop()
    for at in range(1, 41):
        cut.advance(second(at))
    key = [(span.span_id, span.duration_ns) for span in spans(whole, 40)]
    assert sorted(key) == sorted((span.span_id, span.duration_ns) for span in spans(cut, 40))


def test_jitter_draws_replicas_and_speeds_within_bounds():
    seen = set()
    for seed in range(8):
        made = shop(seed=seed, jitter=True)
        for name, plan in plans(release_of("3.0")).items():
            count = len(made.world.service(name).instances)
            assert 1 <= count <= plan.most_replicas
            seen.add(count)
    assert seen == {1, 2, 3}
    steady = shop(jitter=False)
    assert all(len(service.instances) == 1 for service in steady.world.services.values())


def test_slowness_is_spread_by_about_a_quarter():
    factors = [
        factor
        for seed in range(40)
        for factor in Blueprint.drawn(
            Variation(seed=seed, jitter=True), random.Random(seed)
        ).slowness.values()
    ]
    inside = sum(0.75 < factor < 1.33 for factor in factors)
    assert 0.7 < inside / len(factors) < 0.9
    assert 0.95 < sorted(factors)[len(factors) // 2] < 1.05


@pytest.mark.parametrize(
    ("demo", "release"),
    [("3.0.0", "3.0"), ("2.x", "2.2"), ("3.x", "3.0"), ("v2.1.3", "2.1"), ("3", "3.0"), ("3.1", "3.1")],
)
def test_releases_have_several_spellings(demo, release):
    assert release_of(demo).version == release


@pytest.mark.parametrize("demo", ["1.12", "3.7", "banana", ""])
def test_an_unknown_release_is_refused_with_the_known_ones(demo):
    with pytest.raises(ConfigurationError, match=r"choose from 2\.0, 2\.1, 2\.2, 3\.0, 3\.1"):
        release_of(demo)


@pytest.mark.parametrize("demo", RELEASES)
def test_the_services_of_a_release_evaluate_the_flags_of_its_document(demo):
    assert release_of(demo).flags == set(FlagdDocument(catalog.demo_document(demo)).flags)


def test_a_fresh_process_starts_slowly():
    made = shop(users=40)
    calm = [
        span for span in spans(made, 90) if span.name.endswith("AdService/GetAds") and span.kind == "Server"
    ]
    made.world.service("ad").instances[0].kill("test")
    found = spans(made, 130)
    fresh = [span for span in found if span.name.endswith("AdService/GetAds") and span.kind == "Server"][:15]
    assert sum(span.duration_ns for span in fresh) / len(fresh) > 1.7 * sum(
        span.duration_ns for span in calm
    ) / len(calm)
    refused = [span for span in found if span.resource.service == "frontend" and span.status == "Error"]
    assert any("ECONNREFUSED" in str(span.attributes.get("grpc.error_message")) for span in refused)
