"""Rates of the shop without faults against those of the real demo (5 HTTP users and one browser)."""

from __future__ import annotations

import pytest

from pytest_otel_diag.shop.traffic.tasks import THINK_S, WEIGHTS
from tests.shop.services.shop_runs import run

# spans a second and server spans a second, measured by a third party (chart 0.41, demo 3.0)
MEASURED = {
    "frontend": (13.3, 7.3),
    "frontend-proxy": (12.7, 6.5),
    "flagd": (10.0, 6.5),
    "product-catalog": (5.3, 2.8),
    "frontend-web": (4.6, 0.0),
    "cart": (2.7, 1.0),
    "load-generator": (2.1, 0.0),
    "image-provider": (1.35, 1.3),
    "recommendation": (1.06, 0.37),
    "checkout": (0.85, 0.067),
    "ad": (0.48, 0.26),
    "currency": (0.41, 0.41),
    "quote": (0.33, 0.11),
    "shipping": (0.28, 0.175),
    "email": (0.25, 0.067),
    "accounting": (0.175, 0.0),
    "fraud-detection": (0.125, 0.0),
    "payment": (0.117, 0.067),
}


def long_run():
    return run("3.0", seconds=900.0)


@pytest.mark.parametrize("service", MEASURED)
def test_a_service_emits_as_many_spans_as_the_real_one(service):
    spans, servers = MEASURED[service]
    phase = long_run().fault
    assert spans / 1.5 < phase.rate(service) < spans * 1.5
    assert servers / 1.5 <= phase.rate(service, "Server") <= servers * 1.5


def test_nothing_fails_but_flagd_s_streams():
    phase = long_run().fault
    assert [
        span for span in phase.batch.spans if span.status == "Error" and "EventStream" not in span.name
    ] == []
    streams = [
        span for one in (long_run().before, phase) for span in one.of("ad") if "EventStream" in span.name
    ]
    assert streams
    assert {span.status for span in streams} == {"Error"}
    assert all(span.duration_ns <= 600.1e9 for span in streams)


def test_tasks_follow_weights_and_think_times():
    spans = [span for span in long_run().fault.of("load-generator") if span.name.startswith("user_")]
    count = {name: sum(span.name == name for span in spans) for name in {span.name for span in spans}}
    mean_s = sum(THINK_S) / 2
    done = sum(WEIGHTS.values())
    for name, weight in (("user_browse_product", 10), ("user_get_ads", 3), ("user_view_cart", 3)):
        expected = 5 * 900 / mean_s * weight / done
        assert 0.7 * expected < count[name] < 1.2 * expected
    assert WEIGHTS["flood_home"] == 5
    assert "user_flood_home" not in count


def test_load_scales_with_the_users():
    few, many = run("3.0", users=5, seconds=900.0).fault, run("3.0", users=50, seconds=60.0).fault
    ratio = many.rate("load-generator") / few.rate("load-generator")
    assert 8 < ratio < 12
    # the one browser does not scale, and makes most of the requests of five users
    assert 3 < many.rate("frontend") / few.rate("frontend") < 8


def test_requests_end_once():
    counters = long_run().shop.counters
    inflight = counters.requests_begun - counters.requests_ended
    # in flight: flagd's streams and the current requests of users
    assert 8 <= inflight <= 40
    groups = [
        group for topic in long_run().shop.world.broker.topics.values() for group in topic.groups.values()
    ]
    consumed = sum(group.consumed for group in groups)
    assert consumed + sum(group.total_lag for group in groups) == counters.messages_produced * len(groups)


def test_pictures_are_fetched_by_browsers_only():
    alone = run("3.0", seconds=900.0).fault
    pictures = alone.of("image-provider")
    assert pictures
    by_id = {span.span_id: span for span in alone.batch.spans}
    for span in pictures[:50]:
        root = span
        while root.parent_id in by_id:
            root = by_id[root.parent_id]
        assert root.resource.service in ("frontend-web", "frontend-proxy")
