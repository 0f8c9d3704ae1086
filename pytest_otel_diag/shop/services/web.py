"""An HTTP request on its way through the proxy to a page, a picture or an API route."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple

from pytest_otel_diag.shop.records import AttributeValue


class Web(NamedTuple):
    """A request: ``route`` is how the frontend names what answers, ``path`` what was asked.

    ``body`` is already parsed; ``delay_ms`` is the header that asks the proxy for a delay (0: none).
    """

    method: str
    path: str
    route: str
    body: Any = None
    delay_ms: int = 0
    agent: str = "k6/1.4.2 (https://k6.io/)"


class Goods(NamedTuple):
    """An item in a cart."""

    product: str
    quantity: int


class Order(NamedTuple):
    """What a checkout sends: whose cart, for whom, in which currency."""

    user: str
    email: str
    country: str
    currency: str
    card: str


class Placed(NamedTuple):
    """What a checkout answers and what goes to the topic of orders."""

    order_id: str
    tracking_id: str
    items: tuple[Goods, ...]
    country: str


def fields(attributes: Mapping[str, AttributeValue]) -> dict[str, Any]:
    """Return attributes with dotted names for unpacking into a log line, beside its other arguments."""
    return dict(attributes)
