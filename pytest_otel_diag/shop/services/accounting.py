"""accounting (.NET): stores the orders of the topic.

Duplicate orders are skipped. Releases 2.1 and 2.2 keep one database context for the life of the process; a
duplicate breaks it until the process is replaced.
"""

from __future__ import annotations

from pytest_otel_diag.shop.demo.blueprint import Blueprint
from pytest_otel_diag.shop.demo.payloads import PlacedOrder, fields
from pytest_otel_diag.shop.demo.releases import DemoRelease
from pytest_otel_diag.shop.demo.topology import TOPIC
from pytest_otel_diag.shop.kernel import (
    Call,
    ConsumerSpec,
    Instance,
    Message,
    RpcFailure,
    ServiceSpec,
    SpanOutcome,
    SpanShape,
    Steps,
    exception_event,
)
from pytest_otel_diag.shop.records import Scope
from pytest_otel_diag.shop.services.databases import DATABASE

GROUP = "accounting"
DUPLICATE = "23505"
"""PostgreSQL's code of a violated unique constraint."""
_KAFKA = Scope("OpenTelemetry.AutoInstrumentation.Kafka", "1.13.0")
_CONSUMER = Scope("Accounting.Consumer", "")
_NPGSQL = Scope("Npgsql", "10.0.0")
_LOGGER = Scope("Accounting.Consumer", "")


class Context:
    """State of an instance: whether its database context is broken, and the orders that it tracks."""

    __slots__ = ("broken", "tracked")

    def __init__(self, instance: Instance) -> None:  # noqa: ARG002 - a factory of state
        self.broken = False
        self.tracked: set[str] = set()


def _query_failed(failure: RpcFailure) -> SpanOutcome:
    event = exception_event("Npgsql.PostgresException", failure.message)
    return SpanOutcome("Error", failure.message, {"db.response.status_code": failure.code}, (event,))


def _details(message: Message) -> dict[str, str | int]:
    return {"messaging.kafka.message.offset": message.offset}


_CONSUMED = SpanShape("order-consumed", "Internal", _CONSUMER)
_RECEIVE = SpanShape(
    f"{TOPIC} receive",
    "Consumer",
    _KAFKA,
    {
        "messaging.system": "kafka",
        "messaging.operation": "receive",
        "messaging.destination.name": TOPIC,
        "messaging.kafka.consumer.group": GROUP,
        "messaging.client_id": "rdkafka#consumer-1",
        "messaging.kafka.destination.partition": 0,
    },
)
_INSERT = SpanShape(
    "postgresql",
    "Client",
    _NPGSQL,
    {
        "db.system.name": "postgresql",
        "db.namespace": "otel",
        "db.query.text": 'INSERT INTO accounting."order" (order_id) VALUES (@p0);',
        "server.address": DATABASE,
        "server.port": 5432,
    },
    failed=_query_failed,
)


class _Service:
    def __init__(self, blueprint: Blueprint) -> None:
        release = blueprint.release
        self.cost = blueprint.cpu("accounting", 1.2)
        self.stores = release.version != "2.0"
        self.shared = _shared_context(release)
        self.received = "accounting.order.received" if blueprint.modern else ""
        self.skipped = "accounting.order.duplicate_skipped" if blueprint.modern else ""
        self.failed = "accounting.order.parsing_failed" if blueprint.modern else ""

    def process(self, call: Call, message: Message) -> Steps:
        order: PlacedOrder = message.value
        with call.span(_CONSUMED):
            details = f'{{ "orderId": "{order.order_id}", "shippingTrackingId": "{order.tracking_id}" }}'
            text = "Order details: {@OrderResult}."
            call.log(
                "Information",
                text,
                scope=_LOGGER,
                event_name=self.received,
                **fields({"@OrderResult": details}),
            )
            yield from call.work(self.cost)
            if not self.stores:
                return
            if self.shared and _breaks(call, order):
                self._refused(call, _tracking_error(order))
                return
            try:
                yield from call.request(DATABASE, "INSERT order", order.order_id)
            except RpcFailure as failure:
                if failure.code == DUPLICATE:
                    text = "Duplicate order received, skipping."
                    call.log("Information", text, scope=_LOGGER, event_name=self.skipped)
                else:
                    self._refused(call, {"exception.message": failure.message})

    def _refused(self, call: Call, error: dict[str, str]) -> None:
        text = "Order parsing failed:"
        call.log("Error", text, scope=_LOGGER, event_name=self.failed, **fields(error))


def specs(blueprint: Blueprint) -> list[ServiceSpec]:
    """Return the spec of the accounting service."""
    process, overhead_s = _Service(blueprint).process, blueprint.cpu("accounting", 0.15)
    consumer = ConsumerSpec(
        TOPIC, GROUP, process, _RECEIVE, max_records=1, overhead_s=overhead_s, process_attributes=_details
    )
    return [
        blueprint.spec(
            "accounting",
            client=lambda target, operation: _INSERT,  # noqa: ARG005 - its only dependency
            state=Context,
            consumers=(consumer,),
        )
    ]


def _shared_context(release: DemoRelease) -> bool:
    return release.version in ("2.1", "2.2")


def _breaks(call: Call, order: PlacedOrder) -> bool:
    """Return whether the shared context rejects the order: it tracks it already, or is broken."""
    context: Context = call.state
    if order.order_id in context.tracked:
        context.broken = True
    context.tracked.add(order.order_id)
    call.instance.heap.retain(900)  # the context never releases tracked entities
    return context.broken


def _tracking_error(order: PlacedOrder) -> dict[str, str]:
    return {
        "exception.type": "System.InvalidOperationException",
        "exception.message": "The instance of entity type 'OrderEntity' cannot be tracked because another "
        f"instance with the same key value for {{'Id'}} is already being tracked. ({order.order_id})",
    }
