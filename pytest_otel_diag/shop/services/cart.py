"""cart (.NET): carts in Valkey. cartFailure makes only EmptyCart fail: it uses an unreachable store.

The unreachable store connects under a lock, so failing calls wait for each other. The time of a connect
depends on the host's resolver and is drawn at random.
"""

from __future__ import annotations

import math
from collections.abc import Mapping

from pytest_otel_diag.shop.demo.blueprint import Blueprint
from pytest_otel_diag.shop.demo.instrumentation import Http
from pytest_otel_diag.shop.demo.payloads import CartItem, fields
from pytest_otel_diag.shop.demo.releases import DemoRelease
from pytest_otel_diag.shop.emission.instruments import SECONDS_BOUNDS, MetricShape
from pytest_otel_diag.shop.kernel import (
    Call,
    Instance,
    Operation,
    Pool,
    RpcFailure,
    ServiceSpec,
    SpanOutcome,
    SpanShape,
    Steps,
    exception_event,
)
from pytest_otel_diag.shop.records import AttributeValue, Instrument, Scope
from pytest_otel_diag.shop.services import flagd
from pytest_otel_diag.shop.services.databases import VALKEY

SERVICE = "oteldemo.CartService"
GET, ADD, EMPTY = f"{SERVICE}/GetCart", f"{SERVICE}/AddItem", f"{SERVICE}/EmptyCart"
UNREACHABLE = (
    "Can't access cart storage. System.ApplicationException: Wasn't able to connect to redis\n"
    "   at cart.cartstore.ValkeyCartStore.EnsureRedisConnected()\n"
    "   at cart.cartstore.ValkeyCartStore.EmptyCartAsync(String userId)"
)
CONNECT_MEDIAN_S, CONNECT_SIGMA = 0.09, 1.3
"""Times to connect to a host that does not resolve: mostly tens of milliseconds, sometimes seconds."""

_ASPNET = Scope("Microsoft.AspNetCore", "")
_REDIS = Scope("OpenTelemetry.Instrumentation.StackExchangeRedis", "1.12.0-beta.2")
_HTTP = Scope("System.Net.Http", "")
_METER = Scope("OpenTelemetry.Demo.Cart", "")
_STORE = Scope("cart.cartstore.ValkeyCartStore", "")
_GRPC_LOG = Scope("Grpc.AspNetCore.Server.ServerCallHandler", "")
_HOOK = Scope("OpenFeature", "")
_EVALUATIONS = MetricShape(Instrument("feature_flag.evaluation_requests_total", "sum", "{request}"), _HOOK)
_EVALUATED = (("feature_flag.key", "cartFailure"), ("feature_flag.provider.name", "flagd Provider"))
_AGENT = "user_agent.original"
_AGENTS: Mapping[str, AttributeValue] = {"checkout": "grpc-go/1.77.0", "frontend": "grpc-node-js/1.14.3"}
"""User agents of the services that call the cart."""
_CARTS_KEPT = 4000
"""Number of carts that a simulation keeps; Valkey expires carts after an hour."""


class Carts:
    """State of an instance: the lock around connects of the unreachable store. Valkey holds the carts."""

    __slots__ = ("connect_s", "connecting")

    def __init__(self, instance: Instance) -> None:
        self.connecting = Pool(instance.env, "badhost", 1)
        self.connect_s = math.log(CONNECT_MEDIAN_S)


def _server(rpc: str, *, modern: bool) -> SpanShape:
    service, _, method = rpc.partition("/")
    attributes: dict[str, AttributeValue] = {
        "server.address": "cart",
        "server.port": 8080,
        "http.request.method": "POST",
        "url.scheme": "http",
        "url.path": f"/{rpc}",
        "http.route": f"/{rpc}",
        "network.protocol.version": "2",
        "grpc.method": f"/{rpc}",
        "http.response.status_code": 200,
    }
    attributes |= (
        {"rpc.system.name": "grpc", "rpc.method": rpc}
        if modern
        else {"rpc.system": "grpc", "rpc.service": service, "rpc.method": method}
    )

    def failed(failure: RpcFailure) -> SpanOutcome:
        event = exception_event(
            "Grpc.Core.RpcException", f'Status(StatusCode="FailedPrecondition", Detail="{failure.message}")'
        )
        status: dict[str, AttributeValue] = {"grpc.status_code": "9"}
        if modern:
            status["rpc.response.status_code"] = failure.code
        return SpanOutcome("Error", failure.message, status, (event,))

    done: dict[str, AttributeValue] = {"grpc.status_code": "0"}
    if modern:
        done["rpc.response.status_code"] = "OK"
    series = (("http.request.method", "POST"), ("http.response.status_code", 200), ("http.route", f"/{rpc}"))
    duration = MetricShape(
        Instrument("http.server.request.duration", "histogram", "s"), _ASPNET, SECONDS_BOUNDS
    )
    return SpanShape(
        f"POST /{rpc}", "Server", _ASPNET, attributes, SpanOutcome(attributes=done), failed,
        duration=duration, duration_series=series,
    )  # fmt: skip


def _command(name: str) -> SpanShape:
    attributes: dict[str, AttributeValue] = {
        "db.system": "redis",
        "db.statement": name,
        "db.redis.database_index": 0,
        "server.address": VALKEY,
        "server.port": 6379,
    }
    return SpanShape(name, "Client", _REDIS, attributes)


def _client(target: str, operation: str) -> SpanShape | None:
    if target == VALKEY:
        return _command(operation)
    if operation.endswith(flagd.EVENT_STREAM):
        return None
    return Http(_HTTP).client("POST", f"http://flagd:8013/{operation}")


class _Service:
    """Behaviours of the cart in one release, with the carts that Valkey holds."""

    def __init__(self, blueprint: Blueprint) -> None:
        release = blueprint.release
        name = release.attribute
        self.user, self.product, self.quantity = name("user.id"), name("product.id"), name("product.quantity")
        self.items = name("cart.items.count")
        self.carts: dict[str, dict[str, int]] = {}
        self.cost = blueprint.cpu("cart", 0.7)
        self.add_latency = _latency(release, "cart.add_item")
        self.get_latency = _latency(release, "cart.get_cart")
        self.percent = release.percent_cart
        self.events = (
            ("cart.item.adding", "cart.fetching", "cart.emptying") if blueprint.modern else ("", "", "")
        )

    def get_cart(self, call: Call, user: str) -> Steps:
        call.event("Fetch cart")
        agent = _AGENTS.get(call.caller, "")
        begun_s = call.now_s
        call.log(
            "Information", "GetCartAsync called with userId={userId}", scope=_STORE,
            event_name=self.events[1], userId=user,
        )  # fmt: skip
        yield from call.work(self.cost)
        yield from call.request(VALKEY, "HGET", user)
        call.observe(self.get_latency, call.now_s - begun_s)
        found = tuple(CartItem(product, number) for product, number in self.carts.get(user, {}).items())
        number = sum(item.quantity for item in found)
        call.set(**fields({self.user: user, self.items: number, _AGENT: agent}))
        return found

    def add_item(self, call: Call, request: tuple[str, CartItem]) -> Steps:
        user, item = request
        call.set(
            **fields(
                {
                    self.user: user,
                    self.product: item.product,
                    self.quantity: item.quantity,
                    _AGENT: _AGENTS.get(call.caller, ""),
                }
            )
        )
        begun_s = call.now_s
        call.log(
            "Information",
            "AddItemAsync called with userId={userId}, productId={productId}, quantity={quantity}",
            scope=_STORE,
            event_name=self.events[0],
            userId=user,
            productId=item.product,
            quantity=item.quantity,
        )
        yield from call.work(self.cost)
        yield from call.request(VALKEY, "HGET", user)
        cart = self.carts.setdefault(user, {})
        cart[item.product] = cart.get(item.product, 0) + item.quantity
        if len(self.carts) > _CARTS_KEPT:
            del self.carts[next(iter(self.carts))]
        yield from call.request(VALKEY, "HMSET", user)
        yield from call.request(VALKEY, "EXPIRE", user)
        call.observe(self.add_latency, call.now_s - begun_s)

    def empty_cart(self, call: Call, user: str) -> Steps:
        call.set(**{self.user: user, _AGENT: _AGENTS.get(call.caller, "")})
        call.event("Empty cart")
        default: float | bool = 0.0 if self.percent else False
        share = yield from call.flag("cartFailure", default)
        call.count(_EVALUATIONS, 1.0, _EVALUATED)
        call.log(
            "Information", "EmptyCartAsync called with userId={userId}", scope=_STORE,
            event_name=self.events[2], userId=user,
        )  # fmt: skip
        if share and (share is True or call.instance.rng.random() < share):
            yield from _unreachable(call)
        yield from call.work(self.cost)
        self.carts.pop(user, None)
        yield from call.request(VALKEY, "HMSET", user)
        yield from call.request(VALKEY, "EXPIRE", user)


def _unreachable(call: Call) -> Steps:
    """Connect to the unreachable store, one connect at a time, and fail."""
    carts: Carts = call.state
    yield from carts.connecting.acquire()
    try:
        yield from call.wait(call.instance.rng.lognormvariate(carts.connect_s, CONNECT_SIGMA))
    finally:
        carts.connecting.release()
    call.instance.goroutines += 2  # the connection multiplexer is never disposed of and keeps trying
    call.instance.heap.retain(60_000)
    call.log(
        "Error", "Wasn't able to connect to redis", scope=_STORE, event_name="cart.redis.connection_failed"
    )
    call.log(
        "Information",
        "Error status code '{StatusCode}' with detail '{Detail}' raised.",
        scope=_GRPC_LOG,
        StatusCode="FailedPrecondition",
        Detail=UNREACHABLE,
    )
    raise RpcFailure("FAILED_PRECONDITION", UNREACHABLE)


def _latency(release: DemoRelease, alias: str) -> MetricShape:
    return MetricShape(Instrument(release.metric(alias), "histogram", "s"), _METER, SECONDS_BOUNDS)


def specs(blueprint: Blueprint) -> list[ServiceSpec]:
    """Return the spec of the cart service."""
    service, modern = _Service(blueprint), blueprint.modern
    operations: Mapping[str, Operation] = {
        GET: Operation(service.get_cart, _server(GET, modern=modern), allocates=180_000),
        ADD: Operation(service.add_item, _server(ADD, modern=modern), allocates=220_000),
        EMPTY: Operation(service.empty_cart, _server(EMPTY, modern=modern), allocates=220_000),
    }
    return [
        blueprint.spec(
            "cart",
            operations=operations,
            client=_client,
            flags=blueprint.flag_client(hook=True, remote="flagd", operation=flagd.rpc_method),
            state=Carts,
            loops=(flagd.LISTEN,),
        )
    ]
