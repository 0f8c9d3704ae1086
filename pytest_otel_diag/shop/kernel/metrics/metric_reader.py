"""The periodic metric reader of a process's SDK."""

from __future__ import annotations

from collections.abc import Generator
from typing import Any

from simpy import Event

from pytest_otel_diag.shop.kernel.instance import Instance
from pytest_otel_diag.shop.kernel.resources.heap import IDLE_BYTES_PER_S


def read_metrics(instance: Instance) -> Generator[Event, Any, None]:
    """Collect the instance's instruments once per export period, with a random phase per instance."""
    world = instance.world
    period_s = instance.spec.export.metrics_s
    yield world.sleep(period_s * instance.rng.random())
    while True:
        now_ns = world.now_ns
        points = instance.meter.collect(
            now_ns + instance.host.skew_ns, world.recorder.collector.visible_ns(now_ns)
        )
        instance.heap.allocate(int(IDLE_BYTES_PER_S * period_s))
        world.counters.points += len(points)
        world.recorder.points(points[0].exported_ns if points else 0, points)
        yield world.sleep(period_s)
