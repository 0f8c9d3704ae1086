"""Customer visits that trigger faults, and which visit triggers which flag.

Paths, payloads and products are those of the demo's load generator and pages.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from random import Random
from types import MappingProxyType
from typing import Any

DELAY_HEADER = "x-envoy-fault-delay-request"
"""Header that the pages send with product images: the value of ``imageSlowLoad``, in milliseconds."""

IMAGE_FLAG = "imageSlowLoad"
FRAGILE_PRODUCT = "OLJCESPC7Z"
"""The product that ``productCatalogFailure`` affects."""

PRODUCTS = (
    "0PUK6V6EV0",
    "1YMWWN1N4O",
    "2ZYFJ3GM2N",
    "66VCHSJNUP",
    "6E92ZMYYFZ",
    "9SIQT8TOJO",
    "HQTGWGPNH4",
    "L9ECAV7KIM",
    "LS4PSXUNUM",
    FRAGILE_PRODUCT,
)
CATEGORIES = ("accessories", "assembly", "binoculars", "books", "telescopes", "travel")
PICTURES = ("EclipsmartTravelRefractorTelescope.jpg", "NationalParkFoundationExplorascope.jpg")


@dataclass(frozen=True)
class Request:
    """One HTTP request; the served value of ``flag``, if named, goes into the header ``flag_header``."""

    method: str
    path: str
    query: Mapping[str, str] = field(default_factory=dict)
    body: Mapping[str, Any] | None = None
    flag: str = ""
    flag_header: str = ""


Visit = Callable[[Random, str], tuple[Request, ...]]
"""Takes a random generator and the customer's id; returns the requests of one visit, in order."""


def _product(_rng: Random, _customer: str) -> tuple[Request, ...]:
    return (Request("GET", f"/api/products/{FRAGILE_PRODUCT}", {"currencyCode": "USD"}),)


def _ads(rng: Random, _customer: str) -> tuple[Request, ...]:
    return (Request("GET", "/api/data", {"contextKeys": rng.choice(CATEGORIES)}),)


def _recommendations(rng: Random, customer: str) -> tuple[Request, ...]:
    query = {"productIds": rng.choice(PRODUCTS), "sessionId": customer, "currencyCode": "USD"}
    return (Request("GET", "/api/recommendations", query),)


def _cart(rng: Random, customer: str) -> tuple[Request, ...]:
    return (
        _added(rng.choice(PRODUCTS), customer),
        Request("GET", "/api/cart", {"sessionId": customer, "currencyCode": "USD"}),
        Request("DELETE", "/api/cart", body={"userId": customer}),
    )


def _order(rng: Random, customer: str) -> tuple[Request, ...]:
    return _ordered(rng, customer, HOME)


def _order_abroad(rng: Random, customer: str) -> tuple[Request, ...]:
    return _ordered(rng, customer, ABROAD)


def _image(rng: Random, _customer: str) -> tuple[Request, ...]:
    path = f"/images/products/{rng.choice(PICTURES)}"
    return (Request("GET", path, flag=IMAGE_FLAG, flag_header=DELAY_HEADER),)


def _reviews(rng: Random, _customer: str) -> tuple[Request, ...]:
    product = rng.choice(("L9ECAV7KIM", FRAGILE_PRODUCT))
    question = {"question": "Can you summarize the product reviews?"}
    return (
        Request("GET", f"/api/product-reviews/{product}"),
        Request("POST", f"/api/product-ask-ai-assistant/{product}", body=question),
    )


def _added(product: str, customer: str) -> Request:
    body = {"item": {"productId": product, "quantity": 1}, "userId": customer}
    return Request("POST", "/api/cart", {"currencyCode": "USD"}, body)


def _ordered(rng: Random, customer: str, person: Mapping[str, Any]) -> tuple[Request, ...]:
    product = rng.choice(PRODUCTS[:-1])  # ordering the fragile product would trigger another fault
    order = {**person, "userId": customer}
    return (
        Request("GET", f"/api/products/{product}", {"currencyCode": "USD"}),
        _added(product, customer),
        Request("POST", "/api/checkout", {"currencyCode": "USD"}, order),
    )


def _person(country: str, state: str, city: str, zip_code: str, currency: str) -> Mapping[str, Any]:
    return MappingProxyType(
        {
            "email": "customer@example.com",
            "address": {
                "streetAddress": "1 Main Street",
                "zipCode": zip_code,
                "city": city,
                "state": state,
                "country": country,
            },
            "userCurrency": currency,
            "creditCard": {  # a well-known test number that passes the checksum
                "creditCardNumber": "4111-1111-1111-1111",
                "creditCardExpirationMonth": 1,
                "creditCardExpirationYear": 2039,
                "creditCardCvv": 123,
            },
        }
    )


HOME = _person("United States", "CA", "Springfield", "94043", "USD")
ABROAD = _person("Canada", "ON", "Ottawa", "K2P1L4", "CAD")

VISITS: Mapping[str, Visit] = MappingProxyType(
    {
        "product": _product,
        "ads": _ads,
        "recommendations": _recommendations,
        "cart": _cart,
        "order": _order,
        "order-abroad": _order_abroad,
        "image": _image,
        "reviews": _reviews,
    }
)

BY_FLAG: Mapping[str, str] = MappingProxyType(
    {
        "adFailure": "ads",
        "adHighCpu": "ads",
        "adManualGc": "ads",
        "cartFailure": "order",
        "emailMemoryLeak": "order",
        "failedReadinessProbe": "cart",
        "imageSlowLoad": "image",
        "intlShippingSlowdown": "order-abroad",
        "kafkaQueueProblems": "order",
        "llmInaccurateResponse": "reviews",
        "llmRateLimitError": "reviews",
        "paymentFailure": "order",
        "paymentUnreachable": "order",
        "productCatalogFailure": "product",
        "productCatalogLockContention": "product",
        "recommendationCacheFailure": "recommendations",
    }
)
"""The visit of each flag, by its newest name; flags of the load generator have none."""

BY_SERVICE: Mapping[str, str] = MappingProxyType(
    {
        "ad": "ads",
        "accounting": "order",
        "cart": "cart",
        "checkout": "order",
        "currency": "order",
        "email": "order",
        "fraud-detection": "order",
        "frontend": "product",
        "frontend-proxy": "product",
        "image-provider": "image",
        "payment": "order",
        "product-catalog": "product",
        "product-reviews": "reviews",
        "quote": "order",
        "recommendation": "recommendations",
        "shipping": "order-abroad",
    }
)
"""A visit that reaches the service, by its newest name."""


def chosen(flags: Iterable[str], services: Iterable[str]) -> tuple[str, ...]:
    """Return the visits of the flags, or if none has one, those that reach *services*; by newest names."""
    names = [BY_FLAG[flag] for flag in flags if flag in BY_FLAG]
    names = names or [BY_SERVICE[service] for service in services if service in BY_SERVICE]
    return tuple(dict.fromkeys(names))
