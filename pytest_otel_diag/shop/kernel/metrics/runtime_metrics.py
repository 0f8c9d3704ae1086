"""Runtime metrics of a process, as the instrumentation of its language reports them.

Names, units and attributes follow the OpenTelemetry semantic conventions of each runtime. The Ruby, PHP,
Rust and C++ services of the demo report no runtime metrics.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping

from pytest_otel_diag.shop.emission.instruments import MetricShape, Observation, Series
from pytest_otel_diag.shop.kernel.instance import Instance
from pytest_otel_diag.shop.records import Instrument, Scope

Read = Callable[[Instance], Iterable[Observation]]

_JVM = Scope("io.opentelemetry.runtime-telemetry-java8", "2.20.1-alpha")
_GO = Scope("go.opentelemetry.io/contrib/instrumentation/runtime", "0.63.0")
_DOTNET = Scope("System.Runtime")
_NODE = Scope("@opentelemetry/instrumentation-runtime-node", "0.20.0")
_PYTHON = Scope("opentelemetry.instrumentation.system_metrics", "0.58b0")


def register(instance: Instance) -> None:
    """Register the runtime metrics of the instance, if its runtime has any."""
    for shape, read in _READINGS.get(instance.heap.spec.policy.name, ()):
        instance.meter.callback(shape, _bound(read, instance))
    collected = _COLLECTIONS.get(instance.heap.spec.policy.name)
    if collected is not None:
        shape, series = collected
        instance.collected = lambda action, pause_s: instance.meter.observe(shape, pause_s, series[action])


def _bound(read: Read, instance: Instance) -> Callable[[], Iterable[Observation]]:
    return lambda: read(instance)


def _shape(scope: Scope, name: str, unit: str, *, counter: bool = False, gauge: bool = False) -> MetricShape:
    return MetricShape(Instrument(name, "gauge" if gauge else "sum", unit, "", monotonic=counter), scope)


def _one(read: Callable[[Instance], float], series: Series = ()) -> Read:
    return lambda instance: ((series, read(instance)),)


def _utilization(instance: Instance) -> float:
    """Return the used share of the process's cores since the last reading."""
    limit = instance.spec.cpu_limit
    return instance.cpu_meter.rate(instance) / (instance.host.cores if limit is None else limit)


def _jvm_memory(instance: Instance) -> Iterable[Observation]:
    heap = instance.heap
    yield _pool("heap", "Eden Space"), float(heap.young)
    yield _pool("heap", "Tenured Gen"), float(heap.live)
    yield _pool("non_heap", "Metaspace"), heap.spec.base_bytes * 0.45
    yield _pool("non_heap", "CodeCache"), heap.spec.base_bytes * 0.15


def _pool(kind: str, name: str) -> Series:
    return (("jvm.memory.pool.name", name), ("jvm.memory.type", kind))


def _jvm_limit(instance: Instance) -> Iterable[Observation]:
    if instance.heap.spec.max_bytes is not None:
        yield _pool("heap", "Tenured Gen"), float(instance.heap.spec.max_bytes)


def _jvm_threads(instance: Instance) -> Iterable[Observation]:
    daemons = 22 + min(instance.pool.size, instance.requests) // 4 + instance.hogs + instance.goroutines
    yield (("jvm.thread.daemon", True), ("jvm.thread.state", "runnable")), float(instance.runnable + 4)
    yield (("jvm.thread.daemon", True), ("jvm.thread.state", "waiting")), float(daemons - instance.hogs)
    yield (("jvm.thread.daemon", False), ("jvm.thread.state", "timed_waiting")), 2.0


def _go_memory(instance: Instance) -> Iterable[Observation]:
    yield (("go.memory.type", "stack"),), 600_000.0 + 8192.0 * _goroutines(instance)
    yield (("go.memory.type", "other"),), float(instance.heap.used + instance.heap.spec.base_bytes // 4)


def _goroutines(instance: Instance) -> float:
    return 14.0 + instance.goroutines + 2.0 * len(instance.inflight)


def _dotnet_collections(instance: Instance) -> Iterable[Observation]:
    counts = instance.heap.collections
    yield (("gc.heap.generation", "gen0"),), float(counts["minor"] + counts["full"])
    yield (("gc.heap.generation", "gen1"),), float(counts["minor"] // 4 + counts["full"])
    yield (("gc.heap.generation", "gen2"),), float(counts["full"])


def _dotnet_cpu(instance: Instance) -> Iterable[Observation]:
    used_s = instance.settle_cpu()
    yield (("cpu.mode", "user"),), used_s * 0.8
    yield (("cpu.mode", "system"),), used_s * 0.2


def _python_memory(instance: Instance) -> Iterable[Observation]:
    resident = float(instance.heap.resident)
    yield (("type", "rss"),), resident
    yield (("type", "vms"),), resident * 2.0 + 400e6


def _python_cpu(instance: Instance) -> Iterable[Observation]:
    used_s = instance.settle_cpu()
    yield (("type", "user"),), used_s * 0.85
    yield (("type", "system"),), used_s * 0.15


def _python_switches(instance: Instance) -> Iterable[Observation]:
    yield (("type", "voluntary"),), 40.0 * instance.requests
    yield (("type", "involuntary"),), 3.0 * instance.requests


def _python_generations(instance: Instance) -> Iterable[Observation]:
    for generation, every in enumerate((40, 400, 4000)):
        labels = (("generation", str(generation)), ("cpython.gc.generation", generation))
        yield labels, float(instance.requests // every)


def _system_cpu(instance: Instance) -> Iterable[Observation]:
    """Return the seconds that each core of the host was busy and idle since it started."""
    up_s, used_s = float(instance.env.now) + 3600.0, instance.settle_cpu()
    for core in range(round(instance.host.cores)):
        busy_s = used_s / instance.host.cores + 0.1 * up_s
        yield (("cpu", core + 1), ("state", "user")), busy_s
        yield (("cpu", core + 1), ("state", "idle")), max(0.0, up_s - busy_s)


def _system_memory(instance: Instance) -> Iterable[Observation]:
    used = 3.6e9 + float(instance.heap.resident)
    yield (("state", "used"),), used
    yield (("state", "free"),), 16e9 - used - 4e9
    yield (("state", "cached"),), 4e9


def _system_network(instance: Instance) -> Iterable[Observation]:
    yield (("device", "eth0"), ("direction", "transmit")), 900.0 * instance.requests + 2e6
    yield (("device", "eth0"), ("direction", "receive")), 1400.0 * instance.requests + 2e6


def _node_delay(instance: Instance) -> float:
    """Return the delay of the event loop: one tick plus the delay of runnable work and pauses."""
    return 0.0101 + 0.002 * instance.runnable + max(0.0, instance.paused_until_s - instance.env.now)


def _node_quantile(factor: float) -> Read:
    """Return the reading of a quantile of the delay, which lies around its mean."""
    return _one(lambda instance: 0.0101 * min(1.0, factor) + factor * (_node_delay(instance) - 0.0101))


def _node_time(instance: Instance) -> Iterable[Observation]:
    active_s = instance.settle_cpu()
    yield (("nodejs.eventloop.state", "active"),), active_s
    yield (
        (("nodejs.eventloop.state", "idle"),),
        max(0.0, float(instance.env.now) - instance.started_s - active_s),
    )


def _node_spaces(read: Callable[[float], float]) -> Read:
    """Return the reading of both spaces of the heap; *read* converts their used bytes."""
    return lambda instance: (
        ((("v8js.heap.space.name", "new_space"),), read(float(instance.heap.young))),
        ((("v8js.heap.space.name", "old_space"),), read(float(instance.heap.live))),
    )


_READINGS: Mapping[str, tuple[tuple[MetricShape, Read], ...]] = {
    "jvm": (
        (_shape(_JVM, "jvm.memory.used", "By"), _jvm_memory),
        (_shape(_JVM, "jvm.memory.limit", "By"), _jvm_limit),
        (_shape(_JVM, "jvm.thread.count", "{thread}"), _jvm_threads),
        (_shape(_JVM, "jvm.class.count", "{class}"), _one(lambda _: 14_820.0)),
        (_shape(_JVM, "jvm.cpu.count", "{cpu}"), _one(lambda i: i.spec.cpu_limit or i.host.cores)),
        (_shape(_JVM, "jvm.cpu.recent_utilization", "1", gauge=True), _one(_utilization)),
        (_shape(_JVM, "jvm.cpu.time", "s", counter=True), _one(lambda i: i.settle_cpu())),
    ),
    "go": (
        (_shape(_GO, "go.memory.used", "By"), _go_memory),
        (_shape(_GO, "go.memory.allocated", "By", counter=True), _one(lambda i: float(i.heap.allocated))),
        (
            _shape(_GO, "go.memory.allocations", "{allocation}", counter=True),
            _one(lambda i: i.heap.allocated / 110.0),
        ),
        (_shape(_GO, "go.memory.gc.goal", "By"), _one(lambda i: float(i.heap.live + i.heap.young_limit))),
        (_shape(_GO, "go.goroutine.count", "{goroutine}"), _one(_goroutines)),
        (_shape(_GO, "go.processor.limit", "{thread}"), _one(lambda i: i.host.cores)),
        (_shape(_GO, "go.config.gogc", "%"), _one(lambda _: 100.0)),
    ),
    "dotnet": (
        (_shape(_DOTNET, "dotnet.gc.collections", "{collection}", counter=True), _dotnet_collections),
        (
            _shape(_DOTNET, "dotnet.gc.heap.total_allocated", "By", counter=True),
            _one(lambda i: float(i.heap.allocated)),
        ),
        (
            _shape(_DOTNET, "dotnet.gc.pause.time", "s", counter=True),
            _one(lambda i: sum(i.heap.pause_s.values())),
        ),
        (
            _shape(_DOTNET, "dotnet.process.memory.working_set", "By"),
            _one(lambda i: float(i.heap.resident)),
        ),
        (_shape(_DOTNET, "dotnet.process.cpu.time", "s", counter=True), _dotnet_cpu),
        (
            _shape(_DOTNET, "dotnet.thread_pool.thread.count", "{thread}"),
            _one(lambda i: 4.0 + len(i.inflight)),
        ),
        (
            _shape(_DOTNET, "dotnet.thread_pool.queue.length", "{work_item}"),
            _one(lambda i: float(i.pool.queued)),
        ),
    ),
    "node": (
        (_shape(_NODE, "nodejs.eventloop.delay.mean", "s", gauge=True), _one(_node_delay)),
        (_shape(_NODE, "nodejs.eventloop.utilization", "1", gauge=True), _one(_utilization)),
        (_shape(_NODE, "nodejs.eventloop.delay.min", "s", gauge=True), _node_quantile(0.4)),
        (_shape(_NODE, "nodejs.eventloop.delay.p50", "s", gauge=True), _node_quantile(0.9)),
        (_shape(_NODE, "nodejs.eventloop.delay.p90", "s", gauge=True), _node_quantile(1.5)),
        (_shape(_NODE, "nodejs.eventloop.delay.p99", "s", gauge=True), _node_quantile(3.0)),
        (_shape(_NODE, "nodejs.eventloop.delay.max", "s", gauge=True), _node_quantile(5.0)),
        (_shape(_NODE, "nodejs.eventloop.time", "s", counter=True), _node_time),
        (_shape(_NODE, "v8js.memory.heap.used", "By", gauge=True), _node_spaces(lambda used: used)),
        (
            _shape(_NODE, "v8js.memory.heap.space.physical_size", "By", gauge=True),
            _node_spaces(lambda used: used * 1.25 + 1e6),
        ),
        (
            _shape(_NODE, "v8js.memory.heap.space.available_size", "By", gauge=True),
            _node_spaces(lambda used: used * 0.25 + 1e6),
        ),
        (
            _shape(_NODE, "v8js.memory.heap.space.size", "By"),
            _node_spaces(lambda used: used * 1.25 + 1e6),
        ),
    ),
    "python": (
        (_shape(_PYTHON, "process.runtime.cpython.memory", "By"), _python_memory),
        (_shape(_PYTHON, "process.runtime.cpython.cpu_time", "s", counter=True), _python_cpu),
        (
            _shape(_PYTHON, "process.runtime.cpython.cpu.utilization", "1", gauge=True),
            _one(_utilization),
        ),
        (
            _shape(_PYTHON, "process.runtime.cpython.thread_count", "{thread}"),
            _one(lambda i: 4.0 + i.pool.busy),
        ),
        (
            _shape(_PYTHON, "process.runtime.cpython.context_switches", "switches", counter=True),
            _python_switches,
        ),
        (_shape(_PYTHON, "process.context_switches", "", counter=True), _python_switches),
        (_shape(_PYTHON, "process.cpu.time", "s", counter=True), _python_cpu),
        (_shape(_PYTHON, "process.memory.usage", "By"), _one(lambda i: float(i.heap.resident))),
        (_shape(_PYTHON, "process.memory.virtual", "By"), _one(lambda i: i.heap.resident * 2.0 + 400e6)),
        (_shape(_PYTHON, "process.thread.count", ""), _one(lambda i: 4.0 + i.pool.busy)),
        (_shape(_PYTHON, "process.open_file_descriptor.count", ""), _one(lambda i: 15.0 + i.pool.busy)),
        (_shape(_PYTHON, "cpython.gc.collections", "{collection}", counter=True), _python_generations),
        (_shape(_PYTHON, "system.cpu.time", "s", counter=True), _system_cpu),
        (_shape(_PYTHON, "system.memory.usage", "By", gauge=True), _system_memory),
        (_shape(_PYTHON, "system.network.io", "By", counter=True), _system_network),
    ),
}

_COLLECTIONS: Mapping[str, tuple[MetricShape, Mapping[str, Series]]] = {
    "jvm": (
        MetricShape(Instrument("jvm.gc.duration", "histogram", "s"), _JVM, (0.01, 0.1, 1.0, 10.0)),
        {
            "minor": (("jvm.gc.action", "end of minor GC"), ("jvm.gc.name", "Copy")),
            "full": (("jvm.gc.action", "end of major GC"), ("jvm.gc.name", "MarkSweepCompact")),
        },
    ),
    "node": (
        MetricShape(Instrument("v8js.gc.duration", "histogram", "s"), _NODE, (0.01, 0.1, 1.0, 10.0)),
        {"minor": (("v8js.gc.type", "minor"),), "full": (("v8js.gc.type", "major"),)},
    ),
}
