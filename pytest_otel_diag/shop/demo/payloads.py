"""Payloads of requests and messages: HTTP requests to the proxy, cart items, orders."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple

from pytest_otel_diag.shop.records import AttributeValue


class HttpRequest(NamedTuple):
    """A request: ``path`` as sent, ``route`` as the frontend names the handler.

    ``body`` is parsed; ``delay_ms`` is the header that requests a delay from the proxy (0: none).
    """

    method: str
    path: str
    route: str
    body: Any = None
    delay_ms: int = 0
    agent: str = "k6/1.4.2 (https://k6.io/)"


class CartItem(NamedTuple):
    """An item in a cart."""

    product: str
    quantity: int


class CheckoutOrder(NamedTuple):
    """A checkout request: the cart's user, the customer and the currency."""

    user: str
    email: str
    country: str
    currency: str
    card: str


class PlacedOrder(NamedTuple):
    """The reply of a checkout, also the message on the topic ``orders``."""

    order_id: str
    tracking_id: str
    items: tuple[CartItem, ...]
    country: str


def fields(attributes: Mapping[str, AttributeValue]) -> dict[str, Any]:
    """Return attributes with dotted names as keyword arguments of a log call."""
    return dict(attributes)
