"""payment (Node.js): charges a card, unless paymentFailure makes it fail; it calls no other service."""

from __future__ import annotations

from typing import Any, NamedTuple

from pytest_otel_diag.shop.demo.blueprint import Blueprint
from pytest_otel_diag.shop.demo.payloads import fields
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
    uuid4,
)
from pytest_otel_diag.shop.records import AttributeValue, Instrument, Scope
from pytest_otel_diag.shop.services import flagd

CHARGE = "oteldemo.PaymentService/Charge"
LEVELS = ("platinum", "gold", "silver", "bronze")
_SCOPE = Scope("payment", "")
_LOGGER = Scope("@opentelemetry/instrumentation-pino", "0.55.0")
_STACK = "Error: {0}\n    at module.exports.charge (/usr/src/app/charge.js:46:13)"


class Charge(NamedTuple):
    """A request to charge a card."""

    amount: float
    currency: str
    card: str


def _charge_failed(*, modern: bool) -> SpanShape:
    def failed(failure: RpcFailure) -> SpanOutcome:
        event = exception_event("Error", failure.message, _STACK.format(failure.message))
        return SpanOutcome("Error", failure.message, {"error.type": "Error"}, (event,))

    def ended(failure: RpcFailure) -> SpanOutcome:  # noqa: ARG001 - 2.x ends the span without a status
        return SpanOutcome()

    return SpanShape("charge", "Internal", _SCOPE, failed=failed if modern else ended)


class _Service:
    def __init__(self, blueprint: Blueprint) -> None:
        release = blueprint.release
        name = release.attribute
        self.counter = MetricShape(
            Instrument(
                release.metric("payment.transactions"), "sum", "{transaction}" if blueprint.modern else ""
            ),
            _SCOPE,
        )
        self.shape = _charge_failed(modern=blueprint.modern)
        self.loyalty = name("user.loyalty")
        self.card_type, self.card_valid = name("payment.card_type"), name("payment.card_valid")
        self.charged, self.amount = name("payment.charged"), name("payment.amount")
        self.currency = name("payment.currency")
        self.refusal = f"Payment request failed. Invalid token. {self.loyalty}=gold"
        self.cost, self.framework = blueprint.cpu("payment", 1.2), blueprint.cpu("payment", 0.12)
        self.series: dict[str, Series] = {}
        self.modern = blueprint.modern
        self.noted: dict[str, Any] = {} if self.modern else fields({"service.name": "payment"})

    def charge(self, call: Call, request: Charge) -> Steps:
        call.log("info", "Charge request received.", scope=_LOGGER, **self.noted)
        yield from call.work(self.framework)
        try:
            level = yield from self._take(call, request)
        except RpcFailure as failure:
            call.log("warn", failure.message, scope=_LOGGER, **self._error(failure))
            raise
        yield from call.work(self.framework)
        transaction = uuid4(call.instance.rng)
        attributes: dict[str, AttributeValue] = {
            "transactionId": transaction,
            "cardType": "visa",
            "lastFourDigits": request.card[-4:],
            "amount": round(request.amount, 2),
            "loyalty_level": level,
        }
        call.log("info", "Transaction complete.", scope=_LOGGER, **fields(attributes))
        series = self.series.get(request.currency)
        if series is None:
            series = self.series[request.currency] = ((self.currency, request.currency),)
        call.count(self.counter, 1.0, series)
        return transaction

    def _error(self, failure: RpcFailure) -> dict[str, Any]:
        if not self.modern:
            return fields({"err.type": "Error", "err.message": failure.message})
        return {
            "err": failure.message,
            "exception.type": "Error",
            "exception.message": failure.message,
            "exception.stacktrace": _STACK.format(failure.message),
        }

    def _take(self, call: Call, request: Charge) -> Steps:
        """Validate and charge the card inside the span; return the customer's loyalty level."""
        rng = call.instance.rng
        with call.span(self.shape) as span:
            share = yield from call.flag("paymentFailure", 0.0)
            if share > 0 and rng.random() < share:
                span.set({self.loyalty: "gold"})
                raise RpcFailure("UNKNOWN", self.refusal)
            yield from call.work(self.cost)
            level = LEVELS[int(rng.random() * len(LEVELS))]
            span.set(
                {
                    self.card_type: "visa",
                    self.card_valid: True,
                    self.loyalty: level,
                    # orders of the load test are not charged
                    self.charged: call.baggage.get("synthetic_request") != "true",
                    **(
                        {"card_number": f"****{request.card[-4:]}", "user_agent.synthetic.type": "test"}
                        if self.modern
                        else {self.amount: round(request.amount, 2)}
                    ),
                }
            )
        if self.modern:
            call.set(**{self.amount: round(request.amount, 2)})
        return level


def specs(blueprint: Blueprint) -> list[ServiceSpec]:
    """Return the spec of the payment service."""
    rpc = blueprint.rpc("nodejs")
    charge = Operation(_Service(blueprint).charge, rpc.server(CHARGE), allocates=400_000)
    return [
        blueprint.spec(
            "payment",
            operations={CHARGE: charge},
            client=lambda target, operation: rpc.client(operation, host=target, port=8013),
            flags=blueprint.flag_client(hook=False),
            loops=(flagd.listen(blueprint),),
        )
    ]
