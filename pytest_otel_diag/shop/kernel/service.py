"""A service: its instances, who of them gets a request, and how they are replaced."""

from __future__ import annotations

from collections.abc import Generator
from typing import TYPE_CHECKING, Any

from simpy import Event

from pytest_otel_diag.shop.kernel.instance import Instance
from pytest_otel_diag.shop.kernel.shapes import SpanShape
from pytest_otel_diag.shop.kernel.specs import ServiceSpec

if TYPE_CHECKING:
    from pytest_otel_diag.shop.kernel.world import World

DRAIN_S = 30.0
_POLL_S = 0.25


class Service:
    """Instances behind one name, asked in turn. ``kills`` lists (virtual second, reason)."""

    world: World
    spec: ServiceSpec

    def __init__(self, world: World, spec: ServiceSpec) -> None:
        self.world = world
        self.spec = spec
        self.instances: list[Instance] = []
        self.kills: list[tuple[float, str]] = []
        self.restarts = 0
        self._ordinal = 0
        self._turn = 0
        self._clients: dict[tuple[str, str], SpanShape | None] = {}
        for _ in range(spec.replicas):
            self._start(fresh=False)

    @property
    def name(self) -> str:
        """The service's name."""
        return self.spec.name

    def client_shape(self, target: str, operation: str) -> SpanShape | None:
        """Return the span of a call to *target*, None where the service does not instrument it."""
        key = (target, operation)
        if key not in self._clients:
            self._clients[key] = self.spec.client(target, operation)
        return self._clients[key]

    def pick(self) -> Instance | None:
        """Return the instance that gets the next request, None when none serves."""
        instances = self.instances
        if not instances:
            return None
        self._turn += 1
        return instances[self._turn % len(instances)]

    def collect_garbage(self) -> None:
        """Make every instance collect its garbage once."""
        for instance in self.instances:
            instance.heap.collect(full=True)

    def replace(self) -> None:
        """Replace the instances one by one, as a deployment does: the new one serves before the old goes."""
        self.world.spawn(self._roll(list(self.instances)))

    def killed(self, instance: Instance, reason: str) -> None:
        """Take a dead instance out and start another one after a while."""
        self.kills.append((self.world.now_s, reason))
        self.instances.remove(instance)
        self.world.spawn(self._revive())

    def _start(self, *, fresh: bool) -> Instance:
        instance = Instance(self, self._ordinal, fresh=fresh)
        self._ordinal += 1
        self.instances.append(instance)
        return instance

    def _revive(self) -> Generator[Event, Any, None]:
        yield self.world.sleep(self.spec.restart_s + self.spec.startup_s)
        self.restarts += 1
        self._start(fresh=True)

    def _roll(self, old: list[Instance]) -> Generator[Event, Any, None]:
        for instance in old:
            yield self.world.sleep(self.spec.startup_s)
            if not instance.alive:
                continue  # it died meanwhile, and whoever restarts the dead replaces it
            self._start(fresh=True)
            self.instances.remove(instance)
            over_s = self.world.now_s + DRAIN_S
            while instance.inflight and self.world.now_s < over_s:
                yield self.world.sleep(_POLL_S)
            instance.shut_down()
