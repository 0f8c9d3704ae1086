"""An instance that runs a service's code: it serves requests, consumes messages and runs loops."""

from __future__ import annotations

from collections.abc import Generator
from typing import Any

from simpy import Event

from pytest_otel_diag.shop.kernel.call import Call
from pytest_otel_diag.shop.kernel.consumer import consume
from pytest_otel_diag.shop.kernel.context import SimulationContext
from pytest_otel_diag.shop.kernel.instance import Instance, OnKill
from pytest_otel_diag.shop.kernel.metrics.metric_reader import read_metrics
from pytest_otel_diag.shop.kernel.metrics.runtime_metrics import register
from pytest_otel_diag.shop.kernel.resources.failures import RpcFailure
from pytest_otel_diag.shop.kernel.resources.propagation import RequestContext
from pytest_otel_diag.shop.kernel.service_spec import ServiceSpec
from pytest_otel_diag.shop.kernel.span import Span


class ServingInstance(Instance):
    """An instance that accepts requests; its loops and consumers start with it."""

    def __init__(
        self, world: SimulationContext, spec: ServiceSpec, ordinal: int, *, fresh: bool, on_kill: OnKill
    ) -> None:
        super().__init__(world, spec, ordinal, fresh=fresh, on_kill=on_kill)
        self._operations = spec.operations
        self._queue_in_span = spec.queue_in_span
        register(self)
        self.state = spec.state(self)
        if spec.metrics is not None:
            spec.metrics(self)
        self.run(read_metrics(self))
        for loop in spec.loops:
            self.run(loop(self))
        for consumer in spec.consumers:
            self.run(consume(self, consumer))

    def serve(self, operation: str, request: Any, caller: RequestContext) -> Generator[Event, Any, Any]:
        """Run one request in a worker: the callee's side of a call; raises RpcFailure."""
        found = self._operations.get(operation)
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
                if not self._queue_in_span:
                    begun_s = self.env.now
            try:
                self.heap.allocate(found.allocates)
                if shape is None:
                    return (yield from found.behaviour(call, request))
                with Span(call, shape, None) as span:
                    span.start_s = begun_s
                    return (yield from found.behaviour(call, request))
            finally:
                pool.release()
        finally:
            del self.inflight[call]
