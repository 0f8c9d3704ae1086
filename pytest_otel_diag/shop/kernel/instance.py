"""One running process of a service: workers, CPU, heap, buffers of telemetry, life and death."""

from __future__ import annotations

import math
from collections.abc import Callable, Generator
from typing import TYPE_CHECKING, Any

from simpy import Environment, Event, Process

from pytest_otel_diag.model.base import Nanos
from pytest_otel_diag.shop.emission.instruments import Meter
from pytest_otel_diag.shop.kernel.call import Call
from pytest_otel_diag.shop.kernel.consumer import consume
from pytest_otel_diag.shop.kernel.failures import RpcFailure
from pytest_otel_diag.shop.kernel.heap import Heap
from pytest_otel_diag.shop.kernel.identity import uuid4
from pytest_otel_diag.shop.kernel.pool import Pool
from pytest_otel_diag.shop.kernel.reader import read_metrics
from pytest_otel_diag.shop.kernel.runtimes import register
from pytest_otel_diag.shop.kernel.unrest import Noise
from pytest_otel_diag.shop.records import Resource

if TYPE_CHECKING:
    from pytest_otel_diag.shop.kernel.service import Service
    from pytest_otel_diag.shop.kernel.world import Host, World


class CpuMeter:
    """Cores in use between two looks, for one looker."""

    __slots__ = ("_at_s", "_used_s")

    def __init__(self, at_s: float) -> None:
        self._at_s = at_s
        self._used_s = 0.0

    def rate(self, instance: Instance) -> float:
        """Return the mean number of cores in use since the last look."""
        now_s, used_s = float(instance.env.now), instance.settle_cpu()
        elapsed_s, spent_s = now_s - self._at_s, used_s - self._used_s
        self._at_s, self._used_s = now_s, used_s
        return spent_s / elapsed_s if elapsed_s > 0.0 else 0.0


class Instance:
    """A process of a service. ``state`` is the service's own object; it dies with the process.

    ``cpu_s`` is the CPU time used, ``paused_until_s`` the end of the latest stop of the world and
    ``paused_s`` all of these together, ``hogs`` threads that spin, ``goroutines`` a number that
    behaviours may change (threads, goroutines, handles that leak).
    """

    service: Service
    world: World
    env: Environment
    host: Host
    heap: Heap
    pool: Pool
    meter: Meter

    def __init__(self, service: Service, ordinal: int, *, fresh: bool) -> None:
        world, spec = service.world, service.spec
        self.service = service
        self.world = world
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
        self.inflight: dict[Call, Process] = {}
        self._processes: list[Process] = []
        self.heap = Heap(spec.heap, self.stop, self._die_soon, self.noise.draw)
        if not fresh:
            self.heap.age(self.rng.random(), -self.started_s)
        self.spans, self.logs = world.recorder.buffers(world.now_ns, spec.export)
        self.meter = Meter(self.resource, self._start_ns())
        register(self)
        self.state: Any = spec.state(self)
        if spec.metrics is not None:
            spec.metrics(self)
        self.run(read_metrics(self))
        for loop in spec.loops:
            self.run(loop(self))
        for consumer in spec.consumers:
            self.run(consume(self, consumer))

    def _identity(self) -> dict[str, str]:
        return {
            "service.name": self.service.spec.name,
            "service.instance.id": self.id,
            "host.name": self.service.spec.resource.get("host.name", self.id.replace("-", "")[:12]),
        }

    def _start_ns(self) -> Nanos:
        return self.world.start_ns + round(self.started_s * 1e9)

    @property
    def slowness(self) -> float:
        """How many times slower than warmed up the code runs now."""
        spec = self.service.spec
        if spec.warmup <= 1.0:
            return 1.0
        age_s = float(self.env.now) - self.started_s
        return (
            1.0 + (spec.warmup - 1.0) * math.exp(-age_s / spec.warmup_s) if age_s < 8 * spec.warmup_s else 1.0
        )

    def call(self) -> Call:
        """Return a call that begins here: the root of a new trace."""
        return Call(self, None)

    def run(self, steps: Generator[Event, Any, Any]) -> Process:
        """Run a background loop; it ends with the instance."""
        process = self.world.spawn(steps)
        self._processes.append(process)
        return process

    def stop(self, seconds: float, action: str = "") -> None:
        """Stop the world for so long: everything that runs here goes on later.

        *action* "minor" or "full" is a collection, which the runtime's metrics tell.
        """
        now = float(self.env.now)
        self.paused_until_s = max(self.paused_until_s, now) + seconds
        self.paused_s += seconds
        self.cpu_s += seconds
        if action and self.collected is not None:
            self.collected(action, seconds)

    def hog(self, threads: int) -> None:
        """Let so many threads spin from now on (0 ends it)."""
        self.settle_cpu()
        self.host.runnable += threads - self.hogs
        self.runnable += threads - self.hogs
        self.hogs = threads

    def settle_cpu(self) -> float:
        """Return the CPU seconds used up to now, with those of idling and of hogs since last asked."""
        now = float(self.env.now)
        elapsed, self._hogs_since_s = now - self._hogs_since_s, now
        share = self.service.spec.idle_cpu
        if self.hogs:
            rate = min(1.0, self.host.cores / max(1, self.host.runnable - self.host.rivals))
            limit = self.service.spec.cpu_limit
            share += min(self.hogs * rate, limit if limit is not None else math.inf)
        self.cpu_s += elapsed * share
        return self.cpu_s

    def _die_soon(self, reason: str) -> None:
        """Die at this same instant, once the code that runs now has come to a wait."""
        if self.alive:
            moment = self.env.timeout(0)
            assert moment.callbacks is not None
            moment.callbacks.append(lambda _: self.kill(reason))

    def kill(self, reason: str) -> None:
        """End the process at once: its calls break, what it has not exported is lost, it is replaced."""
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
        self.service.killed(self, reason)

    def shut_down(self) -> None:
        """End in good order: telemetry is exported first. Call it when nothing is in flight."""
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

    def serve(self, operation: str, request: Any, caller: Call) -> Generator[Event, Any, Any]:
        """Run one request in a worker: the callee's side of a call."""
        found = self.service.spec.operations.get(operation)
        if found is None:
            raise RpcFailure("UNIMPLEMENTED", f"unknown method {operation}")
        call = Call(self, caller)
        active = self.env.active_process
        assert active is not None
        self.inflight[call] = active
        self.requests += 1
        pool, shape = self.pool, found.server
        begun_s: float = self.env.now
        try:
            if not pool.take():
                yield from pool.acquire()
                if not self.service.spec.queue_in_span:
                    begun_s = self.env.now
            try:
                self.heap.allocate(found.allocates)
                if shape is None:
                    return (yield from found.behaviour(call, request))
                with call.span(shape) as span:
                    span.start_s = begun_s
                    return (yield from found.behaviour(call, request))
            finally:
                pool.release()
        finally:
            del self.inflight[call]
