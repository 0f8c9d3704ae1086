"""payment (Node.js): charges a card, unless paymentFailure says otherwise; a leaf."""

from __future__ import annotations

from typing import NamedTuple

from pytest_otel_diag.shop.emission.instruments import MetricShape, Series
from pytest_otel_diag.shop.kernel import (
    Call,
    Operation,
    Outcome,
    RpcFailure,
    ServiceSpec,
    SpanShape,
    Steps,
    exception_event,
)
from pytest_otel_diag.shop.records import AttributeValue, Instrument, Scope
from pytest_otel_diag.shop.services import flagd
from pytest_otel_diag.shop.services.scene import Scene
from pytest_otel_diag.shop.services.web import fields

CHARGE = "oteldemo.PaymentService/Charge"
LEVELS = ("platinum", "gold", "silver", "bronze")
_SCOPE = Scope("payment", "")
_LOGGER = Scope("@opentelemetry/instrumentation-pino", "0.55.0")
_STACK = "Error: {0}\n    at module.exports.charge (/usr/src/app/charge.js:46:13)"


class Charge(NamedTuple):
    """A request to take money from a card."""

    amount: float
    currency: str
    card: str


def _charge_failed(*, modern: bool) -> SpanShape:
    def failed(failure: RpcFailure) -> Outcome:
        event = exception_event("Error", failure.message, _STACK.format(failure.message))
        return Outcome("Error", failure.message, {"error.type": "Error"}, (event,))

    def ended(failure: RpcFailure) -> Outcome:  # noqa: ARG001 - 2.x ends the span and says nothing
        return Outcome()

    return SpanShape("charge", "Internal", _SCOPE, failed=failed if modern else ended)


def specs(scene: Scene) -> list[ServiceSpec]:
    """Return the payment service."""
    release = scene.generation
    name = release.attribute
    counter = MetricShape(Instrument(release.metric("payment.transactions"), "sum"), _SCOPE)
    shape = _charge_failed(modern=scene.modern)
    loyalty, card_type, card_valid = (
        name("user.loyalty"),
        name("payment.card_type"),
        name("payment.card_valid"),
    )
    charged, amount_key, currency_key = (
        name("payment.charged"),
        name("payment.amount"),
        name("payment.currency"),
    )
    refusal = f"Payment request failed. Invalid token. {loyalty}=gold"
    cost = scene.cpu("payment", 1.4)
    counted: dict[str, Series] = {}

    def charge(call: Call, request: Charge) -> Steps:
        rng = call.instance.rng
        call.log("info", "Charge request received.", scope=_LOGGER, **fields({"service.name": "payment"}))
        try:
            with call.span(shape) as span:
                share = yield from call.flag("paymentFailure", 0.0)
                if share > 0 and rng.random() < share:
                    span.set({loyalty: "gold"})
                    raise RpcFailure("UNKNOWN", refusal)
                yield from call.work(cost)
                level = LEVELS[int(rng.random() * 4)]
                span.set({card_type: "visa", card_valid: True, loyalty: level, charged: False})
                if call.baggage.get("synthetic_request") != "true":
                    span.set({charged: True})
                span.set({amount_key: round(request.amount, 2)})
        except RpcFailure as failure:
            call.log(
                "warn",
                failure.message,
                scope=_LOGGER,
                **fields({"err.type": "Error", "err.message": failure.message}),
            )
            raise
        transaction = f"{rng.getrandbits(128):032x}"
        attributes: dict[str, AttributeValue] = {
            "transactionId": transaction,
            "cardType": "visa",
            "lastFourDigits": request.card[-4:],
            "amount": round(request.amount, 2),
            "loyalty_level": level,
        }
        call.log("info", "Transaction complete.", scope=_LOGGER, **fields(attributes))
        series = counted.get(request.currency)
        if series is None:
            series = counted[request.currency] = ((currency_key, request.currency),)
        call.count(counter, 1.0, series)
        return transaction

    rpc = scene.rpc("nodejs")
    return [
        scene.spec(
            "payment",
            operations={CHARGE: Operation(charge, rpc.server(CHARGE), allocates=400_000)},
            client=lambda target, operation: rpc.client(operation, host=target, port=8013),
            flags=scene.flag_client(hook=False),
            loops=(flagd.LISTEN,),
        )
    ]
