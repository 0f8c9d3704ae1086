"""Driven visits against a stand-in of the frontend, over real HTTP."""

import socket
from collections.abc import Iterator, Mapping, Sequence
from random import Random

import pytest

from pytest_otel_diag import catalog
from pytest_otel_diag.errors import ConfigurationError, FlagError
from pytest_otel_diag.model.flags import FlagValue, ServedFlag
from pytest_otel_diag.targets.live import recipes
from pytest_otel_diag.targets.live import traffic as live_traffic
from pytest_otel_diag.targets.live.recipes import BY_FLAG, BY_SERVICE, VISITS
from pytest_otel_diag.targets.live.traffic import LiveTraffic, NoDriving
from tests.support.deadlines import eventually_async
from tests.support.frontend_stand_in import Frontend, frontend

FAST = 200.0


@pytest.fixture
def shop_front() -> Iterator[Frontend]:
    with frontend() as stand_in:
        yield stand_in


def serving(value: FlagValue):
    async def served(key: str, context: Mapping[str, FlagValue]) -> ServedFlag:
        return ServedFlag(key=key, variant="x", value=value, at_ns=0)

    return served


def traffic(url: str, *flags: str, value: FlagValue = 0, rate: float = FAST, seed: int = 1) -> LiveTraffic:
    return LiveTraffic(url, flags=flags, served=serving(value), rng=Random(seed), rate=rate)


async def driven(url: str, flags: Sequence[str], services: Sequence[str] = (), calls: int = 3) -> LiveTraffic:
    async with traffic(url, *flags) as live:
        assert await live.drive(services, calls) == calls
        await live.settle()
        return live


@pytest.mark.parametrize(
    ("flag", "path"),
    [
        ("adFailure", "GET /api/data"),
        ("cartServiceFailure", "POST /api/checkout"),  # by its name of release 1.12
        ("productCatalogFailure", "GET /api/products/OLJCESPC7Z"),
        ("recommendationCacheFailure", "GET /api/recommendations"),
        ("failedReadinessProbe", "GET /api/cart"),
        ("llmRateLimitError", "POST /api/product-ask-ai-assistant/"),
    ],
)
async def test_the_visit_suits_the_flag(shop_front: Frontend, flag: str, path: str) -> None:
    await driven(shop_front.url, [flag])
    assert sum(seen.startswith(path) for seen in shop_front.paths()) == 3


async def test_an_order_is_complete_and_goes_abroad_for_the_flag_about_that(shop_front: Frontend) -> None:
    await driven(shop_front.url, ["intlShippingSlowdown"], calls=1)
    product, cart, order = shop_front.seen
    assert (product.method, cart.path.partition("?")[0]) == ("GET", "/api/cart")
    assert order.body["address"]["country"] == "Canada"
    assert order.body["userId"] == cart.body["userId"]
    assert cart.body["item"]["productId"] in product.path
    assert set(order.body) == {"userId", "email", "address", "userCurrency", "creditCard"}
    assert recipes.FRAGILE_PRODUCT not in product.path
    shop_front.seen.clear()
    await driven(shop_front.url, ["paymentFailure"], calls=1)
    assert shop_front.seen[-1].body["address"]["country"] == "United States"


@pytest.mark.parametrize(("value", "header"), [(10000, "10000"), (0, "0"), (False, "0"), ("odd", "0")])
async def test_images_carry_the_delay_that_is_served(
    shop_front: Frontend, value: FlagValue, header: str
) -> None:
    async with traffic(shop_front.url, "imageSlowLoad", value=value) as live:
        await live.drive((), 2)
        await live.settle()
    assert [seen.headers[recipes.DELAY_HEADER] for seen in shop_front.seen] == [header] * 2
    assert all(path.startswith("GET /images/products/") for path in shop_front.paths())


async def test_a_flag_that_cannot_be_read_delays_nothing(shop_front: Frontend) -> None:
    async def fails(key: str, context: Mapping[str, FlagValue]) -> ServedFlag:
        raise FlagError("away")

    async with LiveTraffic(
        shop_front.url, flags=["imageSlowLoad"], served=fails, rng=Random(1), rate=FAST
    ) as live:
        await live.drive((), 1)
        await live.settle()
    assert shop_front.seen[0].headers[recipes.DELAY_HEADER] == "0"


async def test_errors_of_the_system_are_counted_and_not_raised(shop_front: Frontend) -> None:
    shop_front.status["/api/checkout"] = 500
    live = await driven(shop_front.url, ["paymentFailure"])
    assert live.counts == {"200": 6, "500": 3}


@pytest.mark.parametrize(
    ("status", "content", "outcome"),
    [
        (308, "", "308"),
        (302, "", "302"),
        (404, "", "404"),
        (405, "", "405"),
        (429, "", "429"),
        (503, "", "503"),
        (200, "text/html; charset=utf-8", "200 page"),
    ],
)
async def test_an_answer_that_is_none_to_the_call_is_no_call(
    shop_front: Frontend, status: int, content: str, outcome: str
) -> None:
    shop_front.status["/api/data"], shop_front.content = status, content
    async with traffic(shop_front.url, "adFailure") as live:
        assert await live.drive((), 3) == 3
        await live.settle()
        assert (live.counts, live.made()) == ({outcome: 3}, 0)
        assert await live.drive((), 3) == (3 if status == 503 else 0), "asking on would be in vain"


async def test_a_path_that_the_frontend_redirects_is_no_call(
    shop_front: Frontend, monkeypatch: pytest.MonkeyPatch
) -> None:
    def slashed(rng, customer):
        return (recipes.Request("GET", "/api/data/", {"contextKeys": "travel"}),)

    monkeypatch.setattr(live_traffic, "VISITS", {**VISITS, "ads": slashed})
    live = await driven(shop_front.url, ["adFailure"])
    assert (live.counts, live.made()) == ({"308": 3}, 0)


async def test_a_visit_counts_when_each_of_its_requests_reached_the_system(shop_front: Frontend) -> None:
    shop_front.status |= {"/api/checkout": 500}
    assert (await driven(shop_front.url, ["paymentFailure"])).made() == 3
    shop_front.status["/api/cart"] = 404
    assert (await driven(shop_front.url, ["paymentFailure"])).made() == 0


async def test_a_connection_that_breaks_is_counted(shop_front: Frontend) -> None:
    shop_front.broken = True
    live = await driven(shop_front.url, ["adFailure"])
    assert live.counts == {"broken": 3}


async def test_slow_answers_time_out(shop_front: Frontend, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(live_traffic, "TIMEOUT_S", 0.05)
    shop_front.delay_s = 0.5
    live = await driven(shop_front.url, ["adFailure"], calls=2)
    assert live.counts == {"timeout": 2}


async def test_few_at_a_time_and_no_faster_than_the_rate(shop_front: Frontend) -> None:
    shop_front.delay_s = 0.2
    async with traffic(shop_front.url, "adFailure", rate=20.0) as live:
        await live.drive((), 12)
        await live.settle()
    assert shop_front.most_at_once <= live_traffic.AT_ONCE
    times = [seen.at_s for seen in shop_front.seen]
    assert max(times) - min(times) >= 11 / 20.0 - 0.1


async def test_a_full_queue_refuses_what_does_not_fit(shop_front: Frontend) -> None:
    shop_front.delay_s = 0.2
    async with traffic(shop_front.url, "adFailure") as live:
        assert await live.drive((), 10_000) == live_traffic.WAITING


async def test_nothing_is_accepted_once_the_frontend_is_unreachable() -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
    async with traffic(f"http://127.0.0.1:{port}", "paymentFailure") as live:
        assert await live.drive((), 2) == 2
        await live.settle()
        assert set(live.counts) == {"unreachable"}
        assert live.counts["unreachable"] >= live_traffic.UNREACHABLE
        assert await live.drive((), 2) == 0


async def test_closing_ends_visits_under_way(shop_front: Frontend) -> None:
    shop_front.delay_s = 5.0
    async with traffic(shop_front.url, "adFailure") as live:
        await live.drive((), 8)
        assert await eventually_async(lambda: shop_front.seen)
    assert len(shop_front.seen) <= live_traffic.AT_ONCE
    assert await live.drive((), 0) == 0


async def test_controls_make_visits_of_the_services_they_are_asked_for(shop_front: Frontend) -> None:
    await driven(shop_front.url, [], ["adservice"], calls=2)  # by its name of release 1.12
    assert shop_front.paths() == ["GET /api/data"] * 2


async def test_controls_that_name_nothing_draw_a_kind(shop_front: Frontend) -> None:
    kinds = set()
    for seed in range(12):
        shop_front.seen.clear()
        async with traffic(shop_front.url, seed=seed) as live:
            assert await live.drive((), 1) == 1
            await live.settle()
        kinds.add(tuple(path.split("/")[2] for path in shop_front.paths()))
    assert len(kinds) > 2


async def test_a_flag_without_a_visit_is_driven_by_services_or_not_at_all(shop_front: Frontend) -> None:
    async with traffic(shop_front.url, "loadGeneratorTraffic") as live:
        assert await live.drive((), 3) == 0
        assert await live.drive(["ad"], 1) == 1


async def test_before_it_is_entered_nothing_is_accepted(shop_front: Frontend) -> None:
    assert await traffic(shop_front.url, "adFailure").drive((), 1) == 0


async def test_an_address_that_is_none_is_refused() -> None:
    with pytest.raises(ConfigurationError, match="write http://HOST:PORT"):
        async with traffic("http://[::", "adFailure"):
            pass


async def test_without_httpx_the_extra_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(__import__("sys").modules, "httpx", None)
    with pytest.raises(ConfigurationError, match=r"pytest-otel-diag\[live\]"):
        async with traffic("http://localhost:1", "adFailure"):
            pass


async def test_no_driving_makes_no_call() -> None:
    assert await NoDriving().drive(["ad"], 5) == NoDriving().made() == 0


def test_every_flag_of_the_catalog_has_a_visit_but_those_about_traffic() -> None:
    without = {flag.key for flag in catalog.load().flags} - set(BY_FLAG)
    assert all(flag.startswith("loadGenerator") for flag in without), without
    assert set(BY_FLAG) <= {flag.key for flag in catalog.load().flags}
    assert {*BY_FLAG.values(), *BY_SERVICE.values()} == set(VISITS)
    known = {service.name for system in catalog.load().systems for service in system.services}
    assert set(BY_SERVICE) <= known


@pytest.mark.parametrize("kind", sorted(VISITS))
def test_visits_repeat_with_their_seed(kind: str) -> None:
    one, other = (VISITS[kind](Random(7), "customer") for _ in range(2))
    assert one == other
    assert all(request.path.startswith("/") for request in one)
