"""One process of a service: workers, CPU, heap, telemetry buffers, pauses and death."""

from __future__ import annotations

import math
from collections.abc import Callable, Generator
from typing import Any, TypeAlias

from simpy import Environment, Event, Process

from pytest_otel_diag.model.base import Nanos
from pytest_otel_diag.shop.emission.instruments import Meter
from pytest_otel_diag.shop.kernel.context import SimulationContext
from pytest_otel_diag.shop.kernel.process_spec import ProcessSpec
from pytest_otel_diag.shop.kernel.resources.heap import Heap
from pytest_otel_diag.shop.kernel.resources.hosts import Host
from pytest_otel_diag.shop.kernel.resources.ids import uuid4
from pytest_otel_diag.shop.kernel.resources.noise import Noise
from pytest_otel_diag.shop.kernel.resources.pool import Pool
from pytest_otel_diag.shop.kernel.span_shape import SpanShape
from pytest_otel_diag.shop.records import Resource

OnKill: TypeAlias = "Callable[[Instance, str], None]"
"""Called with the instance and the reason once it is dead."""


class CpuMeter:
    """Mean number of cores in use between two readings by one reader."""

    __slots__ = ("_at_s", "_used_s")

    def __init__(self, at_s: float) -> None:
        self._at_s = at_s
        self._used_s = 0.0

    def rate(self, instance: Instance) -> float:
        """Return the mean number of cores in use since the last reading."""
        now_s, used_s = float(instance.env.now), instance.settle_cpu()
        elapsed_s, spent_s = now_s - self._at_s, used_s - self._used_s
        self._at_s, self._used_s = now_s, used_s
        return spent_s / elapsed_s if elapsed_s > 0.0 else 0.0


class Instance:
    """A process of a service.

    ``state`` belongs to the service's code and dies with the process. ``cpu_s`` is the CPU time used,
    ``paused_until_s`` the end of the latest stop-the-world pause, ``paused_s`` the total of these pauses,
    ``hogs`` the number of spinning threads, ``goroutines`` a number that behaviours may change (leaked
    threads, goroutines or handles).
    """

    spec: ProcessSpec
    world: SimulationContext
    env: Environment
    host: Host
    heap: Heap
    pool: Pool
    meter: Meter

    def __init__(
        self, world: SimulationContext, spec: ProcessSpec, ordinal: int, *, fresh: bool, on_kill: OnKill
    ) -> None:
        self.spec = spec
        self.world = world
        self._on_kill = on_kill
        self._client_shapes: dict[tuple[str, str], SpanShape | None] = {}
        self.env = world.env
        self.ordinal = ordinal
        self.host = world.host(spec.host)
        self.rng = world.rng(f"{spec.name}/{ordinal}")
        self.id = uuid4(self.rng)
        self.started_s = world.now_s if fresh else -(600.0 + 86_400.0 * self.rng.random())
        self.alive = True
        self.resource = Resource(spec.name, {**spec.resource, **self._identity()})
        self.noise = Noise(self.rng, spec.cpu_noise, spec.tail)
        self.pool = Pool(world.env, f"{spec.name} workers", spec.workers, spec.queue_limit)
        self.runnable = 0
        self.cpu_s = 0.0
        self.hogs = 0
        self._hogs_since_s = world.now_s
        self.cpu_meter = CpuMeter(world.now_s)
        self.collected: Callable[[str, float], None] | None = None
        self.paused_until_s = 0.0
        self.paused_s = 0.0
        self.goroutines = 0
        self.requests = 0
        self.inflight: dict[object, Process] = {}
        self._processes: list[Process] = []
        self.heap = Heap(spec.heap, self.stop, self._die_soon, self.noise.draw)
        if not fresh:
            self.heap.age(self.rng.random(), -self.started_s)
        self.spans, self.logs = world.recorder.buffers(world.now_ns, spec.export)
        self.meter = Meter(self.resource, self._start_ns())
        self.state: Any = None

    def _identity(self) -> dict[str, str]:
        container = self.id.replace("-", "")
        known = {
            "service.instance.id": self.id,
            "host.name": self.spec.resource.get("host.name", container[:12]),
            "container.id": container,
            "process.pid": str(int(container[:4], 16)),
        }
        return {"service.name": self.spec.name, **{name: known[name] for name in self.spec.identity}}

    def _start_ns(self) -> Nanos:
        return self.world.start_ns + round(self.started_s * 1e9)

    @property
    def slowness(self) -> float:
        """How many times longer code takes than after the warm-up."""
        spec = self.spec
        if spec.warmup <= 1.0:
            return 1.0
        age_s = float(self.env.now) - self.started_s
        return (
            1.0 + (spec.warmup - 1.0) * math.exp(-age_s / spec.warmup_s) if age_s < 8 * spec.warmup_s else 1.0
        )

    def client_shape(self, target: str, operation: str) -> SpanShape | None:
        """Return the span of a call to *target*, None where the service does not instrument it."""
        key = (target, operation)
        if key not in self._client_shapes:
            self._client_shapes[key] = self.spec.client(target, operation)
        return self._client_shapes[key]

    def run(self, steps: Generator[Event, Any, Any]) -> Process:
        """Run a background loop that ends with the instance."""
        process = self.world.spawn(steps)
        self._processes.append(process)
        return process

    def stop(self, seconds: float, action: str = "") -> None:
        """Pause everything that runs in this process for *seconds*.

        *action* "minor" or "full" is a garbage collection, which the runtime's metrics report.
        """
        now = float(self.env.now)
        self.paused_until_s = max(self.paused_until_s, now) + seconds
        self.paused_s += seconds
        self.cpu_s += seconds
        if action and self.collected is not None:
            self.collected(action, seconds)

    def hog(self, threads: int) -> None:
        """Set the number of spinning threads."""
        self.settle_cpu()
        self.host.runnable += threads - self.hogs
        self.runnable += threads - self.hogs
        self.hogs = threads

    def settle_cpu(self) -> float:
        """Return the CPU seconds used until now, including idle use and spinning threads."""
        now = float(self.env.now)
        elapsed, self._hogs_since_s = now - self._hogs_since_s, now
        share = self.spec.idle_cpu
        if self.hogs:
            rate = min(1.0, self.host.cores / max(1, self.host.runnable - self.host.background_threads))
            limit = self.spec.cpu_limit
            share += min(self.hogs * rate, limit if limit is not None else math.inf)
        self.cpu_s += elapsed * share
        return self.cpu_s

    def _die_soon(self, reason: str) -> None:
        """Die at this instant, after the running code has reached its next wait."""
        if self.alive:
            moment = self.env.timeout(0)
            assert moment.callbacks is not None
            moment.callbacks.append(lambda _: self.kill(reason))

    def kill(self, reason: str) -> None:
        """Kill the process: its calls fail, telemetry that is not exported is lost, a restart follows."""
        if not self.alive:
            return
        self._end()
        now_ns = self.world.now_ns
        counters = self.world.counters
        counters.kills += 1
        counters.records_lost += self.spans.lose(now_ns) + self.logs.lose(now_ns)
        self.world.recorder.retire(self.spans, self.logs)
        for process in dict.fromkeys([*self.inflight.values(), *self._processes]):
            if process.is_alive and process is not self.env.active_process:
                process.interrupt(self)
        self._on_kill(self, reason)

    def shut_down(self) -> None:
        """Shut down gracefully: export telemetry, then end. Call it when no request is in flight."""
        self._end()
        now_ns = self.world.now_ns
        self.spans.flush(now_ns)
        self.logs.flush(now_ns)
        self.world.recorder.retire(self.spans, self.logs)
        for process in self._processes:
            if process.is_alive and process is not self.env.active_process:
                process.interrupt(self)

    def _end(self) -> None:
        self.hog(0)
        self.alive = False
