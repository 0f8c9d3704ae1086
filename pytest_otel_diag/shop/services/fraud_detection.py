"""fraud-detection (Kotlin): checks every order; kafkaQueueProblems makes it sleep a second for each."""

from __future__ import annotations

from pytest_otel_diag.shop.demo.blueprint import Blueprint
from pytest_otel_diag.shop.demo.payloads import PlacedOrder
from pytest_otel_diag.shop.demo.topology import TOPIC
from pytest_otel_diag.shop.kernel import Call, ConsumerSpec, Instance, Message, ServiceSpec, SpanShape, Steps
from pytest_otel_diag.shop.records import AttributeValue, Scope
from pytest_otel_diag.shop.services import flagd

GROUP = "fraud-detection"
SLEEP_S = 1.0
_KAFKA = Scope("io.opentelemetry.kafka-clients-0.11", "2.20.1-alpha")
_LOGGER = Scope("frauddetection.main", "")
_ATTRIBUTES: dict[str, AttributeValue] = {
    "messaging.system": "kafka",
    "messaging.destination.name": TOPIC,
    "messaging.kafka.consumer.group": GROUP,
    "messaging.client_id": "consumer-fraud-detection-1",
    "thread.name": "main",
    "thread.id": 1,
}


class Seen:
    """State of an instance: the number of orders it has seen."""

    __slots__ = ("count",)

    def __init__(self, instance: Instance) -> None:  # noqa: ARG002 - a factory of state
        self.count = 0


def _details(message: Message) -> dict[str, str | int]:
    return {
        "messaging.kafka.message.offset": message.offset,
        "messaging.destination.partition.id": str(message.partition),
        "messaging.message.body.size": message.size,
    }


def specs(blueprint: Blueprint) -> list[ServiceSpec]:
    """Return the spec of the fraud detection service."""
    receive = SpanShape(
        f"{TOPIC} receive", "Consumer", _KAFKA, {**_ATTRIBUTES, "messaging.operation": "receive"}
    )
    process = SpanShape(
        f"{TOPIC} process", "Consumer", _KAFKA, {**_ATTRIBUTES, "messaging.operation": "process"}
    )
    cost = blueprint.cpu("fraud-detection", 1.0)
    rpc = blueprint.rpc("java")

    def check(call: Call, message: Message) -> Steps:
        order: PlacedOrder = message.value
        queued_ms = round((call.now_s - message.produced_s) * 1e3)
        call.set(**{"kafka.record.queue_time_ms": queued_ms})
        seen: Seen = call.state
        seen.count += 1
        if (yield from call.flag("kafkaQueueProblems", 0)) > 0:
            call.log("INFO", "FeatureFlag 'kafkaQueueProblems' is enabled, sleeping 1 second", scope=_LOGGER)
            yield from call.wait(SLEEP_S)
        yield from call.work(cost)
        text = f"Consumed record with orderId: {order.order_id}, and updated total count to: {seen.count}"
        call.log("INFO", text, scope=_LOGGER)

    consumer = ConsumerSpec(
        TOPIC, GROUP, check, process, receive, receive_s=blueprint.cpu("fraud-detection", 0.25),
        process_attributes=_details,
    )  # fmt: skip
    return [
        blueprint.spec(
            "fraud-detection",
            client=lambda target, operation: rpc.client(operation, host=target, port=8013),
            flags=blueprint.flag_client(hook=False),
            state=Seen,
            consumers=(consumer,),
            loops=(flagd.LISTEN,),
        )
    ]
