"""Receivers of the collector that observe containers and the broker from outside.

Names, attributes and periods come from the receivers' documentation. As with the real receivers, points
carry no service.name; ``container.name`` identifies the container.
"""

from __future__ import annotations

import hashlib
from collections.abc import Generator, Mapping
from typing import Any

from simpy import Event

from pytest_otel_diag.shop.emission.instruments import Meter, MetricShape, Series
from pytest_otel_diag.shop.kernel.context import SimulationContext
from pytest_otel_diag.shop.kernel.instance import Instance
from pytest_otel_diag.shop.kernel.service import Service
from pytest_otel_diag.shop.kernel.service_spec import ServiceSpec
from pytest_otel_diag.shop.records import Instrument, MetricPoint, Resource, Scope

PERIOD_S = 10.0
BYTES_PER_CALL = 1800.0
"""Bytes on the wire per request and direction: the order of magnitude of the demo's small messages."""

_DOCKER = Scope("github.com/open-telemetry/opentelemetry-collector-contrib/receiver/dockerstatsreceiver")
_KAFKA = Scope("github.com/open-telemetry/opentelemetry-collector-contrib/receiver/kafkametricsreceiver")


def _gauge(scope: Scope, name: str, unit: str) -> MetricShape:
    return MetricShape(Instrument(name, "gauge", unit), scope)


def _sum(scope: Scope, name: str, unit: str, *, monotonic: bool = True) -> MetricShape:
    return MetricShape(Instrument(name, "sum", unit, "", monotonic=monotonic), scope)


_CPU_TOTAL = _sum(_DOCKER, "container.cpu.usage.total", "ns")
_CPU_USER = _sum(_DOCKER, "container.cpu.usage.usermode", "ns")
_CPU_KERNEL = _sum(_DOCKER, "container.cpu.usage.kernelmode", "ns")
_CPU_UTILIZATION = _gauge(_DOCKER, "container.cpu.utilization", "1")
_MEMORY_TOTAL = _sum(_DOCKER, "container.memory.usage.total", "By", monotonic=False)
_MEMORY_LIMIT = _sum(_DOCKER, "container.memory.usage.limit", "By", monotonic=False)
_MEMORY_PERCENT = _gauge(_DOCKER, "container.memory.percent", "1")
_RECEIVED = _sum(_DOCKER, "container.network.io.usage.rx_bytes", "By")
_SENT = _sum(_DOCKER, "container.network.io.usage.tx_bytes", "By")
_ETH0 = (("interface", "eth0"),)

_LAG = _gauge(_KAFKA, "kafka.consumer_group.lag", "1")
_LAG_SUM = _gauge(_KAFKA, "kafka.consumer_group.lag_sum", "1")
_OFFSET = _gauge(_KAFKA, "kafka.consumer_group.offset", "1")
_OFFSET_SUM = _gauge(_KAFKA, "kafka.consumer_group.offset_sum", "1")
_MEMBERS = _sum(_KAFKA, "kafka.consumer_group.members", "{members}", monotonic=False)
_CURRENT = _gauge(_KAFKA, "kafka.partition.current_offset", "1")
_OLDEST = _gauge(_KAFKA, "kafka.partition.oldest_offset", "1")
_PARTITIONS = _sum(_KAFKA, "kafka.topic.partitions", "{partitions}", monotonic=False)
_BROKERS = _sum(_KAFKA, "kafka.brokers", "{brokers}", monotonic=False)


def receive(
    world: SimulationContext, services: Mapping[str, Service], *, kafka: bool
) -> Generator[Event, Any, None]:
    """Read all containers, and with *kafka* the broker, every PERIOD_S."""
    containers = Containers(world, services)
    broker = Meter(Resource("", {}), world.start_ns)
    yield world.sleep(PERIOD_S * world.rng("receivers").random())
    while True:
        now_ns = world.now_ns
        exported_ns = world.recorder.collector.visible_ns(now_ns)
        points = containers.collect(exported_ns)
        if kafka:
            _read_broker(world, broker)
            points += broker.collect(now_ns, exported_ns)
        world.counters.points += len(points)
        world.recorder.points(exported_ns, points)
        yield world.sleep(PERIOD_S)


class Containers:
    """The docker stats receiver: one container per instance; clients outside the shop have none."""

    def __init__(self, world: SimulationContext, services: Mapping[str, Service]) -> None:
        self._world = world
        self._services = services
        self._meters: dict[Instance, Meter] = {}
        self._used: dict[Instance, tuple[float, float]] = {}

    def collect(self, exported_ns: int) -> list[MetricPoint]:
        """Return the points of all running containers."""
        points: list[MetricPoint] = []
        now_ns = self._world.now_ns
        running = [
            (instance, service.spec)
            for service in self._services.values()
            if service.spec.contained
            for instance in service.instances
        ]
        self._meters = {one: self._meters.get(one) or _container(one, spec) for one, spec in running}
        for instance, meter in self._meters.items():
            self._read(instance, meter)
            points += meter.collect(now_ns, exported_ns)
        self._used = {one: used for one, used in self._used.items() if one in self._meters}
        return points

    def _read(self, instance: Instance, meter: Meter) -> None:
        now_s, used_s = self._world.now_s, instance.settle_cpu()
        before_s, used_before_s = self._used.get(instance, (now_s - PERIOD_S, used_s))
        self._used[instance] = (now_s, used_s)
        ago = max(1e-9, now_s - before_s)
        limit = instance.heap.spec.limit_bytes or 8_000_000_000
        resident = instance.heap.resident
        meter.set(_CPU_TOTAL, float(round(used_s * 1e9)))
        meter.set(_CPU_USER, float(round(used_s * 0.8e9)))
        meter.set(_CPU_KERNEL, float(round(used_s * 0.2e9)))
        meter.set(_CPU_UTILIZATION, round(100.0 * (used_s - used_before_s) / ago, 4))
        meter.set(_MEMORY_TOTAL, float(resident))
        meter.set(_MEMORY_LIMIT, float(limit))
        meter.set(_MEMORY_PERCENT, round(100.0 * resident / limit, 4))
        meter.set(_RECEIVED, instance.requests * BYTES_PER_CALL, _ETH0)
        meter.set(_SENT, instance.requests * BYTES_PER_CALL * 1.6, _ETH0)


def _container(instance: Instance, spec: ServiceSpec) -> Meter:
    digest = hashlib.sha256(instance.id.encode()).hexdigest()
    single = spec.replicas == 1
    attributes = {
        "container.id": digest,
        "container.name": spec.name if single else f"{spec.name}-{instance.ordinal + 1}",
        "container.hostname": digest[:12],
        "container.image.name": f"ghcr.io/open-telemetry/demo:{spec.name}",
        "container.runtime": "docker",
    }
    return Meter(Resource("", attributes), instance.world.start_ns + round(instance.started_s * 1e9))


def _read_broker(world: SimulationContext, meter: Meter) -> None:
    meter.set(_BROKERS, 1.0)
    for topic in world.broker.topics.values():
        name = ("topic", topic.name)
        meter.set(_PARTITIONS, float(len(topic.logs)), (name,))
        for partition in range(len(topic.logs)):
            place = (("partition", partition), name)
            meter.set(_CURRENT, float(topic.end(partition)), place)
            meter.set(_OLDEST, 0.0, place)
        for group in topic.groups.values():
            who = ("group", group.name)
            meter.set(_MEMBERS, float(len(group.members)), (who,))
            meter.set(_LAG_SUM, float(group.total_lag), (who, name))
            meter.set(_OFFSET_SUM, float(sum(group.committed)), (who, name))
            for partition in range(len(group.committed)):
                read: Series = (who, ("partition", partition), name)
                meter.set(_LAG, float(group.lag(partition)), read)
                meter.set(_OFFSET, float(group.committed[partition]), read)
