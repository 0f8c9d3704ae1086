"""frontend-web: the shop's pages in a browser, with the files, images and API calls that they fetch.

Fetches by script carry a trace context and are the roots of their traces. Files requested by HTML tags
carry none, so the proxy starts their traces. Product images are fetched by script because of the header
that imageSlowLoad adds.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any

from pytest_otel_diag.shop.demo.blueprint import Blueprint
from pytest_otel_diag.shop.demo.data import BY_ID, PRODUCT_IDS
from pytest_otel_diag.shop.demo.instrumentation import Http
from pytest_otel_diag.shop.demo.payloads import CartItem, HttpRequest
from pytest_otel_diag.shop.kernel import Call, Instance, RpcFailure, ServiceSpec, SpanShape, Steps, uuid4
from pytest_otel_diag.shop.records import AttributeValue, Scope
from pytest_otel_diag.shop.services import frontend, frontend_proxy

SERVICE = "frontend-web"
CONNECTIONS = 6
"""Number of connections that a browser opens to one host."""
BASKET = "2ZYFJ3GM2N"
AGENT = (
    "Mozilla/5.0 (X11; Linux x86_64) AppleWebKit/537.36 (KHTML, like Gecko) "
    "HeadlessChrome/143.0.0.0 Safari/537.36"
)
RENDER_S, RENDER_VARIATION = 0.26, 0.6
"""CPU time to run a page's scripts and render it, and its coefficient of variation."""
CLICK_S = 0.0006
LOOK_MU, LOOK_SIGMA, LOOK_MOST_S = math.log(0.17), 0.9, 3.0
"""Parameters of the log-normal time, in seconds, until a scripted browser clicks on an element."""

_LOAD = Scope("@opentelemetry/instrumentation-document-load", "0.55.0")
_FETCH = Scope("@opentelemetry/instrumentation-fetch", "0.208.0")
_CLICK = Scope("@opentelemetry/instrumentation-user-interaction", "0.54.0")

# scripts, styles, fonts and icons that a page requests by HTML tags
_FILES = (
    "/_next/static/chunks/webpack.js",
    "/_next/static/chunks/framework.js",
    "/_next/static/chunks/main.js",
    "/_next/static/chunks/pages/_app.js",
    *(f"/_next/static/chunks/{number}.js" for number in (114, 237, 318, 475, 560, 642, 891, 902)),
    "/_next/static/css/cart.css",
    "/icons/Cart.svg",
    "/icons/Chevron.svg",
    "/favicon.ico",
)  # fmt: skip


class Tab:
    """State of a browser: the shapes of its spans and its user session."""

    __slots__ = ("click", "document", "document_fetch", "session")

    def __init__(self, instance: Instance) -> None:
        rng = instance.rng
        self.session = uuid4(rng)
        self.document = SpanShape("documentLoad", "Internal", _LOAD, _user(self.session, instance))
        self.document_fetch = SpanShape("documentFetch", "Internal", _LOAD, _user(self.session, instance))
        self.click = SpanShape(
            "click", "Internal", _CLICK, {**_user(self.session, instance), "event_type": "click"}
        )


def _user(session: str, instance: Instance) -> dict[str, AttributeValue]:
    modern = instance.spec.resource["service.version"] >= "3"
    key = "demo.synthetic_request" if modern else "app.synthetic_request"
    return {"session.id": session, key: True}


def specs(blueprint: Blueprint) -> list[ServiceSpec]:
    """Return the spec of the browser."""
    key = blueprint.release.attribute("synthetic")
    fetch = Http(_FETCH)
    by_operation = {
        frontend_proxy.HTTP: fetch.client("GET", "http://frontend-proxy:8080/", name="HTTP GET"),
        frontend_proxy.FORM: fetch.client("POST", "http://frontend-proxy:8080/", name="HTTP POST"),
        frontend_proxy.RESOURCE: SpanShape("resourceFetch", "Internal", _LOAD, {key: True}),
    }

    def client(target: str, operation: str) -> SpanShape | None:  # noqa: ARG001 - only the proxy is called
        return by_operation.get(operation)

    return [
        blueprint.spec(
            SERVICE,
            client=client,
            flags=blueprint.flag_client(hook=False),
            state=Tab,
            contained=False,
            cpu_noise=RENDER_VARIATION,
        )
    ]


class Page:
    """One page in a browser tab."""

    def __init__(self, instance: Instance) -> None:
        self._instance = instance
        self._tab: Tab = instance.state
        self._delay_ms = 0
        self.currency = "USD"

    def _call(self) -> Call:
        call = Call.root(self._instance)
        call.baggage = {"session.id": self._tab.session, "synthetic_request": "true"}
        return call

    def _ask(self, call: Call, web: HttpRequest, operation: str = frontend_proxy.HTTP) -> Steps:
        dynamic: dict[str, Any] = {"url.full": f"http://frontend-proxy:8080{web.path}"}
        if operation != frontend_proxy.RESOURCE:
            dynamic["session.id"] = self._tab.session
        try:
            return (yield from call.request("frontend-proxy", operation, web, **dynamic))
        except RpcFailure:
            return None  # the page renders with the data it has

    def fetch(self, path: str, route: str, body: object = None, *, method: str = "GET") -> Steps:
        """Call an API route from a script."""
        operation = frontend_proxy.HTTP if method == "GET" else frontend_proxy.FORM
        return self._ask(self._call(), HttpRequest(method, path, route, body, agent=AGENT), operation)

    def open(self, path: str, route: str) -> Steps:
        """Load a document with its files; evaluate the flag that delays images."""
        call = self._call()
        with call.span(self._tab.document, **{"http.url": f"http://frontend-proxy:8080{path}"}):
            with call.span(self._tab.document_fetch):
                yield from call.work(CLICK_S)
                yield from self._ask(
                    call, HttpRequest("GET", path, route, agent=AGENT), frontend_proxy.RESOURCE
                )
            files = [HttpRequest("GET", file, frontend.FILE, agent=AGENT) for file in _FILES]
            yield from self._lanes(call, files, frontend_proxy.RESOURCE)
            yield from call.work(RENDER_S)
        yield from self.fetch("/flagservice/flagd.evaluation.v1.Service/ResolveAll", "", method="POST")
        self._delay_ms = int((yield from call.flag("imageSlowLoad", 0)))

    def pictures(self, products: Sequence[str]) -> Steps:
        """Fetch product images over the browser's connections."""
        files = [
            HttpRequest(
                "GET", f"/images/products/{BY_ID[product].picture}", "", delay_ms=self._delay_ms, agent=AGENT
            )
            for product in products
        ]
        yield from self._lanes(None, files, frontend_proxy.HTTP)

    def _lanes(self, call: Call | None, files: Sequence[HttpRequest], operation: str) -> Steps:
        def lane(first: int) -> Callable[[Call], Steps]:
            def walk(branch: Call) -> Steps:
                for web in files[first::CONNECTIONS]:
                    yield from self._ask(branch if call is not None else self._call(), web, operation)

            return walk

        parent = call if call is not None else self._call()
        yield from parent.gather(*(lane(first) for first in range(min(CONNECTIONS, len(files)))))

    def click(self) -> Steps:
        """Click after looking at the page: run the handler and render what changed."""
        rng = self._instance.rng
        yield self._instance.world.sleep(min(LOOK_MOST_S, rng.lognormvariate(LOOK_MU, LOOK_SIGMA)))
        call = self._call()
        with call.span(self._tab.click):
            yield from call.work(CLICK_S)

    # API calls of the components of the shop's pages

    def header(self) -> Steps:
        """Load the currency switcher and the cart icon."""
        yield from self.fetch("/api/currency", "GET /api/currency")
        yield from self.cart()

    def cart(self) -> Steps:
        """Return the cart's items."""
        path = f"/api/cart?sessionId={self._tab.session}&currencyCode={self.currency}"
        return (yield from self.fetch(path, "GET /api/cart", (self._tab.session, self.currency))) or ()

    def recommendations(self, product: str) -> Steps:
        """Load recommended products with their images, and advertisements."""
        query = f"productIds={product}&sessionId={self._tab.session}&currencyCode={self.currency}"
        path = f"/api/recommendations?{query}"
        yield from self.fetch(path, "GET /api/recommendations", (product, self.currency))
        others = [other for other in PRODUCT_IDS if other != product]
        yield from self.pictures(self._instance.rng.sample(others, frontend.SHOWN))

    def advertisements(self, product: str) -> Steps:
        """Load advertisements for the product's categories."""
        keys = BY_ID[product].categories
        query = "&".join(f"contextKeys={key}" for key in keys)
        yield from self.fetch(f"/api/data?{query}", "GET /api/data", keys)

    def add(self, product: str) -> Steps:
        """Put the product into the cart."""
        body = (self._tab.session, CartItem(product, 1))
        yield from self.fetch("/api/cart", "POST /api/cart", body, method="POST")

    def quote(self, items: Sequence[CartItem]) -> Steps:
        """Load the shipping cost of the cart."""
        if items:
            yield from self.fetch("/api/shipping", "GET /api/shipping", (items, self.currency))


def change_currency(page: Page) -> Steps:
    """Open the cart and choose another currency, which refetches everything with prices."""
    yield from page.open("/cart", "GET /cart")
    yield from page.header()
    yield from page.cart()
    yield from page.recommendations(BASKET)
    yield from page.advertisements(BASKET)
    page.currency = "CHF"
    yield from page.click()
    yield from page.cart()


def add_to_cart(page: Page) -> Steps:
    """Open the shop, choose the binoculars, put them into the cart and look at it."""
    yield from page.open("/", "GET /")
    yield from page.header()
    yield from page.fetch("/api/products?currencyCode=USD", "GET /api/products", page.currency)
    yield from page.fetch("/images/Banner.png", "")
    yield from page.pictures(PRODUCT_IDS)
    yield from page.click()
    yield from page.fetch(
        f"/api/products/{BASKET}?currencyCode=USD", "GET /api/products/[productId]", (BASKET, page.currency)
    )
    yield from page.pictures((BASKET,))
    yield from page.recommendations(BASKET)
    yield from page.advertisements(BASKET)
    yield from page.click()
    yield from page.add(BASKET)
    items = yield from page.cart()
    yield from page.pictures((BASKET,))
    yield from page.quote(items)
    yield from page.recommendations(BASKET)
