"""Noise with a tail, contention on hosts, drift of their speed, stragglers, variation of pauses."""

from __future__ import annotations

import random
import statistics
from itertools import pairwise
from uuid import RFC_4122, UUID

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pytest_otel_diag.shop.kernel import (
    NODE,
    Call,
    Heap,
    HeapSpec,
    Noise,
    Operation,
    ServiceSpec,
    Tail,
    uuid4,
)
from tests.shop.kernel.tiny_world import BACK, back, world


def _drawn(tail: Tail) -> list[float]:
    noise = Noise(random.Random(3), 0.35, tail)
    return sorted(noise.draw() for _ in range(4096))


def test_a_tail_slows_few_pieces_and_leaves_the_median():
    plain, tailed = _drawn(Tail()), _drawn(Tail(0.02))
    assert statistics.median(tailed) == pytest.approx(statistics.median(plain), rel=0.05)
    assert sum(factor > 5.0 for factor in plain) == 0
    assert 0.003 < sum(factor > 5.0 for factor in tailed) / 4096 < 0.02
    assert max(tailed) < 40.0 * 5.0


@given(st.floats(0.001, 1.0), st.floats(1.0, 5.0), st.floats(1.0, 60.0), st.integers(0, 99))
def test_no_piece_exceeds_the_maximum_of_the_tail(ratio, least, most, seed):
    noise = Noise(random.Random(seed), 0.0, Tail(ratio, least, 1.5, most))
    assert all(1.0 <= noise.draw() <= max(1.0, most) for _ in range(4096))


def _disrupted():
    made = world(seed=5)
    for name, host in (("one", "m1"), ("two", "m1"), ("three", "m2")):
        made.add(ServiceSpec(name, {"Answer": Operation(back, BACK)}, host=host, cpu_noise=0.0))
    made.add_disruptions()
    return made


def test_bursts_slow_all_services_of_a_host_at_the_same_time():
    made = _disrupted()
    took: dict[str, list[float]] = {"one": [], "two": [], "three": []}
    busy: dict[str, list[bool]] = {"one": [], "two": [], "three": []}

    def probe(name):
        call = Call.root(made.service(name).instances[0])
        host = made.hosts[made.service(name).spec.host]
        while True:
            begun_s = made.now_s
            busy[name].append(host.background_threads > 0)
            yield from call.work(0.001)
            took[name].append(made.now_s - begun_s)
            yield made.sleep(0.02)

    for name in took:
        made.spawn(probe(name))
    made.advance(made.start_ns + 120 * 10**9)
    for name, times in took.items():
        while_busy = [time for time, was in zip(times, busy[name], strict=False) if was]
        otherwise = [time for time, was in zip(times, busy[name], strict=False) if not was]
        assert 0.005 < len(while_busy) / len(times) < 0.15
        assert statistics.median(while_busy) > 1.5 * statistics.median(otherwise)
    assert busy["one"][:50] == busy["two"][:50]
    slow = {name: {at for at, was in enumerate(moments) if was} for name, moments in busy.items()}
    assert slow["one"]
    assert not slow["one"] <= slow["three"]


def test_bursts_end_and_release_all_their_threads():
    made = _disrupted()
    for second in range(1, 301):
        made.advance(made.start_ns + second * 10**9)
        for host in made.hosts.values():
            assert host.runnable == host.background_threads >= 0


def test_the_speed_of_a_host_drifts_by_a_few_percent():
    made = _disrupted()
    slowdowns = []
    for minute in range(1, 121):
        made.advance(made.start_ns + minute * 60 * 10**9)
        slowdowns.append(made.hosts["m1"].slowdown)
    assert 0.01 < statistics.stdev(slowdowns) < 0.06
    assert all(0.85 < slowdown < 1.18 for slowdown in slowdowns)
    steps = [abs(later - sooner) for sooner, later in pairwise(slowdowns)]
    assert statistics.mean(steps) < 1.2 * statistics.stdev(slowdowns)  # it drifts without jumps


def test_disruptions_delay_few_messages():
    made = world(seed=9)
    undisturbed = sorted(made.network.delay_s() for _ in range(4096))
    made.add_disruptions()
    disrupted = sorted(made.network.delay_s() for _ in range(4096))
    assert disrupted[2048] == pytest.approx(undisturbed[2048], rel=0.01)
    assert undisturbed[-1] < 0.005
    assert disrupted[-1] >= 0.01
    assert sum(delay > 0.005 for delay in disrupted) < 0.01 * 4096


def test_pauses_of_collections_vary():
    pauses: list[float] = []
    noise = Noise(random.Random(1), 0.35)
    spec = HeapSpec(NODE)
    heap = Heap(spec, lambda seconds, _action: pauses.append(seconds), lambda _reason: None, noise.draw)
    for _ in range(50):
        heap.allocate(heap.young_limit)
    assert len(set(pauses)) == 50
    assert statistics.mean(pauses) == pytest.approx(NODE.minor_s, rel=0.25)


def test_a_long_running_process_has_allocated_and_holds_garbage():
    heap = Heap(HeapSpec(NODE), lambda _seconds, _action: None, lambda _reason: None)
    heap.age(0.5, 3600.0)
    assert heap.allocated > heap.live
    assert 0 < heap.young < heap.young_limit


@given(st.integers())
def test_uuids_have_version_4_and_the_rfc_variant(seed):
    made = UUID(uuid4(random.Random(seed)))
    assert made.version == 4
    assert made.variant == RFC_4122
