"""Differences between releases of the demo: flags, and names of attributes, metrics and spans.

The facts come from the demo's code and change logs: 3.0 renamed every ``app.*`` attribute to ``demo.*``;
span names of 3.x are those that the collector renames by semantic conventions (RPCs without the prefix
``grpc.``), names of 2.x come from the SDKs. Names that the conventions do not cover (Envoy, database
clients) are the same in both.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache
from typing import Literal

from pytest_otel_diag.errors import ConfigurationError, nearest

Series = Literal["2.x", "3.x"]

RELEASES = ("2.0", "2.1", "2.2", "3.0", "3.1")
"""Releases that the shop simulates; ``2.x`` means 2.2 and ``3.x`` means 3.0."""

_ALIASES = {"2": "2.2", "2.x": "2.2", "3": "3.0", "3.x": "3.0"}

# alias -> (name in 2.x, name in 3.x)
_ATTRIBUTES: dict[str, tuple[str, str]] = {
    "ad.category": ("app.ads.category", "demo.ad.category"),
    "ad.count": ("app.ads.count", "demo.ad.count"),
    "ad.context_keys": ("app.ads.contextKeys", "demo.ad.context_keys"),
    "ad.context_keys.count": ("app.ads.contextKeys.count", "demo.ad.context_keys.count"),
    "ad.request_type": ("app.ads.ad_request_type", "demo.ad.request_type"),
    "ad.response_type": ("app.ads.ad_response_type", "demo.ad.response_type"),
    "cart.items.count": ("app.cart.items.count", "demo.cart.items.count"),
    "exchange.from": ("app.currency.conversion.from", "demo.exchange.from"),
    "exchange.to": ("app.currency.conversion.to", "demo.exchange.to"),
    "exchange.metric": ("currency_code", "demo.exchange.to"),
    "order.amount": ("app.order.amount", "demo.order.amount"),
    "order.id": ("app.order.id", "demo.order.id"),
    "order.items.count": ("app.order.items.count", "demo.order.items.count"),
    "payment.amount": ("app.payment.amount", "demo.payment.amount"),
    "payment.card_type": ("app.payment.card_type", "demo.payment.card_type"),
    "payment.card_valid": ("app.payment.card_valid", "demo.payment.card_valid"),
    "payment.charged": ("app.payment.charged", "demo.payment.charged"),
    "payment.currency": ("app.payment.currency", "demo.payment.currency"),
    "payment.transaction.id": ("app.payment.transaction.id", "demo.payment.transaction.id"),
    "product.count": ("app.products.count", "demo.product.count"),
    "product.filtered.count": ("app.filtered_products.count", "demo.product.filtered.count"),
    "product.filtered.list": ("app.filtered_products.list", "demo.product.filtered.list"),
    "product.id": ("app.product.id", "demo.product.id"),
    "product.name": ("app.product.name", "demo.product.name"),
    "product.quantity": ("app.product.quantity", "demo.product.quantity"),
    "product.recommended.count": ("app.products_recommended.count", "demo.product.recommended.count"),
    "quote.cost.total": ("app.quote.cost.total", "demo.shipping.quote.cost.total"),
    "quote.items.count": ("app.quote.items.count", "demo.shipping.quote.items_count"),
    "recommendation.cache_hit": ("app.cache_hit", "demo.recommendation.cache_hit"),
    "recommendation.cache": ("app.recommendation.cache_enabled", "demo.feature_flag.recommendation_cache"),
    "shipping.amount": ("app.shipping.amount", "demo.shipping.amount"),
    "shipping.cost.total": ("app.shipping.cost.total", "demo.shipping.cost.total"),
    "shipping.tracking.id": ("app.shipping.tracking.id", "demo.shipping.tracking.id"),
    "synthetic": ("app.synthetic_request", "demo.synthetic_request"),
    "user.currency": ("app.user.currency", "demo.user_context.selected_currency"),
    "user.id": ("app.user.id", "user.id"),
    "user.loyalty": ("app.loyalty.level", "demo.user_context.loyalty_level"),
}

_METRICS: dict[str, tuple[str, str]] = {
    "ad.requests": ("app.ads.ad_requests", "demo.ad.requests"),
    "cart.add_item": ("app.cart.add_item.latency", "demo.cart.add_item.latency"),
    "cart.get_cart": ("app.cart.get_cart.latency", "demo.cart.get_cart.latency"),
    "currency.conversions": ("app.currency_counter", "demo.exchange.conversions_counter"),
    "email.confirmations": ("app.confirmation.counter", "demo.notification.confirmations"),
    "payment.transactions": ("app.payment.transactions", "demo.payment.transactions"),
    "recommendation.requests": ("app_recommendations_counter", "demo.recommendation.requests"),
    "shipping.items": ("app.shipping.items_count", "demo.shipping.items_shipped"),
    "quotes": ("quotes", "quotes"),
}

_COMMON_FLAGS = (
    "adFailure",
    "adHighCpu",
    "adManualGc",
    "cartFailure",
    "imageSlowLoad",
    "kafkaQueueProblems",
    "paymentFailure",
    "paymentUnreachable",
    "productCatalogFailure",
    "recommendationCacheFailure",
)


@dataclass(frozen=True, slots=True)
class DemoRelease:
    """A release of the demo.

    ``locust``: the load generator is Locust, otherwise k6; ``catalog_db``: the product catalog queries
    PostgreSQL; ``reviews``: product-reviews and its language model exist; ``percent_cart``: cartFailure
    fails a share of requests, otherwise all of them.
    """

    version: str
    series: Series
    locust: bool
    catalog_db: bool
    reviews: bool
    percent_cart: bool

    @property
    def modern(self) -> bool:
        """Whether this is a 3.x release, with the names of 3.x."""
        return self.series == "3.x"

    @property
    def flags(self) -> frozenset[str]:
        """Flags that the code of this release evaluates."""
        return _flags(self.version)

    def attribute(self, alias: str) -> str:
        """Return the attribute's name in this release; raises KeyError for an unknown alias."""
        return _ATTRIBUTES[alias][self.modern]

    def metric(self, alias: str) -> str:
        """Return the metric's name in this release; raises KeyError for an unknown alias."""
        return _METRICS[alias][self.modern]


@cache
def _flags(release: str) -> frozenset[str]:
    flags = set(_COMMON_FLAGS)
    if release != "3.0":
        flags.add("loadGeneratorFloodHomepage")
    else:
        flags |= {"loadGeneratorTraffic", "loadGeneratorVUs"}
    if release != "2.0":
        flags.add("emailMemoryLeak")
    if release not in ("2.0", "2.1"):
        flags.add("failedReadinessProbe")
    if release == "2.2":
        flags |= {"llmInaccurateResponse", "llmRateLimitError"}
    if release >= "3":
        flags.add("intlShippingSlowdown")
    if release == "3.1":
        flags.add("productCatalogLockContention")
    return frozenset(flags)


@cache
def release_of(demo: str) -> DemoRelease:
    """Return the release with a version such as ``3.0``, ``2.2.0`` or ``2.x``.

    Raises ConfigurationError for a release that the shop does not simulate.
    """
    short = ".".join(demo.strip().lstrip("v").split(".")[:2])
    version = _ALIASES.get(short, short)
    if version not in RELEASES:
        raise ConfigurationError(
            f"the shop does not simulate demo release {demo!r}{nearest(version, RELEASES)}; "
            f"choose from {', '.join(RELEASES)}"
        )
    modern = version >= "3"
    return DemoRelease(
        version=version,
        series="3.x" if modern else "2.x",
        locust=version != "3.0",
        catalog_db=version >= "2.2",
        reviews=version == "2.2",
        percent_cart=modern,
    )
