"""A system of three services with a flag for each kind of claim.

Twice a second ``front`` asks ``back``, and each tenth request makes ``back`` send a message that ``sink``
processes in a new trace that links to the sender.
"""

from __future__ import annotations

import asyncio
import uuid
from collections.abc import AsyncIterator, Iterator, Mapping, Sequence
from contextlib import asynccontextmanager

from pytest_otel_diag.flags.memory import MemoryFlags
from pytest_otel_diag.model.flags import Flag
from pytest_otel_diag.model.scenario import Disturbance, Fault, Scenario
from pytest_otel_diag.model.windows import NANOS_PER_SECOND
from pytest_otel_diag.ports import TargetSession
from pytest_otel_diag.shop.emission import rows
from pytest_otel_diag.shop.records import (
    Batch,
    HistogramValue,
    Instrument,
    LinkRecord,
    LogRecord,
    MetricPoint,
    Resource,
    Scope,
    SpanRecord,
)
from pytest_otel_diag.targets.clock import VirtualClock
from pytest_otel_diag.telemetry import Store

START_NS = 1_750_000_000 * NANOS_PER_SECOND
FLAGS = (
    "fail",
    "slow",
    "crawl",
    "leak",
    "chatter",
    "warn",
    "flood",
    "starve",
    "restart",
    "busy",
    "gc",
    "stuck",
    "inert",
)
SCOPE = Scope("small_system")
MEMORY = Instrument("process.memory.usage", "gauge", "By")
LAG = Instrument("kafka.consumer_group.lag", "gauge")
CPU = Instrument("process.cpu.time", "sum", "s")
GC = Instrument("jvm.gc.duration", "histogram", "s")


def resource(service: str, number: int = 0) -> Resource:
    return Resource(service, {"service.name": service, "service.instance.id": f"{service}-{number}"})


class SmallSystem:
    """The system: emits telemetry up to an instant, depending on its flags."""

    def __init__(self, flags: MemoryFlags, clock: VirtualClock) -> None:
        self._flags = flags
        self._clock = clock
        self._resources = {name: resource(name) for name in ("front", "back", "sink")}
        self._second = 0
        self._count = 0
        self._totals = {"cpu": 0.0, "gc": 0.0, "memory": 100.0, "lag": 0.0}
        self.disturbed: list[Disturbance] = []
        self.batch = Batch()

    async def advance(self, until_ns: int) -> None:
        document = await self._flags.document()
        on = {key: flag.default_variant == "on" for key, flag in document.flags.items()}
        while START_NS + (self._second + 1) * NANOS_PER_SECOND <= until_ns:
            self._step(on)
            self._second += 1

    def _step(self, on: Mapping[str, bool]) -> None:
        at_ns = START_NS + self._second * NANOS_PER_SECOND
        if on["restart"] and self._resources["back"].attributes["service.instance.id"] == "back-0":
            self._resources["back"] = resource("back", 1)
        requests = 6 if on["flood"] else 2
        if on["starve"]:
            requests = 1 if self._second % 4 == 0 else 0
        for number in range(requests):
            self._request(at_ns + number * NANOS_PER_SECOND // 10, on)
        if on["chatter"]:
            self._log("back", "INFO", f"chatter number {self._second}", at_ns)
        if on["warn"] and self._second % 3 == 0:
            self._log("back", "WARN", "something is odd", at_ns)
        self._log("back", "INFO", f"request {self._second} answered", at_ns)
        self._measure(at_ns, on)

    def _request(self, at_ns: int, on: Mapping[str, bool]) -> None:
        self._count += 1
        number = self._count
        own_ms = (
            10 + number % 7 + (100 if on["crawl"] else 0) + (500 if on["slow"] and number % 9 == 0 else 0)
        )
        failed = (on["fail"] or on["stuck"]) and number % 2 == 0
        trace = f"{number:032x}"
        self._span(trace, 1, "", "front", "GET /", "Server", at_ns, own_ms + 4, failed)
        self._span(
            trace,
            2,
            f"{number:08x}{1:08x}",
            "front",
            "Back/Ask",
            "Client",
            at_ns + 1_000_000,
            own_ms + 2,
            failed,
        )
        self._span(
            trace, 3, f"{number:08x}{2:08x}", "back", "Back/Ask", "Server", at_ns + 2_000_000, own_ms, failed
        )
        if number % 10 == 0:
            self._span(
                trace, 4, f"{number:08x}{3:08x}", "back", "publish", "Producer", at_ns + 3_000_000, 1, False
            )
            link = LinkRecord(trace, f"{number:08x}{4:08x}", {})
            self._span(
                f"f{number:031x}", 5, "", "sink", "process", "Consumer", at_ns + 9_000_000, 2, False, (link,)
            )

    def _span(  # noqa: PLR0917 - a span has that many properties
        self, trace, part, parent, service, name, kind, at_ns, ms, failed, links=()
    ) -> None:
        number = int(trace[1:], 16)
        self.batch.spans.append(
            SpanRecord(
                at_ns, at_ns, round(ms * 1e6), trace, f"{number:08x}{part:08x}", parent, name, kind,
                self._resources[service], SCOPE, {}, "Error" if failed else "Unset", links=links,
            )
        )  # fmt: skip

    def _log(self, service: str, severity: str, body: str, at_ns: int) -> None:
        number = {"INFO": 9, "WARN": 13}[severity]
        self.batch.logs.append(
            LogRecord(at_ns, at_ns, self._resources[service], SCOPE, severity, number, body, {})
        )

    def _measure(self, at_ns: int, on: Mapping[str, bool]) -> None:
        self._totals["cpu"] += 0.9 if on["busy"] else 0.1
        self._totals["gc"] += 0.5 if on["gc"] else 0.01
        self._totals["memory"] += 1.0 if on["leak"] else 0.0
        self._totals["lag"] = self._totals["lag"] + 1 if on["leak"] else 0.0
        if self._second % 10:
            return
        back = self._resources["back"]
        histogram = HistogramValue(self._second, self._totals["gc"], (self._second, 0), (1.0,), 0.0, 1.0)
        broker = resource("broker")
        for instrument, owner, attributes, value in (
            (MEMORY, back, {}, self._totals["memory"] + self._second % 3),
            (CPU, back, {}, self._totals["cpu"]),
            (GC, back, {}, histogram),
            (LAG, broker, {"group": "sink"}, self._totals["lag"]),
        ):
            self.batch.metrics.append(
                MetricPoint(at_ns, at_ns, START_NS, owner, SCOPE, instrument, attributes, value)
            )


class SmallSystemTelemetry:
    """Telemetry of the store, which first inserts the records emitted meanwhile."""

    def __init__(self, small_system: SmallSystem, store: Store, database: str) -> None:
        self._system, self._store, self._database = small_system, store, database
        self._inner = store.telemetry(database)

    async def _settle(self) -> None:
        batch, self._system.batch = self._system.batch, Batch()
        for name, table in rows.tables(batch).items():
            await asyncio.to_thread(self._store.ingest_arrow, self._database, name, table)

    def __getattr__(self, name):
        async def call(*arguments, **named):
            await self._settle()
            return await getattr(self._inner, name)(*arguments, **named)

        return call


class SmallSystemClock(VirtualClock):
    """Virtual time that advances the system second by second."""

    small_system: SmallSystem

    async def sleep(self, seconds: float) -> None:
        await super().sleep(seconds)
        await self.small_system.advance(self.now())


class SmallSystemTarget:
    name, exclusive, seeded = "small_system", False, False

    def __init__(self, store: Store) -> None:
        self._store = store
        self.systems: list[SmallSystem] = []

    @property
    def identity(self) -> object:
        return self

    def describe(self) -> Mapping[str, str]:
        return {"name": self.name}

    def scenarios(self) -> tuple[Scenario, ...]:
        return ()

    def scenario_for(self, faults: Sequence[Fault]) -> None:
        return None

    def validate(self, scenario: Scenario) -> Iterator[str]:
        return [f"no flag {fault.flag!r}" for fault in scenario.faults if fault.flag not in FLAGS]

    def close(self) -> None: ...

    @asynccontextmanager
    async def open(self, scenario: Scenario, session_id: str) -> AsyncIterator[TargetSession]:
        clock = SmallSystemClock(START_NS)
        off = [Flag(key=key, variants={"off": False, "on": True}, default_variant="off") for key in FLAGS]
        flags = MemoryFlags(off, now=clock.now)
        small_system = clock.small_system = SmallSystem(_Stuck(flags), clock)
        self.systems.append(small_system)
        database = f"system_{uuid.uuid4().hex}"
        self._store.create_database(database)

        async def disturb(disturbance: Disturbance) -> None:
            small_system.disturbed.append(disturbance)

        try:
            telemetry = SmallSystemTelemetry(small_system, self._store, database)
            yield TargetSession(
                clock=clock, flags=flags, telemetry=telemetry, traffic=_NoTraffic(), disturb=disturb
            )
        finally:
            self._store.drop_database(database)


class _Stuck:
    """Flags as the services see them: ``stuck`` never turns off."""

    def __init__(self, flags: MemoryFlags) -> None:
        self._flags = flags
        self._seen = False

    async def document(self):
        document = await self._flags.document()
        self._seen = self._seen or document.flags["stuck"].default_variant == "on"
        if not self._seen:
            return document
        stuck = document.flags["stuck"].model_copy(update={"default_variant": "on"})
        return document.model_copy(update={"flags": {**document.flags, "stuck": stuck}})


class _NoTraffic:
    async def drive(self, services: Sequence[str], calls: int) -> int:
        return 0

    def made(self) -> int:
        return 0
