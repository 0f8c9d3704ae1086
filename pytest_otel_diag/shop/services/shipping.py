"""shipping (Rust): gets quotes from the quote service and ships orders.

intlShippingSlowdown (3.x) delays orders to other countries than the United States.
"""

from __future__ import annotations

from collections.abc import Sequence

from pytest_otel_diag.shop.demo.blueprint import Blueprint
from pytest_otel_diag.shop.demo.instrumentation import Http
from pytest_otel_diag.shop.demo.payloads import CartItem, fields
from pytest_otel_diag.shop.emission.instruments import MetricShape
from pytest_otel_diag.shop.kernel import Call, Operation, RpcFailure, ServiceSpec, SpanShape, Steps, uuid4
from pytest_otel_diag.shop.records import Instrument, Scope
from pytest_otel_diag.shop.services import flagd, quote

GET_QUOTE, SHIP_ORDER = "POST /get-quote", "POST /ship-order"
HOME = frozenset({"US", "USA", "UNITED STATES", "UNITED STATES OF AMERICA"})
_ACTIX = Scope("opentelemetry-instrumentation-actix-web", "0.23.0")
_LOGGER = Scope("shipping", "")
_METER = Scope("shipping", "")


def specs(blueprint: Blueprint) -> list[ServiceSpec]:
    """Return the spec of the shipping service."""
    release = blueprint.release
    cost_key = release.attribute("shipping.cost.total")
    counter = MetricShape(Instrument(release.metric("shipping.items"), "sum"), _METER)
    cost = blueprint.cpu("shipping", 0.25)
    slows = "intlShippingSlowdown" in release.flags

    def get_quote(call: Call, items: Sequence[CartItem]) -> Steps:
        number = sum(item.quantity for item in items)
        yield from call.work(cost)
        call.log("INFO", "Requesting quote", scope=_LOGGER, quote_service_addr="http://quote:8090")
        try:
            price: float = yield from call.request("quote", quote.QUOTE, number)
        except RpcFailure as failure:
            raise RpcFailure("500", f"Failed to get quote: {failure.message}") from None
        call.event("shipping.quote.received", **{cost_key: price})
        call.set(**{cost_key: price})
        call.log("INFO", "Sending Quote", scope=_LOGGER, dollars=int(price), cents=round(price % 1 * 100))
        call.count(counter, number)
        return price

    def ship_order(call: Call, request: tuple[str, Sequence[CartItem]]) -> Steps:
        country, _ = request
        yield from call.work(cost)
        if slows and country.strip().upper() not in HOME:
            yield from _slow_down(call)
        tracking = uuid4(call.instance.rng)
        call.log("INFO", "Tracking ID Created", scope=_LOGGER, tracking_id=tracking)
        return tracking

    server = Http(_ACTIX, "shipping", 50050, metric=True)
    outgoing = Http(Scope("reqwest-tracing", "0.5.8"))

    def client(target: str, operation: str) -> SpanShape | None:  # noqa: ARG001 - the signature
        return outgoing.client("POST", "http://quote:8090/getquote") if target == "quote" else None

    return [
        blueprint.spec(
            "shipping",
            operations={
                GET_QUOTE: Operation(get_quote, server.server("POST", "/get-quote"), allocates=0),
                SHIP_ORDER: Operation(ship_order, server.server("POST", "/ship-order"), allocates=0),
            },
            client=client,
            loops=(flagd.LISTEN,) if slows else (),
        )
    ]


def _slow_down(call: Call) -> Steps:
    # evaluated on the provider directly: the service logs the variant and has no hook
    evaluation = call.world.flags.evaluate("intlShippingSlowdown", 0, {})
    delay_s = float(evaluation.value)
    call.log(
        "INFO", "feature flag evaluated", scope=_LOGGER, event_name="shipping.feature_flag.evaluated",
        **fields(
            {
                "feature_flag.key": "intlShippingSlowdown",
                "feature_flag.variant": evaluation.variant or "unknown",
            }
        ),
    )  # fmt: skip
    if delay_s > 0:
        call.log(
            "INFO", "Delaying international shipment due to intlShippingSlowdown feature flag", scope=_LOGGER,
            event_name="shipping.international.slowdown", delay_secs=delay_s,
        )  # fmt: skip
        yield from call.wait(delay_s)
