"""frontend (Next.js): pages, files and API routes in front of the shop's gRPC services.

An API route that fails records the exception on its span and responds with 500. The frontend exports no
logs.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

from pytest_otel_diag.shop.demo.blueprint import Blueprint
from pytest_otel_diag.shop.demo.instrumentation import Http, node_message
from pytest_otel_diag.shop.demo.payloads import CartItem, CheckoutOrder, HttpRequest
from pytest_otel_diag.shop.emission.instruments import MetricShape, Series
from pytest_otel_diag.shop.kernel import (
    Call,
    Operation,
    RpcFailure,
    ServiceSpec,
    SpanOutcome,
    SpanShape,
    Steps,
    exception_event,
)
from pytest_otel_diag.shop.records import AttributeValue, Instrument, Scope
from pytest_otel_diag.shop.services import (
    ad,
    cart,
    checkout,
    currency,
    product_catalog,
    product_reviews,
    recommendation,
    shipping,
)

FILE = "file"
SHOWN = 4
"""Number of recommended products that a page shows."""

_HTTP = Scope("@opentelemetry/instrumentation-http", "0.208.0")
_UNDICI = Scope("@opentelemetry/instrumentation-undici", "0.19.0")
_NEXT = Scope("next.js", "0.0.1")
_METER = Scope("frontend", "")
_PORTS = {
    "ad": 9555,
    "cart": 7070,
    "checkout": 5050,
    "currency": 7001,
    "product-catalog": 3550,
    "product-reviews": 3551,
    "recommendation": 9001,
}

Handler = Callable[[Call, HttpRequest], Steps]


def _product(call: Call, product: str, code: str) -> Steps:
    found = yield from call.request("product-catalog", product_catalog.GET, product)
    if code != "USD":
        yield from call.request("currency", currency.CONVERT, (found.price_usd, "USD", code))
    return found


def _products(call: Call, products: Sequence[str], code: str) -> Steps:
    """Get several products concurrently, as Promise.all does."""
    if len(products) == 1:
        return [(yield from _product(call, products[0], code))]
    return (yield from call.gather(*(_fetch(product, code) for product in products)))


def _fetch(product: str, code: str) -> Callable[[Call], Steps]:
    return lambda branch: _product(branch, product, code)


def _convert(amount: float, code: str) -> Callable[[Call], Steps]:
    return lambda branch: branch.request("currency", currency.CONVERT, (amount, "USD", code))


def _list_products(call: Call, web: HttpRequest) -> Steps:
    ids = yield from call.request("product-catalog", product_catalog.LIST)
    if web.body != "USD":
        yield from call.gather(*(_convert(100.0, web.body) for _ in ids))


def _get_product(call: Call, web: HttpRequest) -> Steps:
    product, code = web.body
    return _product(call, product, code)


def _recommendations(call: Call, web: HttpRequest) -> Steps:
    product, code = web.body
    ids = yield from call.request("recommendation", recommendation.LIST, (product,))
    yield from _products(call, ids[:SHOWN], code)


def _ads(call: Call, web: HttpRequest) -> Steps:
    return call.request("ad", ad.GET_ADS, web.body)


def _view_cart(call: Call, web: HttpRequest) -> Steps:
    user, code = web.body
    items: Sequence[CartItem] = yield from call.request("cart", cart.GET, user)
    if items:
        yield from _products(call, [item.product for item in items], code)
    return items


def _add_to_cart(call: Call, web: HttpRequest) -> Steps:
    yield from call.request("cart", cart.ADD, web.body)
    return (yield from call.request("cart", cart.GET, web.body[0]))


def _checkout(call: Call, web: HttpRequest) -> Steps:
    order: CheckoutOrder = web.body
    placed = yield from call.request("checkout", checkout.PLACE_ORDER, order)
    if placed.items:
        yield from _products(call, [item.product for item in placed.items], order.currency)
    return placed


def _currencies(call: Call, web: HttpRequest) -> Steps:  # noqa: ARG001 - a handler
    return call.request("currency", currency.SUPPORTED)


def _shipping(call: Call, web: HttpRequest) -> Steps:
    items, code = web.body
    price = yield from call.request("shipping", shipping.GET_QUOTE, items)
    if code != "USD":
        yield from call.request("currency", currency.CONVERT, (price, "USD", code))
    return price


# 3.x: the route of the file that handles a product
INDEXED = {"GET /api/products/[productId]": "GET /api/products/[productId]/index"}
API: dict[str, Handler] = {
    "GET /api/products": _list_products,
    "GET /api/products/[productId]": _get_product,
    "GET /api/recommendations": _recommendations,
    "GET /api/data": _ads,
    "GET /api/cart": _view_cart,
    "POST /api/cart": _add_to_cart,
    "POST /api/checkout": _checkout,
    "GET /api/currency": _currencies,
    "GET /api/shipping": _shipping,
}
PAGES = ("GET /", "GET /cart", "GET /product/[productId]")


class _Routes:
    """Builds the operations with the spans of the HTTP library and Next.js and the counter of 2.x."""

    def __init__(self, blueprint: Blueprint) -> None:
        self.blueprint = blueprint
        self.cost, self.around = blueprint.cpu("frontend", 2.9), blueprint.cpu("frontend", 0.15)
        self.page_cost = blueprint.cpu("frontend", 12.0)
        self.file_cost = blueprint.cpu("frontend", 1.1)
        self.counter = (
            None if blueprint.modern else MetricShape(Instrument("app.frontend.requests", "sum"), _METER)
        )
        self.files = self._server("GET")
        self.resolve = SpanShape(
            "resolve page components",
            "Internal",
            _NEXT,
            {
                "next.span_type": "NextNodeServer.findPageComponents",
                "next.span_name": "resolve page components",
            },
        )

    def _server(self, method: str, route: str = "") -> SpanShape:
        """Return the outer span of a request; in 3.x Next.js renames it once it knows the route."""
        attributes: dict[str, AttributeValue]
        if self.blueprint.modern:
            attributes = {
                "http.request.method": method,
                "url.scheme": "http",
                "server.address": "frontend-proxy",
                "server.port": 8080,
                "network.peer.address": "172.18.0.27",
                "network.protocol.version": "1.1",
                "client.address": "172.18.0.27",
            }
            if route:
                attributes["http.route"] = route.partition(" ")[2]
            status, name = "http.response.status_code", "http.server.request.duration"
        else:
            attributes = {
                "http.method": method,
                "http.scheme": "http",
                "http.flavor": "1.1",
                "net.host.name": "frontend-proxy",
                "net.transport": "ip_tcp",
            }
            status, name = "http.status_code", "http.server.duration"
        unit = "s" if self.blueprint.modern else "ms"
        key = "http.request.method" if self.blueprint.modern else "http.method"

        modern = self.blueprint.modern

        def failed(failure: RpcFailure) -> SpanOutcome:
            code = int(failure.code) if failure.code.isdigit() else 500
            return SpanOutcome(
                "Error", "", {status: code, "error.type": str(code)} if modern else {status: code}
            )

        return SpanShape(
            route if modern and route else method,
            "Server",
            _HTTP,
            attributes,
            SpanOutcome(attributes={status: 200}),
            failed,
            duration=MetricShape(Instrument(name, "histogram", unit), _HTTP),
            duration_series=((key, method), (status, 200)),
            # it always responds with 500
            failed_series=lambda _: (
                (key, method),
                (status, 500),
                *((("error.type", "500"),) if modern else ()),
            ),
        )

    def _next(self, route: str) -> SpanShape:
        method, _, path = route.partition(" ")
        name = route
        if not self.blueprint.modern and route == "GET /api/products/[productId]":
            name = "GET /api/products/{productId}"  # the collector of 2.x renames it to this
        attributes: dict[str, AttributeValue] = {
            "next.span_type": "BaseServer.handleRequest",
            "next.span_name": route,
            "http.method": method,
            "next.route": path,
            "http.route": path,
        }
        failed: dict[str, AttributeValue] = {"http.status_code": 500}
        if self.blueprint.modern:
            attributes |= {"next.rsc": False, "http.target": path}
            failed["error.type"] = "500"
        done = SpanOutcome(attributes={"http.status_code": 200})
        return SpanShape(name, "Server", _NEXT, attributes, done, lambda _: SpanOutcome("Error", "", failed))

    def _handler(self, text: str, path: str, kind: str) -> SpanShape:
        attributes = {"next.span_type": kind, "next.span_name": f"{text} {path}"}
        thrown = _thrown if self.blueprint.modern else _thrown_with_message
        return SpanShape(f"{text} {path}", "Internal", _NEXT, attributes, failed=thrown)

    def _received(self, call: Call, web: HttpRequest) -> None:
        """Set what the request asks for; 3.x separates the query."""
        if not self.blueprint.modern:
            call.set(**{"http.target": web.path})
            return
        path, _, query = web.path.partition("?")
        call.set(**{"url.path": path, "url.query": query} if query else {"url.path": path})

    def _resolved(self, call: Call) -> Steps:
        if self.blueprint.modern:
            with call.span(self.resolve):
                yield from call.work(self.around * 0.3)

    def api(self, route: str, handler: Handler) -> Operation:
        """Return the operation of an API route."""
        shown = INDEXED.get(route, route) if self.blueprint.modern else route
        method, _, path = shown.partition(" ")
        outer = self._next(shown)
        inner = self._handler("executing api route (pages)", path, "Node.runHandler")
        counter, cost, around = self.counter, self.cost, self.around
        good, bad = (self._series(method, path, status) for status in (200, 500))

        def answer(call: Call, web: HttpRequest) -> Steps:
            self._received(call, web)
            try:
                yield from call.work(around)
                with call.span(outer):
                    yield from call.work(around)
                    yield from self._resolved(call)
                    try:
                        with call.span(inner):
                            yield from call.work(cost)
                            reply = yield from handler(call, web)
                        yield from call.work(around)
                    except RpcFailure as failure:
                        raise RpcFailure("500", node_message(failure)) from None
            except RpcFailure:
                if counter is not None:
                    call.count(counter, 1.0, bad)
                raise
            yield from call.work(around)
            if counter is not None:
                call.count(counter, 1.0, good)
            return reply

        return Operation(answer, self._server(method, shown), allocates=350_000)

    def page(self, route: str) -> Operation:
        """Return the operation of a page rendered on the server."""
        path = route.partition(" ")[2]
        outer, inner = self._next(route), self._handler("render route (pages)", path, "Render.renderDocument")

        def answer(call: Call, web: HttpRequest) -> Steps:
            self._received(call, web)
            yield from call.work(self.around)
            with call.span(outer):
                yield from call.work(self.around)
                yield from self._resolved(call)
                with call.span(inner):
                    yield from call.work(self.page_cost)
                yield from call.work(self.around)
            yield from call.work(self.around)

        return Operation(answer, self._server("GET", route), allocates=900_000)

    def file(self) -> Operation:
        """Return the operation of a static file."""

        def answer(call: Call, web: HttpRequest) -> Steps:
            self._received(call, web)
            yield from call.work(self.file_cost)

        return Operation(answer, self.files, allocates=40_000)

    @staticmethod
    def _series(method: str, path: str, status: int) -> Series:
        return (("method", method), ("target", path), ("status", status))


def _thrown(failure: RpcFailure) -> SpanOutcome:
    """Return the outcome of a handler of 3.x, which leaves the text to the exception event."""
    return _thrown_with_message(failure)._replace(message="")


def _thrown_with_message(failure: RpcFailure) -> SpanOutcome:
    text = node_message(failure)
    stack = (
        f"Error: {text}\n    at callErrorFromStatus (/app/node_modules/@grpc/grpc-js/build/src/call.js:32:19)"
    )
    return SpanOutcome("Error", text, {}, (exception_event("Error", text, stack),))


def _rephrase(failure: RpcFailure) -> RpcFailure:
    if failure.kind == "lost":
        return RpcFailure("UNAVAILABLE", "Connection dropped", kind=failure.kind)
    if failure.kind == "refused":
        text = "No connection established. Last error: Error: connect ECONNREFUSED"
        return RpcFailure("UNAVAILABLE", text, kind=failure.kind)
    return failure


def specs(blueprint: Blueprint) -> list[ServiceSpec]:
    """Return the spec of the frontend."""
    routes = _Routes(blueprint)
    rpc, fetch = blueprint.rpc("nodejs"), Http(_UNDICI)

    def client(target: str, operation: str) -> SpanShape | None:
        if target == "shipping":
            return fetch.client("POST", "http://shipping:50050/get-quote")
        return rpc.client(operation, host=target, port=_PORTS[target]) if target in _PORTS else None

    operations = {route: routes.api(route, handler) for route, handler in handlers(blueprint).items()}
    operations |= {route: routes.page(route) for route in PAGES}
    operations[FILE] = routes.file()
    return [blueprint.spec("frontend", operations=operations, client=client, rephrase=_rephrase)]


def handlers(blueprint: Blueprint) -> dict[str, Handler]:
    """Return the API routes of a release."""
    if not blueprint.release.reviews:
        return API
    return {**API, **product_reviews.ROUTES}
