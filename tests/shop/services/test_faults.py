"""Effects of each flag while it is on, and services that look faulty but are not."""

from __future__ import annotations

import pytest

from tests.shop.services.shop_runs import run, said

GET_ADS = "oteldemo.AdService/GetAds"
GET_PRODUCT = "oteldemo.ProductCatalogService/GetProduct"
PLACE = "oteldemo.CheckoutService/PlaceOrder"
CHARGE = "oteldemo.PaymentService/Charge"
EMPTY = "POST /oteldemo.CartService/EmptyCart"


def with_flag(flag, variant="on", **options):
    return run(flag=flag, variant=variant, **{"users": 15, "seconds": 180.0, **options}).fault


def quiet(demo="3.0"):
    return run(demo, users=15, seconds=180).fault


def latest(phase, service, metric):
    """Return the latest values of a metric by its attributes."""
    found = {}
    for point in phase.batch.metrics:
        owner = point.resource.service or point.resource.attributes.get("container.name")
        if owner == service and point.instrument.name == metric:
            found[tuple(point.attributes.items())] = point.value
    return found


def test_ad_failure_fails_without_a_description():
    phase = with_flag("adFailure")
    failed = phase.errors("ad", GET_ADS)
    assert failed
    assert {(span.message, span.events[-1].name) for span in failed} == {("", "Error")}
    assert failed[0].events[-1].attributes == {"exception.message": "UNAVAILABLE"}
    assert len(phase.logs("ad", "GetAds Failed with status Status{code=UNAVAILABLE")) == len(failed)
    route = phase.errors("frontend", "executing api route (pages) /api/data")
    assert {(span.message, said(span)) for span in route} == {("", "14 UNAVAILABLE: ")}
    assert len(route) == pytest.approx(len(failed), abs=1)
    nested = phase.errors("frontend", "GET /api/data")  # the spans of the HTTP library and of Next.js
    statuses = [("http.response.status_code", 500), ("http.status_code", 500)]
    assert [sum(span.attributes.get(key) == code for span in nested) for key, code in statuses] == [
        len(nested) // 2,
        len(nested) // 2,
    ]
    assert phase.errors("frontend-proxy", "ingress")[0].attributes["http.status_code"] == "500"
    # k6 does not record the outcome of a request on the span of its task
    assert phase.errors("load-generator") == []
    # ads are chosen and counted before the throw
    assert all("demo.ad.count" in span.attributes for span in failed)


def test_locust_shows_the_status_of_a_request():
    phase = with_flag("adFailure", demo="2.2")
    failed = [span for span in phase.errors("load-generator") if span.name == "GET"]
    assert failed
    assert {span.attributes["http.status_code"] for span in failed} == {500}


def test_ad_high_cpu_burns_four_cores_and_floods_the_log():
    phase = with_flag("adHighCpu")
    assert phase.errors("ad") == []
    spinning = phase.logs("ad", "High CPU-Load problempattern enabled")
    assert len(spinning) == pytest.approx(len(phase.spans("ad", GET_ADS, "Server")), abs=2)
    used = latest(phase, "ad", "jvm.cpu.recent_utilization")
    assert next(iter(used.values())) > 0.4
    assert next(iter(latest(quiet(), "ad", "jvm.cpu.recent_utilization").values())) < 0.05
    # no CPU limit and idle cores: requests are as fast as before
    assert phase.quantile_ms("ad", GET_ADS, 0.5) < 3 * quiet().quantile_ms("ad", GET_ADS, 0.5)


def test_ad_manual_gc_makes_requests_take_seconds():
    phase = with_flag("adManualGc", users=5)
    assert phase.errors("ad") == []
    assert 1000 < phase.quantile_ms("ad", GET_ADS, 0.5) < 10_000
    begun = phase.spans("ad", GET_ADS, "Server")
    for text in (
        "Feature Flag adManualGc enabled, performing a manual gc now",
        "Triggering a manual garbage collection, next one in 10 seconds.",
        "The artificially triggered GCs took: ",
    ):
        assert len(phase.logs("ad", text)) == pytest.approx(len(begun), abs=2)
    collected = latest(phase, "ad", "jvm.gc.duration")
    assert max(value.sum for value in collected.values()) > 20
    heap = run(flag="adManualGc", users=5, seconds=180.0).shop.world.service("ad").instances[0].heap
    assert heap.live > 0.85 * 200e6


def test_cart_failure_breaks_emptying_only_and_orders_stand():
    phase = with_flag("cartFailure", "100%")
    assert {span.name for span in phase.errors("cart")} == {EMPTY}
    failed = phase.errors("cart", EMPTY)
    assert failed[0].message.startswith("Can't access cart storage. System.ApplicationException: Wasn't able")
    assert failed[0].events[-1].name == "exception"
    assert {span.name for span in phase.errors("checkout")} == {"oteldemo.CartService/EmptyCart"}
    assert phase.errors("frontend") == []
    assert phase.errors("frontend-proxy") == []
    logs = phase.logs("cart", "Wasn't able to connect to redis")
    assert {(log.severity_text, log.event_name) for log in logs} == {
        ("Error", "cart.redis.connection_failed")
    }
    assert phase.logs("cart", "Error status code '{StatusCode}' with detail '{Detail}' raised.")
    # the unreachable store fails slowly; the real one is not called
    assert phase.quantile_ms("checkout", PLACE, 0.5) > 2 * quiet().quantile_ms("checkout", PLACE, 0.5)
    parents = {span.span_id for span in failed}
    assert not [span for span in phase.of("cart") if span.name == "HMSET" and span.parent_id in parents]
    assert not [log for log in phase.batch.logs if "badhost" in log.body]


def test_cart_failure_of_2_x_is_all_or_nothing():
    phase = with_flag("cartFailure", "on", demo="2.2")
    assert len(phase.errors("cart", EMPTY)) == len(phase.spans("cart", EMPTY))


@pytest.mark.parametrize("demo", ["3.0", "2.2"])
def test_product_catalog_failure_hits_one_product_and_shows_more_in_the_frontend(demo):
    phase = with_flag("productCatalogFailure", demo=demo)
    failed = phase.errors("product-catalog")
    key = "demo.product.id" if demo == "3.0" else "app.product.id"
    assert {(span.name, span.attributes[key]) for span in failed} == {(GET_PRODUCT, "OLJCESPC7Z")}
    assert {span.message for span in failed} == {"Error: Product Catalog Fail Feature Flag Enabled"}
    assert {span.events[-1].name for span in failed} == {"Error: Product Catalog Fail Feature Flag Enabled"}
    asked = [
        span for span in phase.spans("product-catalog", GET_PRODUCT) if span.attributes[key] == "OLJCESPC7Z"
    ]
    assert len(asked) == len(failed)
    ids = {span.span_id for span in failed}
    assert not [
        span for span in phase.of("product-catalog") if span.kind == "Client" and span.parent_id in ids
    ]
    # recommendation itself is clean, though the page of recommendations fails
    assert phase.errors("recommendation") == []
    assert phase.errors("frontend", "GET /api/recommendations")
    share = {
        name: len([span for span in phase.errors(name) if span.kind == "Server"]) / len(phase.of(name))
        for name in ("product-catalog", "frontend")
    }
    assert share["frontend"] > 0.5 * share["product-catalog"]
    orders = phase.errors("checkout", PLACE)
    assert {span.message for span in orders} == {
        'failed to prepare order: failed to get product #"OLJCESPC7Z"'
    }
    assert phase.errors("checkout", "prepareOrderItemsAndShippingQuoteFromCart") == []


def test_payment_failure_of_3_marks_every_span_up_to_the_proxy():
    phase = with_flag("paymentFailure", "100%")
    text = "Payment request failed. Invalid token. demo.user_context.loyalty_level=gold"
    charge = phase.errors("payment", "charge")
    assert len(charge) == len(phase.spans("payment", "charge"))
    assert {span.message for span in phase.errors("payment")} == {text}
    assert charge[0].events[-1].attributes["exception.message"] == text
    assert phase.errors("payment", CHARGE)[0].attributes["error.type"] == "Error"
    warned = phase.logs("payment", text)
    assert {log.severity_text for log in warned} == {"warn"}
    assert {span.message for span in phase.errors("checkout", PLACE)} == {
        f"failed to charge card: could not charge the card: rpc error: code = Unknown desc = {text}"
    }
    assert [log for log in phase.logs("checkout") if log.severity_number > 9] == []
    assert len(phase.errors("frontend", "POST /api/checkout")) == len(
        phase.spans("frontend", "POST /api/checkout")
    )
    # the steps after the charge do not happen
    for service in ("email", "accounting"):
        assert len(phase.of(service)) < 5
    assert len(phase.spans("shipping", "POST /ship-order")) == 0
    assert len(phase.spans("shipping", "POST /get-quote")) > 20


def test_payment_failure_of_2_ends_the_charge_without_a_status():
    phase = with_flag("paymentFailure", "100%", demo="2.2")
    assert phase.errors("payment", "charge") == []
    assert {span.message for span in phase.errors("payment", "grpc.oteldemo.PaymentService/Charge")} == {
        "Payment request failed. Invalid token. app.loyalty.level=gold"
    }


def test_payment_unreachable_fails_in_checkout_and_payment_gets_no_request():
    phase = with_flag("paymentUnreachable")
    assert phase.of("payment") == [] or {"EventStream" in span.name for span in phase.of("payment")} == {True}
    failed = phase.errors("checkout", CHARGE)
    assert {span.message for span in failed} == {"name resolver error: produced zero addresses"}
    assert max(span.duration_ns for span in failed) < 1_000_000
    assert failed[0].attributes["server.address"] == "badAddress"
    assert len(phase.errors("checkout", PLACE)) == len(phase.spans("checkout", PLACE))
    assert [log for log in phase.logs("checkout") if log.severity_number > 9] == []
    assert len(phase.logs("checkout", "[PlaceOrder]")) >= len(failed)
    goroutines = [
        point.value
        for point in phase.batch.metrics
        if point.instrument.name == "go.goroutine.count" and point.resource.service == "checkout"
    ]
    assert goroutines[-1] > goroutines[0] + 100


def test_recommendation_cache_failure_grows_until_it_is_killed():
    made = run(flag="recommendationCacheFailure", users=30, seconds=200.0)
    phase = made.fault
    sizes = [
        span.attributes["demo.product.count"]
        for span in phase.spans("recommendation", "get_product_list")
        if span.attributes["demo.feature_flag.recommendation_cache"]
    ]
    assert sizes[0] == 12  # ten products and a quarter again
    assert max(sizes) > 1e6
    kills = made.shop.world.service("recommendation").kills
    assert kills
    assert kills[0][1] == "OOMKilled"
    hits = len(phase.logs("recommendation", "get_product_list: cache hit"))
    misses = len(phase.logs("recommendation", "get_product_list: cache miss"))
    assert 0.5 < hits / misses < 2
    listed = phase.spans("product-catalog", "oteldemo.ProductCatalogService/ListProducts")
    assert misses <= len(listed) < misses + 20  # hits call no service
    assert phase.quantile_ms("recommendation", "get_product_list", 0.97) > 20 * quiet().quantile_ms(
        "recommendation", "get_product_list", 0.97
    )


def test_recommendation_cache_failure_of_2_2_fails_and_does_not_grow():
    made = run("2.2", flag="recommendationCacheFailure", users=15, seconds=180.0)
    failed = made.fault.errors("recommendation", "get_product_list")
    assert failed
    assert {span.name for span in made.fault.errors("product-catalog")} <= {GET_PRODUCT}
    heap = made.shop.world.service("recommendation").instances[0].heap
    assert heap.live == heap.spec.live_bytes
    answered = {
        span.message
        for span in made.fault.errors("recommendation", "oteldemo.RecommendationService/ListRecommendations")
    }
    assert all("Exception calling application" in message for message in answered)


def test_kafka_queue_problems_pile_up_in_front_of_fraud_detection():
    made = run(flag="kafkaQueueProblems", users=5, seconds=180.0)
    phase = made.fault
    overloads = phase.logs(
        "checkout", "Warning: FeatureFlag 'kafkaQueueProblems' is activated, overloading queue now."
    )
    assert overloads
    assert len(phase.logs("checkout", "Done with #100 messages for overload simulation.")) == len(overloads)
    checked = phase.spans("fraud-detection", "orders process")
    slow = [span for span in checked if span.duration_ns > 1e9]
    assert len(slow) > 0.9 * len(checked)
    assert phase.logs("fraud-detection", "FeatureFlag 'kafkaQueueProblems' is enabled, sleeping 1 second")
    groups = made.shop.world.broker.topics["orders"].groups
    assert groups["fraud-detection"].total_lag > 200
    assert groups["accounting"].total_lag < 5
    lag = [
        point.value
        for point in phase.batch.metrics
        if point.instrument.name == "kafka.consumer_group.lag"
        and point.attributes["group"] == "fraud-detection"
    ]
    assert max(lag) > 200
    duplicates = phase.logs("accounting", "Duplicate order received, skipping.")
    assert 90 * len(overloads) < len(duplicates) <= 100 * len(overloads)
    assert phase.errors("accounting", "postgresql")[0].message.startswith("23505: duplicate key")
    # callers see no effect, and the broker is healthy
    assert phase.errors("checkout") == phase.errors("frontend") == []
    assert phase.quantile_ms("checkout", PLACE, 0.5) < 2 * quiet().quantile_ms("checkout", PLACE, 0.5)
    # all copies of an order link to the same published order
    publish = {span.span_id for span in phase.spans("checkout", "orders publish")}
    assert {link.span_id for span in slow for link in span.links} <= publish | {
        span.span_id for span in made.before.spans("checkout", "orders publish")
    }


def test_kafka_queue_problems_of_2_2_break_accounting_s_context():
    phase = with_flag("kafkaQueueProblems", demo="2.2", users=5)
    logs = phase.logs("accounting", "Order parsing failed:")
    assert len(logs) > 200
    assert {log.severity_text for log in logs} == {"Error"}
    assert "cannot be tracked" in logs[0].attributes["exception.message"]


@pytest.mark.parametrize(("variant", "delay_ms"), [("5sec", 5000), ("10sec", 10_000)])
def test_image_slow_load_delays_at_the_proxy_and_the_image_provider_is_fast(variant, delay_ms):
    phase = with_flag("imageSlowLoad", variant, users=5)
    slow = [
        span for span in phase.spans("frontend-proxy", "ingress") if span.duration_ns > 0.99 * delay_ms * 1e6
    ]
    assert slow
    assert all("/images/products/" in span.attributes["http.url"] for span in slow)
    assert all(span.status == "Unset" for span in slow)
    assert {span.attributes["response_flags"] for span in slow} == {"DI"}
    assert phase.quantile_ms("image-provider", "GET /", 1.0) < 20
    assert phase.quantile_ms("frontend-web", "HTTP GET", 0.9) >= delay_ms
    assert phase.quantile_ms("frontend", "GET /api/cart", 0.5) < 2 * quiet().quantile_ms(
        "frontend", "GET /api/cart", 0.5
    )
    delayed = [log for log in phase.logs("frontend-proxy", "/images/products/") if " 200 DI " in log.body]
    assert delayed


def test_email_memory_leak_kills_the_process_and_orders_stand():
    made = run(flag="emailMemoryLeak", variant="10000x", users=5, seconds=180.0)
    phase = made.fault
    kills = made.shop.world.service("email").kills
    assert len(kills) >= 2
    assert {reason for _, reason in kills} == {"OOMKilled"}
    assert phase.errors("email") == []
    broken = [span for span in phase.errors("checkout", "POST") if span.message == "EOF"]
    assert broken
    warned = phase.logs(
        "checkout",
        "failed to send order confirmation: failed POST to email service: "
        'Post "http://email:6060/send_order_confirmation": EOF',
    )
    assert {log.severity_text for log in warned} == {"WARN"}
    assert phase.errors("checkout", PLACE) == []
    assert phase.logs("email", "Sinatra has taken the stage")
    memory = [
        point.value
        for point in phase.batch.metrics
        if point.instrument.name == "container.memory.usage.total"
        and point.resource.attributes["container.name"] == "email"
    ]
    assert max(memory) > 1.5 * min(memory)


@pytest.mark.parametrize("variant", ["1x", "10x"])
def test_a_small_email_leak_has_no_visible_effect(variant):
    made = run(flag="emailMemoryLeak", variant=variant, users=5, seconds=180.0)
    assert made.shop.world.service("email").kills == []
    assert made.fault.errors("checkout") == []


def test_failed_readiness_probe_is_inert():
    phase = with_flag("failedReadinessProbe", users=5)
    calm = run(users=5, seconds=180.0).fault
    assert [span.name for span in phase.batch.spans] == [span.name for span in calm.batch.spans]


def test_international_shipping_slowdown_delays_orders_to_canada():
    phase = with_flag("intlShippingSlowdown", "10sec", users=40)
    shipped = phase.spans("shipping", "POST /ship-order")
    slow = [span for span in shipped if span.duration_ns > 9.9e9]
    logs = phase.logs("shipping", "Delaying international shipment due to intlShippingSlowdown feature flag")
    assert 0 < len(slow) < 0.3 * len(shipped)
    assert len(logs) == pytest.approx(len(slow), abs=2)
    assert {(log.event_name, log.attributes["delay_secs"]) for log in logs} == {
        ("shipping.international.slowdown", 10)
    }
    evaluated = phase.logs("shipping", "feature flag evaluated")
    assert {log.attributes["feature_flag.variant"] for log in evaluated} == {"10sec"}
    assert phase.quantile_ms("checkout", PLACE, 0.5) < 200
    assert phase.quantile_ms("checkout", PLACE, 1.0) > 10_000
    assert phase.quantile_ms("quote", "POST /getquote", 1.0) < 100
    assert phase.errors("checkout") == phase.errors("frontend") == []


def test_disabled_traffic_leaves_only_infrastructure_spans():
    phase = with_flag("loadGeneratorTraffic", "off", users=5)
    calm = run(users=5, seconds=180.0).fault
    names = {
        span.name
        for span in phase.of("load-generator")
        if span.start_ns > phase.batch.spans[0].start_ns + 30e9
    }
    assert names == {"feature_flag.evaluate"}
    assert phase.rate("product-catalog") < 0.1 * calm.rate("product-catalog")
    assert [
        span for span in phase.batch.spans if span.status == "Error" and "EventStream" not in span.name
    ] == []


def test_more_virtual_users_after_a_restart_of_k6():
    phase = with_flag("loadGeneratorVUs", "50", users=5)
    calm = run(users=5, seconds=180.0).fault
    assert phase.rate("product-catalog") > 3.5 * calm.rate("product-catalog")
    assert phase.errors("frontend") == []


@pytest.mark.parametrize("demo", ["2.2", "3.1"])
def test_flooding_loads_the_front_page(demo):
    phase = with_flag("loadGeneratorFloodHomepage", demo=demo, users=3, seconds=120.0)
    floods = phase.spans("load-generator", "user_flood_home")
    assert floods
    assert {span.attributes["flood.count"] for span in floods} == {100}
    assert len(phase.logs("load-generator", "User flooding homepage 100 times")) == pytest.approx(
        len(floods), abs=1
    )
    assert phase.rate("frontend-proxy") > 1.5 * run(demo, users=3, seconds=120.0).fault.rate("frontend-proxy")


def test_lock_contention_delays_all_readers_of_products():
    phase = with_flag("productCatalogLockContention", demo="3.1", users=5)
    assert len(phase.logs("product-catalog", "lock contention scenario active")) >= 4
    assert phase.quantile_ms("product-catalog", "astronomy-db", 0.9) > 5000
    locked = [
        span
        for span in phase.of("product-catalog")
        if "LOCK TABLE" in span.attributes.get("db.query.text", "")
    ]
    assert all(span.duration_ns >= 30e9 for span in locked)
    # the proxy times out long before the lock is released
    timed_out = phase.errors("frontend-proxy", "ingress")
    assert {span.attributes["http.status_code"] for span in timed_out} == {"504"}
    assert {span.attributes["response_flags"] for span in timed_out} == {"UT"}
    assert phase.quantile_ms("ad", GET_ADS, 0.9) < 20


def test_llm_rate_limit_rejects_requests_and_the_page_still_loads():
    phase = with_flag("llmRateLimitError", demo="2.2")
    failed = phase.errors("product-reviews")
    assert {span.name for span in failed} == {"openai.chat"}
    assert failed[0].message.startswith("Error code: 429")
    assert {span.name for span in phase.errors("llm")} == set()
    assert phase.logs("product-reviews", "Caught Exception: Error code: 429")
    assert phase.errors("frontend") == []


def test_an_inaccurate_answer_shows_in_no_span():
    phase = with_flag("llmInaccurateResponse", demo="2.2")
    assert phase.errors("product-reviews") == phase.errors("llm") == phase.errors("frontend") == []
    assert (
        run("2.2", flag="llmInaccurateResponse", users=15, seconds=180.0).flags.asked["llmInaccurateResponse"]
        > 0
    )
