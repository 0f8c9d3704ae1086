"""A service: its instances, load balancing, restarts and rollouts."""

from __future__ import annotations

from collections.abc import Generator
from typing import Any

from simpy import Event

from pytest_otel_diag.shop.kernel.context import SimulationContext
from pytest_otel_diag.shop.kernel.instance import Instance
from pytest_otel_diag.shop.kernel.service_spec import ServiceSpec
from pytest_otel_diag.shop.kernel.serving import ServingInstance

DRAIN_S = 30.0
_POLL_S = 0.25


class Service:
    """Instances behind one name, balanced round robin. ``kills`` lists (virtual second, reason)."""

    world: SimulationContext
    spec: ServiceSpec

    def __init__(self, world: SimulationContext, spec: ServiceSpec) -> None:
        self.world = world
        self.spec = spec
        self.instances: list[ServingInstance] = []
        self.kills: list[tuple[float, str]] = []
        self.restarts = 0
        self._ordinal = 0
        self._turn = 0
        for _ in range(spec.replicas):
            self._start(fresh=False)

    @property
    def name(self) -> str:
        """The service's name."""
        return self.spec.name

    def pick(self) -> ServingInstance | None:
        """Return the instance that gets the next request, None while none runs."""
        instances = self.instances
        if not instances:
            return None
        self._turn += 1
        return instances[self._turn % len(instances)]

    def collect_garbage(self) -> None:
        """Run a full garbage collection in every instance."""
        for instance in self.instances:
            instance.heap.collect(full=True)

    def replace(self) -> None:
        """Replace the instances in a rolling deployment: each new one serves before the old one ends."""
        self.world.spawn(self._roll(list(self.instances)))

    def _killed(self, instance: Instance, reason: str) -> None:
        """Remove a dead instance and start its replacement after the restart time."""
        self.kills.append((self.world.now_s, reason))
        before = len(self.instances)
        self.instances[:] = [one for one in self.instances if one is not instance]
        if len(self.instances) < before:  # a draining instance already has its replacement
            self.world.spawn(self._revive())

    def _start(self, *, fresh: bool) -> ServingInstance:
        instance = ServingInstance(self.world, self.spec, self._ordinal, fresh=fresh, on_kill=self._killed)
        self._ordinal += 1
        self.instances.append(instance)
        return instance

    def _revive(self) -> Generator[Event, Any, None]:
        yield self.world.sleep(self.spec.restart_s + self.spec.startup_s)
        self.restarts += 1
        self._start(fresh=True)

    def _roll(self, old: list[ServingInstance]) -> Generator[Event, Any, None]:
        for instance in old:
            yield self.world.sleep(self.spec.startup_s)
            if not instance.alive:
                continue  # it died meanwhile and is being restarted
            self._start(fresh=True)
            self.instances.remove(instance)
            over_s = self.world.now_s + DRAIN_S
            while instance.inflight and self.world.now_s < over_s:
                yield self.world.sleep(_POLL_S)
            instance.shut_down()
