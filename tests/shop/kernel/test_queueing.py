"""Laws of queueing theory, which emerge from the model."""

from __future__ import annotations

import math
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pytest_otel_diag.shop.kernel import Call, Operation, Pool, RpcFailure, ServiceSpec, Steps, World
from tests.shop.kernel.tiny_world import run, world


def _open_queue(made: World, rate: float, seconds: float, operation: str = "Answer") -> list[float]:
    """Start Poisson arrivals at *rate* a second; returns the list that their times in the system go to."""
    times: list[float] = []
    rng = made.rng("arrivals")
    made.add(ServiceSpec("user"))

    def one() -> Steps:
        begun = made.now_s
        yield from Call.root(made.service("user").instances[0]).request("back", operation)
        times.append(made.now_s - begun)

    def arrivals() -> Steps:
        while made.now_s < seconds:
            yield made.sleep(rng.expovariate(rate))
            made.spawn(one())

    made.spawn(arrivals())
    return times


def _server(made: World, behaviour: Any, **options: Any) -> Any:
    spec = ServiceSpec("back", {"Answer": Operation(behaviour, allocates=0)}, idle_cpu=0.0, **options)
    return made.add(spec).instances[0]


def test_littles_law_holds_on_a_pool_of_workers() -> None:
    made = world(seed=3)
    held: list[float] = []

    def behaviour(call: Call, _: Any) -> Steps:
        begun = call.now_s
        yield from call.wait(call.instance.rng.expovariate(1 / 0.05))
        held.append(call.now_s - begun)

    instance = _server(made, behaviour, workers=100)
    _open_queue(made, 20.0, 400.0)
    run(made, 420)
    in_use = instance.pool.settle() / 400.0
    rate = len(held) / 400.0
    mean_time = sum(held) / len(held)
    # L = λW is exact for a run that starts and ends empty
    assert in_use == pytest.approx(rate * mean_time, rel=1e-6)
    assert rate == pytest.approx(20.0, rel=0.05)


def test_the_utilisation_law_holds_on_the_cpu() -> None:
    made = world(seed=4)
    made.host("node-1", 1.0)

    def behaviour(call: Call, _: Any) -> Steps:
        yield from call.work(0.01)

    instance = _server(made, behaviour)
    _open_queue(made, 50.0, 300.0)
    run(made, 320)
    # U = λS: 50 a second times 10 ms
    assert instance.settle_cpu() / 300.0 == pytest.approx(0.5, rel=0.04)


@pytest.mark.parametrize("load", [0.3, 0.6, 0.8])
def test_time_on_a_shared_core_follows_processor_sharing(load: float) -> None:
    """W = S / (1 - ρ), whatever the distribution of the work (Kleinrock, Queueing Systems II, 4.4)."""
    made = world(seed=5)
    made.host("node-1", 1.0)
    service_s = 0.02
    spent: list[float] = []

    def behaviour(call: Call, _: Any) -> Steps:
        begun = call.now_s
        yield from call.work(service_s)
        spent.append(call.now_s - begun)

    _server(made, behaviour)
    _open_queue(made, load / service_s, 500.0)
    run(made, 520)
    assert sum(spent) / len(spent) == pytest.approx(service_s / (1 - load), rel=0.12)


@pytest.mark.parametrize("load", [0.5, 0.8])
def test_one_worker_follows_the_m_m_1_formula(load: float) -> None:
    """W = S / (1 - ρ) for M/M/1: exponential service in one worker, first come first served."""
    made = world(seed=6)
    service_s = 0.05

    def behaviour(call: Call, _: Any) -> Steps:
        yield from call.wait(call.instance.rng.expovariate(1 / service_s))

    _server(made, behaviour, workers=1, queue_limit=10_000)
    times = _open_queue(made, load / service_s, 2000.0)
    run(made, 2040)
    network_s = 0.0006
    assert sum(times) / len(times) - network_s == pytest.approx(service_s / (1 - load), rel=0.15)


def test_beyond_saturation_the_queue_grows_and_a_full_queue_rejects() -> None:
    made = world(seed=7)
    failures: list[RpcFailure] = []
    made.add(ServiceSpec("user"))

    def behaviour(call: Call, _: Any) -> Steps:
        yield from call.wait(1.0)

    instance = _server(made, behaviour, workers=2, queue_limit=5)

    def one() -> Steps:
        try:
            yield from Call.root(made.service("user").instances[0]).request("back", "Answer")
        except RpcFailure as failure:
            failures.append(failure)

    for _ in range(20):
        made.spawn(one())
    run(made, 0.5)
    assert (instance.pool.busy, instance.pool.queued) == (2, 5)
    assert {(failure.code, failure.kind) for failure in failures} == {("RESOURCE_EXHAUSTED", "overload")}
    assert len(failures) == 13
    run(made, 10)
    assert instance.pool.served == 7


@settings(max_examples=40, deadline=None)
@given(
    size=st.integers(1, 5),
    stays=st.lists(st.floats(0.0, 3.0, allow_nan=False), min_size=1, max_size=25),
    gaps=st.lists(st.floats(0.0, 1.0, allow_nan=False), min_size=25, max_size=25),
)
def test_a_pool_never_exceeds_its_size_and_serves_in_order(
    size: int, stays: list[float], gaps: list[float]
) -> None:
    made = world()
    pool = Pool(made.env, "pool", size)
    order: list[int] = []
    most = 0

    def visit(number: int) -> Steps:
        nonlocal most
        yield from pool.acquire()
        order.append(number)
        most = max(most, pool.busy)
        yield made.sleep(stays[number])
        pool.release()

    def arrive() -> Steps:
        for number in range(len(stays)):
            made.spawn(visit(number))
            yield made.sleep(gaps[number])

    made.spawn(arrive())
    run(made, 1000)
    assert order == list(range(len(stays)))
    assert most <= size
    assert (pool.busy, pool.queued, pool.served) == (0, 0, len(stays))
    assert pool.settle() == pytest.approx(math.fsum(stays), abs=1e-9)


def test_a_cpu_limit_slows_a_service_on_an_idle_host() -> None:
    made = world(seed=8)
    made.host("node-1", 16.0)
    took: list[float] = []

    def behaviour(call: Call, _: Any) -> Steps:
        begun = call.now_s
        yield from call.work(0.2)
        took.append(call.now_s - begun)

    _server(made, behaviour, cpu_limit=1.0, cpu_noise=0.0)
    made.add(ServiceSpec("user"))
    for _ in range(4):
        made.spawn(Call.root(made.service("user").instances[0]).request("back", "Answer"))
    run(made, 5)
    # four threads on one core: all together need 0.8 s, and none is done before its fair share
    assert max(took) == pytest.approx(0.8, rel=0.1)
    assert min(took) > 0.5


def test_spinning_threads_slow_their_host_and_use_its_cores() -> None:
    made = world(seed=9)
    made.host("node-1", 2.0)
    took: list[float] = []

    def behaviour(call: Call, _: Any) -> Steps:
        begun = call.now_s
        yield from call.work(0.01)
        took.append(call.now_s - begun)

    instance = _server(made, behaviour, cpu_noise=0.0)
    made.add(ServiceSpec("user"))
    call = Call.root(made.service("user").instances[0])
    made.spawn(call.request("back", "Answer"))
    run(made, 1)
    before = instance.settle_cpu()
    instance.hog(7)
    made.spawn(call.request("back", "Answer"))
    run(made, 10)
    assert took[0] == pytest.approx(0.01)
    assert took[1] == pytest.approx(0.04)  # eight threads on two cores
    assert instance.settle_cpu() - before == pytest.approx(20.0, rel=0.01)  # both cores for ten seconds
    instance.hog(0)
    before = instance.settle_cpu()
    run(made, 10)
    assert instance.settle_cpu() - before == pytest.approx(0.0, abs=1e-6)
