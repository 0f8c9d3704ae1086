"""Heaps, stop-the-world collections, and kills at the memory limit."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pytest_otel_diag.shop.kernel import (
    GO,
    JVM,
    MANUAL,
    MB,
    NODE,
    PYTHON,
    Call,
    Heap,
    HeapSpec,
    Operation,
    RpcFailure,
    Steps,
)
from tests.shop.kernel.tiny_world import BACK, ask, run, two_services


def _heap(spec: HeapSpec) -> tuple[Heap, list[tuple[float, str]], list[str]]:
    stops: list[tuple[float, str]] = []
    kills: list[str] = []
    return Heap(spec, lambda seconds, action: stops.append((seconds, action)), kills.append), stops, kills


@given(st.lists(st.integers(0, 3 * MB), max_size=60))
def test_garbage_never_outgrows_the_budget_by_more_than_one_object(sizes: list[int]) -> None:
    heap, stops, kills = _heap(HeapSpec(JVM, live_bytes=50 * MB, max_bytes=200 * MB))
    for size in sizes:
        heap.allocate(size)
        assert heap.young < heap.young_limit
    assert heap.allocated == sum(sizes)
    assert len(stops) == sum(heap.collections.values())
    assert sum(seconds for seconds, _ in stops) == pytest.approx(sum(heap.pause_s.values()))
    assert not kills


def test_a_pause_grows_with_live_bytes_and_a_full_heap_collects_fully() -> None:
    small, stops_small, _ = _heap(HeapSpec(JVM, live_bytes=20 * MB, max_bytes=200 * MB))
    large, stops_large, _ = _heap(HeapSpec(JVM, live_bytes=190 * MB, max_bytes=200 * MB))
    small.allocate(30 * MB)
    large.allocate(30 * MB)
    assert stops_small[0][1] == "minor"
    assert stops_large[0][1] == "full"
    assert stops_large[0][0] > 10 * stops_small[0][0]
    # the closer to the maximum, the sooner the next collection
    assert large.young_limit < small.young_limit


def test_go_lets_garbage_grow_with_live_bytes() -> None:
    heap, _, _ = _heap(HeapSpec(GO, live_bytes=40 * MB))
    assert heap.young_limit == 40 * MB
    heap.retain(40 * MB)
    heap.collect()
    assert heap.young_limit == 80 * MB


def test_reference_counting_and_manual_memory_leave_no_garbage() -> None:
    for policy in (PYTHON, MANUAL):
        heap, stops, _ = _heap(HeapSpec(policy))
        heap.allocate(10**12)
        assert heap.used == heap.spec.live_bytes
        assert not stops


def test_a_limit_kills_only_when_a_collection_does_not_help() -> None:
    spec = HeapSpec(NODE, base_bytes=50 * MB, live_bytes=10 * MB, limit_bytes=100 * MB)
    heap, stops, kills = _heap(spec)
    heap.allocate(15 * MB)
    heap.retain(30 * MB)  # 105 MB with the garbage, 90 without
    assert [action for _, action in stops] == ["full"]
    assert not kills
    heap.retain(11 * MB)
    assert kills == ["OOMKilled"]


def test_a_heap_above_its_maximum_ends_the_process() -> None:
    heap, _, kills = _heap(HeapSpec(JVM, live_bytes=20 * MB, max_bytes=60 * MB))
    heap.retain(50 * MB)
    assert kills == ["OutOfMemoryError"]
    heap.release(10**12)
    assert heap.live == heap.spec.live_bytes


def _leaking(call: Call, request: Any) -> Steps:
    yield from call.work(0.01)
    call.instance.heap.retain(3 * MB)
    yield from call.wait(0.2)
    return request


def test_a_killed_process_fails_its_calls_loses_its_buffers_and_is_replaced() -> None:
    spec = HeapSpec(MANUAL, base_bytes=20 * MB, live_bytes=10 * MB, limit_bytes=100 * MB)
    made = two_services(
        operations={"Answer": Operation(_leaking, BACK)}, heap=spec, restart_s=2.0, startup_s=1.0
    )
    first = made.service("back").instances[0]
    replies = ask(made, 160, 0.25)
    run(made, 60)
    service = made.service("back")
    batch = made.recorder.take(made.now_ns, made.now_ns)

    assert [reason for _, reason in service.kills][:1] == ["OOMKilled"]
    assert service.restarts == len(service.kills) == made.counters.kills
    assert not first.alive
    failures = [reply for reply in replies if isinstance(reply, RpcFailure)]
    kinds = {failure.kind for failure in failures}
    assert kinds == {"lost", "refused"}
    assert len(replies) == 160
    assert made.counters.requests_begun == made.counters.requests_ended

    served = {span.span_id for span in batch.spans if span.resource.service == "back"}
    asked = [span for span in batch.spans if span.resource.service == "front" and span.kind == "Client"]
    assert made.counters.records_lost > 0
    # spans that the callee had not exported are lost, those of its callers are not
    assert len(served) + made.counters.records_lost <= len(asked)
    assert sum(span.status == "Error" for span in asked) == len(failures)
    instances = {span.resource.attributes["service.instance.id"] for span in batch.spans
                 if span.resource.service == "back"}  # fmt: skip
    assert len(instances) >= 2


def test_a_stop_the_world_pause_delays_all_running_work() -> None:
    made = two_services(cpu_noise=0.0)
    replies = ask(made, 1, 1.0)
    made.advance(made.now_ns + 3_500_000)  # the callee is in the middle of its 3 ms
    back = made.service("back").instances[0]
    assert back.inflight
    back.stop(0.5)
    run(made, 30)
    batch = made.recorder.take(made.now_ns, made.now_ns)
    (answer,) = [span for span in batch.spans if span.resource.service == "back"]
    assert 500_000_000 < answer.duration_ns < 510_000_000
    assert replies == [1]


def test_a_wait_ends_after_a_pause_that_began_meanwhile() -> None:
    made = two_services()
    done: list[float] = []

    def sleeper() -> Steps:
        call = Call.root(made.service("back").instances[0])
        yield from call.wait(1.0)
        done.append(made.now_s)

    made.spawn(sleeper())
    run(made, 0.9)
    made.service("back").instances[0].stop(2.0)
    run(made, 5)
    assert done == [pytest.approx(2.9)]


def test_a_new_process_is_slower_at_first() -> None:
    made = two_services(warmup=5.0, warmup_s=10.0, cpu_noise=0.0, startup_s=0.5)
    warm = made.service("back").instances[0]
    assert warm.slowness == 1.0
    made.service("back").replace()
    run(made, 1)
    fresh = made.service("back").instances[0]
    assert fresh is not warm
    assert 4.0 < fresh.slowness <= 5.0
    run(made, 100)
    assert fresh.slowness == 1.0
