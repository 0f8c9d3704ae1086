"""checkout (Go): places an order by calling six services in turn, then publishes it.

paymentUnreachable makes it dial a payment address that does not exist, with a client that is never
closed; kafkaQueueProblems makes it publish each order many times. It ignores a failure to empty the cart
and logs a warning when an email cannot be sent.
"""

from __future__ import annotations

import zlib
from collections.abc import Sequence
from contextlib import suppress

from pytest_otel_diag.shop.demo.blueprint import Blueprint
from pytest_otel_diag.shop.demo.instrumentation import Http, go_message
from pytest_otel_diag.shop.demo.payloads import CartItem, CheckoutOrder, PlacedOrder, fields
from pytest_otel_diag.shop.demo.topology import TOPIC
from pytest_otel_diag.shop.kernel import (
    Call,
    Operation,
    RpcFailure,
    ServiceSpec,
    SpanOutcome,
    SpanShape,
    Steps,
    uuid4,
)
from pytest_otel_diag.shop.records import AttributeValue, Scope
from pytest_otel_diag.shop.services import cart, currency, email, flagd, payment, product_catalog, shipping

PLACE_ORDER = "oteldemo.CheckoutService/PlaceOrder"
BAD_ADDRESS = "badAddress"
LEAKED_GOROUTINES, LEAKED_BYTES = 8, 48_000
"""Bytes that a gRPC client keeps when it is not closed."""

_TRACER = Scope("checkout", "")
_LOGGER = Scope("checkout", "")
_HTTP = Scope("go.opentelemetry.io/contrib/instrumentation/net/http/otelhttp", "0.64.0")
_PORTS = {"cart": 7070, "product-catalog": 3550, "currency": 7001, "payment": 50051, BAD_ADDRESS: 50051}
_ENDPOINT: dict[str, AttributeValue] = {
    "user_agent.synthetic.type": "test",
    "server.address": "checkout",
    "server.port": 5050,
}
_URLS = {
    shipping.GET_QUOTE: "http://shipping:50050/get-quote",
    shipping.SHIP_ORDER: "http://shipping:50050/ship-order",
    email.CONFIRM: "http://email:6060/send_order_confirmation",
}


class _Service:
    def __init__(self, blueprint: Blueprint) -> None:
        name = blueprint.release.attribute
        self.modern = blueprint.modern
        self.user, self.currency = name("user.id"), name("user.currency")
        self.order_id, self.tracking = name("order.id"), name("shipping.tracking.id")
        self.transaction, self.shipping_amount = name("payment.transaction.id"), name("shipping.amount")
        self.amount, self.order_items = name("order.amount"), name("order.items.count")
        self.cart_items = name("cart.items.count")
        # the service's code only ends this span: a propagating error does not set its status
        self.prepare_shape = SpanShape(
            "prepareOrderItemsAndShippingQuoteFromCart", "Internal", _TRACER, failed=lambda _: SpanOutcome()
        )
        self.publish_shape = SpanShape(
            f"{TOPIC} publish",
            "Producer",
            _TRACER,
            {
                "peer.service": "kafka",
                "network.transport": "tcp",
                "messaging.system": "kafka",
                "messaging.destination.name": TOPIC,
                "messaging.operation": "publish",
                "messaging.kafka.destination.partition": 0,
            },
        )
        self.cost = blueprint.cpu("checkout", 0.5)

    def place_order(self, call: Call, order: CheckoutOrder) -> Steps:
        call.set(**{self.user: order.user, self.currency: order.currency})
        if self.modern:
            call.set(
                **_ENDPOINT,
                **{
                    "user.hash": f"{zlib.crc32(order.user.encode()):08x}",
                    "card_number": f"****{order.card[-4:]}",
                },
            )
        call.log("INFO", "[PlaceOrder]", scope=_LOGGER, user_id=order.user, user_currency=order.currency)
        try:
            return (yield from self._place(call, order))
        except RpcFailure as failure:
            call.event(
                "exception" if self.modern else "error",
                **{"exception.type": "*errors.errorString", "exception.message": failure.message}
                if self.modern
                else {"exception.message": failure.message},
            )
            raise

    def _place(self, call: Call, order: CheckoutOrder) -> Steps:
        rng = call.instance.rng
        order_id = uuid4(rng)
        yield from call.work(self.cost)
        try:
            items, prices, freight = yield from self._prepare(call, order)
        except RpcFailure as failure:
            raise RpcFailure("INTERNAL", failure.message) from None
        call.event("prepared")
        total = freight + sum(price * item.quantity for price, item in zip(prices, items, strict=True))
        transaction = yield from self._charge(call, order, total)
        call.log("INFO", "payment went through", scope=_LOGGER, transaction_id=transaction)
        call.event("charged", **{self.transaction: transaction})
        try:
            tracking: str = yield from call.request("shipping", shipping.SHIP_ORDER, (order.country, items))
        except RpcFailure as failure:
            text = f"shipping error: {_post_failed('shipping', shipping.SHIP_ORDER, failure)}"
            raise RpcFailure("UNAVAILABLE", text) from None
        call.event("shipped", **{self.tracking: tracking})
        with suppress(RpcFailure):  # the service's code ignores the error and completes the order
            yield from call.request("cart", cart.EMPTY, order.user)
        outcome = {
            self.order_id: order_id,
            self.shipping_amount: round(freight, 2),
            self.amount: round(total, 2),
            self.order_items: len(items),
            self.tracking: tracking,
        }
        call.set(**outcome)
        call.log("INFO", "order placed", scope=_LOGGER, **fields(outcome))
        placed = PlacedOrder(order_id, tracking, items, order.country)
        yield from self._confirm(call, order, placed)
        yield from self._publish(call, placed)
        return placed

    def _prepare(self, call: Call, order: CheckoutOrder) -> Steps:
        """Return the items with their prices and the shipping cost in the order's currency."""
        with call.span(self.prepare_shape) as span:
            try:
                items: Sequence[CartItem] = yield from call.request("cart", cart.GET, order.user)
            except RpcFailure as failure:
                raise RpcFailure(
                    "INTERNAL",
                    f"cart failure: failed to get user cart during checkout: {go_message(failure)}",
                ) from None
            prices = []
            for item in items:
                prices.append((yield from self._price(call, item, order.currency)))
            try:
                quoted = yield from call.request("shipping", shipping.GET_QUOTE, items)
            except RpcFailure as failure:
                text = f"shipping quote failure: {_post_failed('shipping', shipping.GET_QUOTE, failure)}"
                raise RpcFailure("INTERNAL", text) from None
            try:
                freight = yield from self._convert(call, quoted, order.currency)
            except RpcFailure as failure:
                text = f"failed to convert shipping cost to currency: {failure.message}"
                raise RpcFailure("INTERNAL", text) from None
            number = sum(item.quantity for item in items)
            span.set(
                {
                    self.shipping_amount: round(freight, 2),
                    self.cart_items: number,
                    self.order_items: len(items),
                }
            )
        return items, prices, freight

    def _price(self, call: Call, item: CartItem, code: str) -> Steps:
        try:
            product = yield from call.request("product-catalog", product_catalog.GET, item.product)
        except RpcFailure:
            raise RpcFailure(
                "INTERNAL", f'failed to prepare order: failed to get product #"{item.product}"'
            ) from None
        try:
            return (yield from self._convert(call, product.price_usd, code))
        except RpcFailure:
            text = f'failed to prepare order: failed to convert price of "{item.product}" to {code}'
            raise RpcFailure("INTERNAL", text) from None

    def _convert(self, call: Call, amount: float, code: str) -> Steps:
        try:
            return (yield from call.request("currency", currency.CONVERT, (amount, "USD", code)))
        except RpcFailure as failure:
            raise RpcFailure("INTERNAL", f"failed to convert currency: {go_message(failure)}") from None

    def _charge(self, call: Call, order: CheckoutOrder, total: float) -> Steps:
        target = "payment"
        if (yield from call.flag("paymentUnreachable", False)):
            target = BAD_ADDRESS
            call.instance.goroutines += LEAKED_GOROUTINES
            call.instance.heap.retain(LEAKED_BYTES)
        try:
            request = payment.Charge(total, order.currency, order.card)
            return (yield from call.request(target, payment.CHARGE, request))
        except RpcFailure as failure:
            text = f"failed to charge card: could not charge the card: {go_message(failure)}"
            raise RpcFailure("INTERNAL", text) from None

    def _confirm(self, call: Call, order: CheckoutOrder, placed: PlacedOrder) -> Steps:
        try:
            yield from call.request("email", email.CONFIRM, (order.email, placed))
        except RpcFailure as failure:
            cause = _post_failed("email", email.CONFIRM, failure)
            text = (
                f"failed to send order confirmation: {cause}"
                if self.modern
                else f'failed to send order confirmation to "{order.email}": {cause}'
            )
            call.log("WARN", text, scope=_LOGGER)
        else:
            if self.modern:  # logged without the context of the request
                call.log("INFO", "order confirmation email sent", scope=_LOGGER, correlated=False)
            else:
                call.log("INFO", f'order confirmation email sent to "{order.email}"', scope=_LOGGER)

    def _publish(self, call: Call, placed: PlacedOrder) -> Steps:
        begun_s = call.now_s
        call.log("INFO", "sending to postProcessor", scope=_LOGGER)
        with call.span(self.publish_shape) as span:
            message = yield from call.publish(TOPIC, placed, size=260 + 90 * len(placed.items))
            took_ms = round((call.now_s - begun_s) * 1e3)
            span.set(
                {
                    "messaging.kafka.producer.success": True,
                    "messaging.kafka.producer.duration_ms": took_ms,
                    "messaging.kafka.message.offset": message.offset,
                }
            )
            text = f"Successful to write message. offset: {message.offset}, duration: {took_ms}ms"
            call.log("INFO", text, scope=_LOGGER)
            more = yield from call.flag("kafkaQueueProblems", 0)
            if more > 0:
                _overload(call, placed, int(more))


def _overload(call: Call, placed: PlacedOrder, number: int) -> None:
    """Publish the order *number* more times in goroutines that run in the background."""
    call.log(
        "INFO",
        "Warning: FeatureFlag 'kafkaQueueProblems' is activated, overloading queue now.",
        scope=_LOGGER,
    )
    for _ in range(number):
        apart = Call(call.instance, call)
        apart.current = call.current
        call.world.spawn(apart.publish(TOPIC, placed, size=260 + 90 * len(placed.items)))
    call.log("INFO", f"Done with #{number} messages for overload simulation.", scope=_LOGGER)


def _post_failed(service: str, operation: str, failure: RpcFailure) -> str:
    """Return the error message of the service's code for a failed POST."""
    if failure.code.isdigit():
        # the service's code says "email" for shipping as well
        return f"failed POST to email service: expected 200, got {failure.code}"
    cause = "dial tcp: connect: connection refused" if failure.kind == "refused" else failure.message
    return f'failed POST to {service} service: Post "{_URLS[operation]}": {cause}'


def go_rephrase(failure: RpcFailure) -> RpcFailure:
    """Return a connection failure with the message of Go's clients."""
    if failure.kind == "lost":
        return RpcFailure(failure.code, "EOF", kind=failure.kind)
    if failure.kind == "refused":
        text = (
            'connection error: desc = "transport: Error while dialing: dial tcp: connect: connection refused"'
        )
        return RpcFailure(failure.code, text, kind=failure.kind)
    return failure


def specs(blueprint: Blueprint) -> list[ServiceSpec]:
    """Return the spec of the checkout service."""
    rpc = blueprint.rpc("go")
    http = Http(_HTTP, metric=True)

    def client(target: str, operation: str) -> SpanShape | None:
        if operation in _URLS:
            return http.client("POST", _URLS[operation], name="POST" if blueprint.modern else "HTTP POST")
        return rpc.client(operation, host=target, port=_PORTS[target]) if target in _PORTS else None

    return [
        blueprint.spec(
            "checkout",
            operations={
                PLACE_ORDER: Operation(
                    _Service(blueprint).place_order, rpc.server(PLACE_ORDER), allocates=90_000
                )
            },
            client=client,
            rephrase=go_rephrase,
            flags=blueprint.flag_client(hook=True),
            loops=(flagd.LISTEN,),
        )
    ]
