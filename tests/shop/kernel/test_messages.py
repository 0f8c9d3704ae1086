"""Topics, consumer groups, their lag, and traces that are linked instead of nested."""

from __future__ import annotations

from collections import Counter
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st

from pytest_otel_diag.shop.kernel import (
    Call,
    ConsumerSpec,
    Message,
    RpcFailure,
    ServiceSpec,
    SpanShape,
    Steps,
    World,
)
from pytest_otel_diag.shop.records import Batch
from tests.shop.kernel.tiny_world import SCOPE, run, world

PUBLISH = SpanShape("orders publish", "Producer", SCOPE)
PROCESS = SpanShape("orders process", "Consumer", SCOPE)
RECEIVE = SpanShape("orders receive", "Consumer", SCOPE)


def _producing(made: World, count: int, every_s: float) -> None:
    made.add(ServiceSpec("checkout"))

    def produce() -> Steps:
        for number in range(count):
            call = Call.root(made.service("checkout").instances[0])
            with call.span(PUBLISH):
                yield from call.publish("orders", number, key=number)
            yield made.sleep(every_s)

    made.spawn(produce())


def _consumer(behaviour: Any, **options: Any) -> ServiceSpec:
    spec = ConsumerSpec("orders", options.pop("group", "fraud"), behaviour, **options)
    return ServiceSpec("fraud", consumers=(spec,), restart_s=0.5, startup_s=0.5)


def _taken(made: World) -> Batch:
    return made.recorder.take(made.now_ns, made.now_ns)


def test_each_message_is_processed_once_in_a_new_trace_that_links_to_its_producer() -> None:
    made = world()
    seen: list[int] = []

    def behaviour(call: Call, message: Message) -> Steps:
        yield from call.work(0.001)
        seen.append(message.value)

    made.add(
        _consumer(
            behaviour, process=PROCESS, process_attributes=lambda m: {"messaging.kafka.offset": m.offset}
        )
    )
    _producing(made, 20, 0.1)
    run(made, 30)
    spans = _taken(made).spans
    published = {span.span_id: span for span in spans if span.kind == "Producer"}
    processed = [span for span in spans if span.kind == "Consumer"]
    assert seen == list(range(20))
    assert {span.links[0].span_id for span in processed} == set(published)
    assert all(published[span.links[0].span_id].trace_id == span.links[0].trace_id for span in processed)
    assert {span.trace_id for span in processed}.isdisjoint(span.trace_id for span in published.values())
    assert [span.attributes["messaging.kafka.offset"] for span in processed] == list(range(20))


def test_a_receive_span_is_the_parent_of_its_batch() -> None:
    made = world()
    made.add(_consumer(lambda call, _: call.work(0.001), process=PROCESS, receive=RECEIVE, fetch_wait_s=5.0))
    _producing(made, 10, 0.01)
    run(made, 30)
    spans = _taken(made).spans
    received = [span for span in spans if span.name == RECEIVE.name]
    processed = [span for span in spans if span.name == PROCESS.name]
    assert sum(int(span.attributes["messaging.batch.message_count"]) for span in received) == 10
    assert {span.parent_id for span in processed} == {span.span_id for span in received}
    assert all(span.links for span in processed)


def test_without_links_the_consumer_continues_the_producers_trace() -> None:
    made = world()
    made.add(_consumer(lambda call, _: call.work(0.001), process=PROCESS, linked=False))
    _producing(made, 3, 0.01)
    run(made, 30)
    spans = _taken(made).spans
    published = {span.span_id: span.trace_id for span in spans if span.kind == "Producer"}
    processed = [span for span in spans if span.kind == "Consumer"]
    assert {span.parent_id: span.trace_id for span in processed} == published


def test_a_handler_that_fails_does_not_stop_its_consumer() -> None:
    made = world()

    def behaviour(call: Call, message: Message) -> Steps:
        yield from call.work(0.001)
        if message.value % 2:
            raise RpcFailure("INTERNAL", "odd")

    made.add(_consumer(behaviour, process=PROCESS))
    _producing(made, 10, 0.01)
    run(made, 30)
    statuses = Counter(span.status for span in _taken(made).spans if span.kind == "Consumer")
    assert statuses == {"Unset": 5, "Error": 5}
    assert made.counters.requests_begun == made.counters.requests_ended
    assert made.broker.group("orders", "fraud").total_lag == 0


@settings(max_examples=25, deadline=None)
@given(
    partitions=st.integers(1, 3),
    count=st.integers(0, 60),
    slow_s=st.sampled_from([0.001, 0.05, 1.0]),
    max_records=st.sampled_from([1, 7, 500]),
    kill_at=st.none() | st.floats(0.0, 10.0, allow_nan=False),
    at=st.floats(0.5, 30.0, allow_nan=False),
)
def test_produced_messages_are_consumed_messages_plus_lag_at_any_time(
    partitions: int, count: int, slow_s: float, max_records: int, kill_at: float | None, at: float
) -> None:
    made = world()
    made.broker.topic("orders", partitions)
    seen: Counter[int] = Counter()

    def behaviour(call: Call, message: Message) -> Steps:
        yield from call.wait(slow_s)
        seen[message.value] += 1

    made.add(_consumer(behaviour, max_records=max_records))
    _producing(made, count, 0.05)

    def reaper() -> Steps:
        if kill_at is not None:
            yield made.sleep(kill_at)
            for instance in list(made.service("fraud").instances):
                instance.kill("test")

    made.spawn(reaper())
    group = made.broker.group("orders", "fraud")
    for moment in (at, 400.0):
        made.advance(made.start_ns + round(moment * 1e9))
        assert made.counters.messages_produced == group.consumed + group.total_lag
        assert made.counters.messages_consumed <= made.counters.messages_produced
    assert made.counters.messages_produced == count
    assert group.total_lag == 0
    # at least once: what died before its commit comes again, nothing is left out
    assert set(seen) == set(range(count))
    if kill_at is None:
        assert set(seen.values()) <= {1}


def test_lag_grows_while_the_consumer_is_too_slow_and_drains_afterwards() -> None:
    made = world()
    slow = True

    def behaviour(call: Call, _: Message) -> Steps:
        yield from call.wait(1.0 if slow else 0.001)

    made.add(_consumer(behaviour, max_records=10))
    _producing(made, 300, 0.1)
    run(made, 20)
    early = made.broker.group("orders", "fraud").total_lag
    run(made, 10)
    late = made.broker.group("orders", "fraud").total_lag
    assert early > 100
    assert late > early
    slow = False
    run(made, 60)
    assert made.broker.group("orders", "fraud").total_lag == 0


def test_a_batch_that_takes_too_long_is_not_committed_and_is_redelivered() -> None:
    made = world()
    seen: Counter[int] = Counter()

    def behaviour(call: Call, message: Message) -> Steps:
        yield from call.wait(1.0)
        seen[message.value] += 1

    made.add(_consumer(behaviour, max_poll_interval_s=5.0, fetch_wait_s=2.0))
    _producing(made, 10, 0.01)
    run(made, 40)
    assert max(seen.values()) > 1
    assert made.counters.messages_consumed < 10


def test_two_consumers_share_the_partitions_of_their_group() -> None:
    made = world()
    made.broker.topic("orders", 4)
    seen: list[tuple[int, int]] = []

    def behaviour(call: Call, message: Message) -> Steps:
        yield from call.work(0.001)
        seen.append((call.instance.ordinal, message.partition))

    spec = ConsumerSpec("orders", "fraud", behaviour)
    made.add(ServiceSpec("fraud", consumers=(spec,), replicas=2))
    _producing(made, 40, 0.01)
    run(made, 30)
    assert sorted(set(seen)) == [(0, 0), (0, 2), (1, 1), (1, 3)]
    assert len(seen) == 40


def test_a_topic_without_groups_keeps_counting_offsets() -> None:
    made = world()
    _producing(made, 5, 0.01)
    run(made, 5)
    topic = made.broker.topic("orders")
    assert (topic.end(0), topic.logs[0]) == (5, [])
    assert made.broker.group("orders", "late").total_lag == 0
