"""Memory of a process: garbage, live objects, stop-the-world collections, and the limit.

Sizes are bytes, times seconds. Allocation fills the young generation; when its budget is used up a
collection runs, whose pause grows with the live bytes. A full collection runs when the live bytes come
near the maximal heap; when they exceed it, the runtime ends with an out-of-memory error.
Runtimes with reference counting (Python) or manual memory management have no young generation.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

MB = 1_000_000

IDLE_BYTES_PER_S = 6_000
"""Garbage of an idle runtime, from metric exports and keep-alives."""


@dataclass(frozen=True, slots=True)
class GcPolicy:
    """How a runtime collects garbage.

    ``young_bytes`` is the budget between two minor collections; ``growth`` raises it to that share of the
    live bytes (Go's GOGC = 1.0). A minor pause is ``minor_s`` plus ``minor_s_per_live`` times the live
    bytes, a full one ``full_s`` plus ``full_s_per_live`` times the live bytes. While the live bytes are at
    least ``full_at_ratio`` of ``max_bytes``, every collection is a full one.
    """

    name: str = "none"
    young_bytes: int = 0
    growth: float = 0.0
    minor_s: float = 0.0
    minor_s_per_live: float = 0.0
    full_s: float = 0.0
    full_s_per_live: float = 0.0
    full_at_ratio: float = 0.9


MANUAL = GcPolicy()
JVM = GcPolicy("jvm", 24 * MB, 0.0, 0.002, 1e-11, 0.015, 1.2e-9)
GO = GcPolicy("go", 4 * MB, 1.0, 0.0001, 1e-12, 0.0003, 1e-12)
DOTNET = GcPolicy("dotnet", 12 * MB, 0.0, 0.0008, 2e-12, 0.008, 8e-10)
NODE = GcPolicy("node", 16 * MB, 0.0, 0.0012, 2e-12, 0.010, 9e-10)
PYTHON = GcPolicy("python", 0, 0.0, 0.0, 0.0, 0.004, 4e-10)
RUBY = GcPolicy("ruby", 12 * MB, 0.0, 0.002, 3e-11, 0.010, 1.5e-9)
"""Pauses have the order of magnitude in the runtimes' documentation and logs for heaps below 1 GB."""


@dataclass(frozen=True, slots=True)
class HeapSpec:
    """Memory of one process.

    ``base_bytes`` is memory outside the heap (code, runtime, buffers), ``live_bytes`` the live objects of
    an idle process, ``max_bytes`` the runtime's maximal heap (None: only the container bounds it),
    ``limit_bytes`` the container's memory limit (None: unlimited).
    """

    policy: GcPolicy = MANUAL
    base_bytes: int = 30 * MB
    live_bytes: int = 10 * MB
    max_bytes: int | None = None
    limit_bytes: int | None = None


class Heap:
    """Heap of one instance.

    *stop(seconds, action)* pauses the process, *kill(reason)* ends it, *vary()* returns a factor for the
    length of each pause.
    """

    __slots__ = (
        "_kill",
        "_stop",
        "_vary",
        "allocated",
        "collections",
        "live",
        "pause_s",
        "spec",
        "young",
        "young_limit",
    )

    def __init__(
        self,
        spec: HeapSpec,
        stop: Callable[[float, str], None],
        kill: Callable[[str], None],
        vary: Callable[[], float] = lambda: 1.0,
    ) -> None:
        self.spec = spec
        self._stop = stop
        self._kill = kill
        self._vary = vary
        self.live = spec.live_bytes
        self.allocated = 0
        self.young = 0
        self.young_limit = self._budget()
        self.collections = {"minor": 0, "full": 0}
        self.pause_s = {"minor": 0.0, "full": 0.0}

    @property
    def used(self) -> int:
        """Bytes on the heap, garbage included."""
        return self.live + self.young

    @property
    def resident(self) -> int:
        """Resident bytes, as the container accounts for them."""
        return self.spec.base_bytes + self.live + self.young

    def age(self, filled_ratio: float, seconds: float) -> None:
        """Start as a process that has idled for *seconds*: *filled_ratio* of the young budget is garbage."""
        self.allocated = self.live + int(IDLE_BYTES_PER_S * seconds)
        self.young = int(filled_ratio * 0.9 * self.young_limit)

    def allocate(self, size: int) -> None:
        """Allocate garbage; may run a collection."""
        self.allocated += size
        if not self.young_limit:
            return  # reference counting or free(): no garbage
        self.young += size
        if self.young >= self.young_limit:
            self._collect_as_needed()

    def retain(self, size: int) -> None:
        """Allocate live objects; may run a collection or kill the process."""
        self.allocated += size
        self.live += size
        self._check()

    def release(self, size: int) -> None:
        """Free retained bytes at once (a real runtime frees them at the next full collection)."""
        self.live = max(self.spec.live_bytes, self.live - size)

    def collect(self, *, full: bool = True) -> float:
        """Run a collection now and return the pause in seconds."""
        policy = self.spec.policy
        action = "full" if full else "minor"
        if full:
            pause = policy.full_s + policy.full_s_per_live * self.live
        else:
            pause = policy.minor_s + policy.minor_s_per_live * self.live
        pause *= self._vary()
        self.young = 0
        self.young_limit = self._budget()
        self.collections[action] += 1
        self.pause_s[action] += pause
        self._stop(pause, action)
        return pause

    def _collect_as_needed(self) -> None:
        maximum = self.spec.max_bytes
        full = maximum is not None and self.live >= self.spec.policy.full_at_ratio * maximum
        self.collect(full=full)

    def _budget(self) -> int:
        policy = self.spec.policy
        budget = max(policy.young_bytes, int(policy.growth * self.live)) if policy.young_bytes else 0
        if budget and self.spec.max_bytes is not None:
            # the closer the heap is to its maximum, the smaller the budget: collections become more frequent
            budget = max(MB, min(budget, self.spec.max_bytes - self.live))
        return budget

    def _check(self) -> None:
        maximum, limit = self.spec.max_bytes, self.spec.limit_bytes
        if limit is not None and self.resident > limit and self.young:
            self.collect(full=True)  # a runtime under memory pressure collects before it grows
        if limit is not None and self.resident > limit:
            self._kill("OOMKilled")
        elif maximum is not None and self.live > maximum:
            self._kill("OutOfMemoryError")
