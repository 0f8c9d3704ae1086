"""Consumer loop: poll, process each message in a span, commit."""

from __future__ import annotations

from collections.abc import Generator
from typing import Any

from simpy import Event, Timeout

from pytest_otel_diag.shop.kernel.call import Call
from pytest_otel_diag.shop.kernel.instance import Instance
from pytest_otel_diag.shop.kernel.resources.broker import ConsumerGroup, Message
from pytest_otel_diag.shop.kernel.resources.failures import RpcFailure
from pytest_otel_diag.shop.kernel.service_spec import ConsumerSpec
from pytest_otel_diag.shop.kernel.span import Span
from pytest_otel_diag.shop.records import AttributeValue

LONG_POLL_S = 30.0


def consume(instance: Instance, spec: ConsumerSpec) -> Generator[Event, Any, None]:
    """Consume a topic until the instance ends; see :class:`ConsumerSpec`."""
    world = instance.world
    group = world.broker.group(spec.topic, spec.group)
    group.join(instance)
    try:
        while True:
            batch = group.fetch(instance, spec.max_records)
            if not batch:
                yield world.broker.await_messages(group, LONG_POLL_S)
                yield Timeout(world.env, spec.fetch_wait_s)
                continue
            yield Timeout(world.env, world.network.delay_s())
            yield from _process(instance, spec, group, batch)
    finally:
        group.leave(instance)


def _process(
    instance: Instance, spec: ConsumerSpec, group: ConsumerGroup, batch: list[Message]
) -> Generator[Event, Any, None]:
    world = instance.world
    begun_s = world.now_s
    receive = yield from _received(instance, spec, batch)
    for message in batch:
        world.counters.requests_begun += 1
        try:
            yield from _handle(instance, spec, message, receive)
        except RpcFailure:
            world.counters.requests_failed += 1  # a failed handler does not end the consumer loop
        finally:
            world.counters.requests_ended += 1
    if world.now_s - begun_s > spec.max_poll_interval_s:
        group.leave(instance)  # removed from the group: the commit is rejected, the batch is redelivered
        group.join(instance)
        return
    group.commit(batch)
    world.counters.messages_consumed += len(batch)


def _received(
    instance: Instance, spec: ConsumerSpec, batch: list[Message]
) -> Generator[Event, Any, Call | None]:
    """Record the receive span of a poll and return the call that is the parent of the processing."""
    if spec.receive is None:
        return None
    call = Call(instance, None)
    with call.span(spec.receive, **{"messaging.batch.message_count": len(batch)}) as span:
        if spec.receive_s:
            yield from call.work(spec.receive_s)
    call.parent_id = span.span_id
    return call


def _handle(
    instance: Instance, spec: ConsumerSpec, message: Message, receive: Call | None
) -> Generator[Event, Any, None]:
    call = Call(instance, receive)
    producer = message.producer
    if not spec.linked and producer.trace_id:
        call.trace_id, call.parent_id = producer
    instance.heap.allocate(spec.allocates)
    if spec.process is None:
        yield from spec.behaviour(call, message)
        return
    extra: dict[str, AttributeValue] = {}
    if spec.process_attributes is not None:
        extra.update(spec.process_attributes(message))
    with Span(call, spec.process, extra) as span:
        if spec.linked and producer.trace_id:
            span.link(producer.trace_id, producer.span_id)
        if spec.overhead_s:
            yield from call.work(spec.overhead_s)
        yield from spec.behaviour(call, message)
        if spec.overhead_s:
            yield from call.work(spec.overhead_s / 2)
