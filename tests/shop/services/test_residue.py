"""Residual effects after a flag is off again."""

from __future__ import annotations

import pytest

from tests.shop.services.shop_runs import run


@pytest.mark.parametrize(
    ("flag", "variant"), [("adFailure", "on"), ("paymentFailure", "100%"), ("productCatalogFailure", "on")]
)
def test_errors_end_with_their_flag(flag, variant):
    made = run(flag=flag, variant=variant, users=15, seconds=60.0, after_s=60.0)
    assert [
        span for span in made.fault.batch.spans if span.status == "Error" and "EventStream" not in span.name
    ]
    last = max(span.start_ns for span in made.fault.batch.spans)
    assert [
        span
        for span in made.after.batch.spans
        if span.status == "Error" and "EventStream" not in span.name and span.start_ns > last
    ] == []


def test_the_cache_of_recommendation_is_kept():
    made = run(flag="recommendationCacheFailure", users=15, seconds=60.0, after_s=60.0)
    instance = made.shop.world.service("recommendation").instances[0]
    assert instance.state.ids > 50
    held = instance.heap.live - instance.heap.spec.live_bytes
    assert held == instance.state.ids * 8
    sizes = {
        span.attributes["demo.product.count"]
        for span in made.after.spans("recommendation", "get_product_list")
    }
    assert 10 in sizes  # the list is requested from the catalog again


def test_checkout_keeps_its_leaked_clients():
    made = run(flag="paymentUnreachable", users=15, seconds=60.0, after_s=60.0)
    instance = made.shop.world.service("checkout").instances[0]
    failed = len(made.fault.errors("checkout", "oteldemo.PaymentService/Charge"))
    assert instance.goroutines >= 8 * failed > 0
    assert made.after.errors("checkout") == []
    assert made.after.spans("payment", "charge")


def test_a_backlog_drains_fast_once_consumers_no_longer_sleep():
    made = run(flag="kafkaQueueProblems", users=5, seconds=180.0, after_s=60.0)
    checked = made.after.spans("fraud-detection", "orders process")
    assert len(checked) > 200
    quick = [span for span in checked if span.duration_ns < 100e6]
    assert len(quick) > 0.9 * len(checked)
    assert made.shop.world.broker.topics["orders"].groups["fraud-detection"].total_lag < 5


def test_emails_are_released_with_the_next_delivery():
    made = run(flag="emailMemoryLeak", variant="100x", users=15, seconds=60.0, after_s=60.0)
    instance = made.shop.world.service("email").instances[0]
    assert instance.state.kept == 0
    assert instance.heap.live == instance.heap.spec.live_bytes


def test_threads_spin_until_a_request_finds_the_flag_off():
    made = run(flag="adHighCpu", users=15, seconds=60.0, after_s=60.0)
    assert made.shop.world.service("ad").instances[0].hogs == 0
    spinning = made.after.logs("ad", "High CPU-Load problempattern enabled")
    assert len(spinning) <= 1


def test_objects_that_wait_for_finalizers_stay_on_the_heap():
    made = run(flag="adManualGc", users=5, seconds=60.0, after_s=60.0)
    instance = made.shop.world.service("ad").instances[0]
    assert instance.state.waiting > 50e6
    assert instance.heap.live > 0.85 * 200e6


def test_a_restart_clears_the_state_of_a_process():
    made = run(flag="adManualGc", users=5, seconds=61.0, after_s=1.0)
    service = made.shop.world.service("ad")
    service.replace()
    made.shop.advance(made.shop.now_ns + 60 * 10**9)
    assert service.instances[0].state.waiting == 0
    assert service.instances[0].heap.live < 0.5 * 200e6


def test_accounting_of_2_2_stays_broken_until_it_is_replaced():
    made = run("2.2", flag="kafkaQueueProblems", users=5, seconds=90.0, after_s=60.0)
    assert made.after.logs("accounting", "Order parsing failed:")
    assert made.shop.world.service("accounting").instances[0].state.broken
