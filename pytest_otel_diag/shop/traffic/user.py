"""A virtual user and its tasks over HTTP."""

from __future__ import annotations

import random

from pytest_otel_diag.shop.demo.data import CATEGORIES, PEOPLE, PRODUCT_IDS, Person
from pytest_otel_diag.shop.demo.payloads import CartItem, CheckoutOrder, HttpRequest
from pytest_otel_diag.shop.demo.releases import DemoRelease
from pytest_otel_diag.shop.flag_provider import FlagScalar
from pytest_otel_diag.shop.kernel import Call, Instance, RpcFailure, Steps, uuid4
from pytest_otel_diag.shop.records import AttributeValue, Scope
from pytest_otel_diag.shop.services import frontend_proxy, load_generator
from pytest_otel_diag.shop.traffic import tasks

_LOCUST_LOGGER, _K6_LOGGER = Scope("root", ""), Scope("load-generator", "")
SESSION_S, ANSWER_S = 0.0005, 0.00012
"""CPU time of Locust's session before a request is sent and after the response arrives."""
_K6_AGENT, _LOCUST_AGENT = "k6/1.4.2 (https://k6.io/)", "python-requests/2.32.5"


class User:
    """A user with a session; *rng* draws its tasks and think times."""

    def __init__(self, instance: Instance, release: DemoRelease, rng: random.Random) -> None:
        self.instance = instance
        self._release = release
        self._rng = rng
        self._locust = release.locust
        self._shape = load_generator.task_shapes(release)
        self._metrics = None if self._locust else load_generator.LoadMetrics()
        self._agent = _LOCUST_AGENT if self._locust else _K6_AGENT
        self._weights = {**tasks.WEIGHTS, **(tasks.REVIEW_WEIGHTS if release.reviews else {})}
        self._session = uuid4(self._rng)
        self._baggage = {"session.id": self._session, "synthetic_request": "true"}

    def _begin(self, outer: Call | None) -> Call:
        """Return the call of a task: nested in *outer* under Locust, a new root under k6."""
        if outer is not None and self._locust:
            return outer
        call = Call.root(self.instance)
        call.baggage = self._baggage
        return call

    def _ask(self, call: Call, web: HttpRequest) -> Steps:
        reply, operation = None, frontend_proxy.FORM if web.method == "POST" else frontend_proxy.HTTP
        if self._locust:
            yield from call.work(SESSION_S)
        begun_s, status = call.now_s, 200
        # the tool counts a failure without setting the status of the task's span
        try:
            reply = yield from call.request("frontend-proxy", operation, web._replace(agent=self._agent))
        except RpcFailure as failure:
            status = int(failure.code) if failure.code.isdigit() else 0
        if self._metrics is not None:
            self._metrics.request(call, web, call.now_s - begun_s, status)
        if self._locust:
            yield from call.work(ANSWER_S)
        return reply

    def flag(self, call: Call, key: str, default: FlagScalar) -> Steps:
        """Evaluate a flag over OFREP; k6 adds a span and a log line."""
        if self._locust:
            return (yield from call.flag(key, default))
        with call.span(self._shape("feature_flag.evaluate"), **{"feature_flag.key": key}):
            value = yield from call.flag(key, default)
            self._log(call, f"Feature flag {key} evaluated to {value}")
        return value

    def _log(self, call: Call, text: str) -> None:
        call.log("INFO", text, scope=_LOCUST_LOGGER if self._locust else _K6_LOGGER, spelled=self._locust)

    def iterated(self, took_s: float) -> None:
        """Count an iteration that took *took_s* seconds, its pause included."""
        if self._metrics is not None:
            self._metrics.iteration(self.instance, took_s)

    # a session

    def start(self) -> Steps:
        """Start a session at the front page."""
        call = self._begin(None)
        with call.span(self._shape("user_session_start")):
            self._log(call, f"Starting user session: {self._session}")
            yield from self._ask(call, HttpRequest("GET", "/", "GET /"))

    def task(self) -> Steps:
        """Run a task drawn by weight."""
        yield from getattr(self, tasks.choose(self._rng, self._weights))()

    def think_s(self) -> float:
        """Draw the wait before the next task, in seconds."""
        return tasks.think_s(self._rng)

    # tasks

    def index(self) -> Steps:
        """Open the front page."""
        call = self._begin(None)
        with call.span(self._shape("user_index")):
            self._log(call, "User accessing index page")
            yield from self._ask(call, HttpRequest("GET", "/", "GET /"))

    def browse_product(self, product: str = "") -> Steps:
        """Open a product page."""
        product = product or self._rng.choice(PRODUCT_IDS)
        call = self._begin(None)
        with call.span(self._shape("user_browse_product"), **self._product(product)):
            self._log(call, f"User browsing product: {product}")
            yield from self._ask(call, _product_page(product))

    def get_recommendations(self) -> Steps:
        """Get recommendations for a product."""
        product = self._rng.choice(PRODUCT_IDS)
        call = self._begin(None)
        with call.span(self._shape("user_get_recommendations"), **self._product(product)):
            self._log(call, f"User getting recommendations for product: {product}")
            path = f"/api/recommendations?productIds={product}"
            yield from self._ask(call, HttpRequest("GET", path, "GET /api/recommendations", (product, "USD")))

    def get_ads(self) -> Steps:
        """Get advertisements for a category, or without one."""
        category = self._rng.choice(CATEGORIES)
        call = self._begin(None)
        attributes: dict[str, AttributeValue] = {"category": str(category)}
        with call.span(self._shape("user_get_ads"), **attributes):
            self._log(call, f"User getting ads for category: {category}")
            # the requests library omits a parameter that is None; k6 sends the text
            keys = (category,) if category is not None else (() if self._locust else ("None",))
            yield from self._ask(
                call, HttpRequest("GET", f"/api/data/?contextKeys={category}", "GET /api/data", keys)
            )

    def view_cart(self) -> Steps:
        """View the cart of no user."""
        call = self._begin(None)
        with call.span(self._shape("user_view_cart")):
            self._log(call, "User viewing cart")
            yield from self._ask(call, HttpRequest("GET", "/api/cart", "GET /api/cart", ("", "USD")))

    def add_to_cart(self, user: str = "", outer: Call | None = None) -> Steps:
        """Open a product page and add the product to a cart."""
        user = user or uuid4(self._rng)
        product, quantity = self._rng.choice(PRODUCT_IDS), self._rng.choice(tasks.QUANTITIES)
        call = self._begin(outer)
        attributes = {**self._product(product), "user.id": user, "quantity": quantity}
        with call.span(self._shape("user_add_to_cart"), **attributes):
            text = f"User {user} adding {quantity} of product {product} to cart"
            self._log(call, text)
            yield from self._ask(call, _product_page(product))
            yield from self._ask(
                call, HttpRequest("POST", "/api/cart", "POST /api/cart", (user, CartItem(product, quantity)))
            )

    def checkout(self, person: Person | None = None) -> Steps:
        """Buy one product."""
        yield from self._check_out("user_checkout_single", 1, person)

    def checkout_multi(self) -> Steps:
        """Buy several products."""
        yield from self._check_out("user_checkout_multi", self._rng.choice(tasks.SEVERAL), None)

    def _check_out(self, name: str, items: int, person: Person | None) -> Steps:
        user = uuid4(self._rng)
        call = self._begin(None)
        attributes: dict[str, AttributeValue] = {"user.id": user}
        if items > 1:
            attributes["item.count"] = items
        with call.span(self._shape(name), **attributes):
            what = (
                f"multi-item checkout for user {user}, {items} items"
                if items > 1
                else f"checkout for user {user}"
            )
            self._log(call, f"Starting {what}")
            for _ in range(items):
                yield from self.add_to_cart(user, call)
            who = person or self._rng.choice(PEOPLE)
            order = CheckoutOrder(user, who.email, who.country, who.currency, who.card)
            yield from self._ask(call, HttpRequest("POST", "/api/checkout", "POST /api/checkout", order))
            done = "Multi-item checkout" if items > 1 else "Checkout"
            self._log(call, f"{done} completed for user {user}")

    def flood_home(self) -> Steps:
        """Load the front page as many times as a flag says; its default is 0."""
        call = self._begin(None)
        number = int((yield from self.flag(call, "loadGeneratorFloodHomepage", 0)))
        if number <= 0:
            return
        call = self._begin(None)
        with call.span(self._shape("user_flood_home"), **{"flood.count": number}):
            self._log(call, f"User flooding homepage {number} times")
            for _ in range(number):
                yield from self._ask(call, HttpRequest("GET", "/", "GET /"))

    def get_product_reviews(self) -> Steps:
        """Read the reviews of a product (2.2)."""
        product = self._rng.choice(PRODUCT_IDS)
        call = self._begin(None)
        with call.span(self._shape("user_get_product_reviews"), **self._product(product)):
            for kind in ("product-reviews", "product-reviews-avg-score"):
                yield from self._ask(
                    call,
                    HttpRequest("GET", f"/api/{kind}/{product}", f"GET /api/{kind}/[productId]", product),
                )

    def ask_product_ai_assistant(self) -> Steps:
        """Ask the AI assistant about a product (2.2)."""
        product = self._rng.choice(PRODUCT_IDS)
        call = self._begin(None)
        with call.span(self._shape("user_ask_product_ai_assistant"), **self._product(product)):
            path, route = "/api/product-ask-ai-assistant", "POST /api/product-ask-ai-assistant/[productId]"
            yield from self._ask(call, HttpRequest("POST", f"{path}/{product}", route, product))

    def _product(self, product: str) -> dict[str, AttributeValue]:
        return {"product.id": product}


def _product_page(product: str) -> HttpRequest:
    return HttpRequest("GET", f"/api/products/{product}", "GET /api/products/[productId]", (product, "USD"))
