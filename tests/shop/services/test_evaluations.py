"""Services evaluate flags at the moment and in the context of the real code."""

from __future__ import annotations

import pytest

from tests.shop.services.shop_runs import run

QUIET = {"users": 15, "seconds": 180.0}


def began(made, service, name, kind=""):
    return len(made.before.spans(service, name, kind)) + len(made.fault.spans(service, name, kind))


@pytest.mark.parametrize(
    ("demo", "flag", "service", "name", "kind"),
    [
        ("3.0", "adFailure", "ad", "oteldemo.AdService/GetAds", "Server"),
        ("3.0", "adHighCpu", "ad", "oteldemo.AdService/GetAds", "Server"),
        ("3.0", "adManualGc", "ad", "oteldemo.AdService/GetAds", "Server"),
        ("3.0", "cartFailure", "cart", "POST /oteldemo.CartService/EmptyCart", "Server"),
        ("3.0", "productCatalogFailure", "product-catalog", "oteldemo.ProductCatalogService/GetProduct", ""),
        ("3.0", "paymentFailure", "payment", "charge", ""),
        ("3.0", "paymentUnreachable", "checkout", "oteldemo.PaymentService/Charge", ""),
        ("3.0", "emailMemoryLeak", "email", "send_email", ""),
        ("3.0", "recommendationCacheFailure", "recommendation", "get_product_list", ""),
        ("3.0", "loadGeneratorFloodHomepage", "load-generator", "feature_flag.evaluate", ""),
        ("2.2", "llmRateLimitError", "product-reviews", "get_ai_assistant_response", ""),
    ],
)
def test_a_flag_is_evaluated_once_per_operation(demo, flag, service, name, kind):
    made = run(demo, **QUIET)
    asked = made.flags.asked[flag]
    operations = began(made, service, name, kind)
    if flag == "loadGeneratorFloodHomepage":
        operations = sum(
            span.attributes["feature_flag.key"] == flag
            for phase in (made.before, made.fault)
            for span in phase.spans(service, name)
        )
    # the run continues for some seconds after the last phase
    assert asked > 0
    assert operations <= asked <= 1.15 * operations + 3


def test_both_ends_of_the_topic_evaluate_the_queue_flag():
    made = run("3.0", **QUIET)
    published, checked = (
        began(made, service, name)
        for service, name in (("checkout", "orders publish"), ("fraud-detection", "orders process"))
    )
    assert published + checked <= made.flags.asked["kafkaQueueProblems"] <= 1.15 * (published + checked) + 4


def test_the_catalog_of_3_evaluates_with_the_product_and_of_2_for_one_product_only():
    asked = {context for key, context in run("3.0", **QUIET).flags.contexts if key == "productCatalogFailure"}
    assert len(asked) == 10
    assert (("product_id", "OLJCESPC7Z"),) in asked
    older = run("2.2", **QUIET)
    ids = [
        span.attributes["app.product.id"]
        for phase in (older.before, older.fault)
        for span in phase.spans("product-catalog", "oteldemo.ProductCatalogService/GetProduct")
    ]
    assert {context for key, context in older.flags.contexts if key == "productCatalogFailure"} == {()}
    count = ids.count("OLJCESPC7Z")
    assert count <= older.flags.asked["productCatalogFailure"] <= 1.3 * count + 3
    assert count < 0.5 * len(ids)


def test_only_orders_abroad_evaluate_the_slowdown():
    made = run("3.0", users=40, seconds=180.0, flag="intlShippingSlowdown", variant="10sec")
    shipped = began(made, "shipping", "POST /ship-order")
    assert 0 < made.flags.asked["intlShippingSlowdown"] < 0.35 * shipped


def test_the_ad_service_evaluates_with_the_session():
    contexts = [context for key, context in run("3.0", **QUIET).flags.contexts if key == "adFailure"]
    assert {tuple(name for name, _ in context) for context in contexts} == {("session", "targetingKey")}


def test_no_service_evaluates_flags_that_the_release_does_not_have():
    for demo, absent in (
        ("2.0", {"emailMemoryLeak", "intlShippingSlowdown", "loadGeneratorVUs", "llmRateLimitError"}),
        (
            "2.2",
            {
                "intlShippingSlowdown",
                "loadGeneratorVUs",
                "loadGeneratorTraffic",
                "productCatalogLockContention",
            },
        ),
        ("3.1", {"loadGeneratorVUs", "loadGeneratorTraffic", "llmRateLimitError"}),
    ):
        assert not absent & set(run(demo, **QUIET).flags.asked)
