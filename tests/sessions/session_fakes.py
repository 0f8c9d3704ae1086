"""A system under fault that lives in memory: flags, clock and the telemetry its traffic would leave."""

from __future__ import annotations

import asyncio
import json
from bisect import bisect_right
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any, TypeVar, cast

from pytest_otel_diag.errors import FlagError, RestoreFailed, nearest
from pytest_otel_diag.model.diagnosis import Diagnosis, RootCause
from pytest_otel_diag.model.events import (
    ImpactMeasured,
    PhaseEnded,
    PhaseStarted,
    SessionEvent,
    SessionWaiting,
)
from pytest_otel_diag.model.flags import Flag, FlagChange, FlagDocument, ServedFlag
from pytest_otel_diag.model.questions import (
    CallEdges,
    FlagMentions,
    Latest,
    LogCounts,
    LogKinds,
    MetricLevels,
    OperationHealthOf,
    Question,
    ServiceHealthOf,
)
from pytest_otel_diag.model.scenario import (
    Expectation,
    ExpectedAnomaly,
    ExpectedRootCause,
    Fault,
    Scenario,
    Timing,
)
from pytest_otel_diag.model.session import Impact, Phase, PhaseRecord, SessionResult
from pytest_otel_diag.model.telemetry import (
    CallEdge,
    FlagMention,
    LogCount,
    LogKind,
    MetricLevel,
    OperationHealth,
    QueryLimits,
    ServiceHealth,
    Table,
    TelemetrySchema,
)
from pytest_otel_diag.model.windows import Window, seconds_to_ns
from pytest_otel_diag.ports import Clock, Investigation, TargetSession, Telemetry
from pytest_otel_diag.scoring.judge import judge
from pytest_otel_diag.sessions import EngineSettings, SessionEngine, SessionPlan, as_analyzer
from pytest_otel_diag.targets.clock import VirtualClock, WallClock
from tests.support.deadlines import deadline_s

T = TypeVar("T")

START_NS = seconds_to_ns(1_700_000_000)
FLAGS = {
    "paymentFailure": ("off", {"off": 0, "10%": 0.1, "50%": 0.5, "100%": 1}),
    "adFailure": ("off", {"off": False, "on": True}),
    "cartSlow": ("off", {"off": 0, "5sec": 5}),
    "loadVUs": ("5", {"5": 5, "10": 10}),
}


@dataclass
class Trouble:
    """What goes wrong where. ``at`` maps a point to an action; each point is passed through often."""

    at: dict[str, Callable[[], Awaitable[None] | None]] = field(default_factory=dict)
    passed: Counter[str] = field(default_factory=Counter)

    async def hit(self, point: str) -> None:
        self.passed[point] += 1
        await asyncio.sleep(0)
        action = self.at.get(point)
        if action is not None:
            pending = action()
            if pending is not None:
                await pending

    def raising(self, point: str, error: BaseException, times: int = 1 << 30) -> Trouble:
        left = [times]

        def act() -> None:
            if left[0] > 0:
                left[0] -= 1
                raise error

        self.at[point] = act
        return self

    def hanging(self, point: str) -> Trouble:
        async def hang() -> None:
            await asyncio.Event().wait()

        self.at[point] = hang
        return self


@dataclass
class Behaviour:
    """Calls a second, error share and p95 of a service; ``*_on`` while its flag is not off."""

    rate: float = 10.0
    errors: float = 0.0
    p95_ms: float = 20.0
    flag: str = ""
    rate_on: float | None = None
    errors_on: float | None = None
    p95_on_ms: float | None = None


@dataclass
class Gauge:
    """A metric with a point each *every_s*; ``*_on`` while its flag is not off. None: no point."""

    service: str
    metric: str
    value: float | None = 1.0
    flag: str = ""
    value_on: float | None = None
    kind: Any = "level"
    every_s: float = 10.0
    stays: bool = False

    def at(self, instant_ns: int, flags: FakeFlags) -> float | None:
        value = self.value_on if _on(self.flag, instant_ns, flags, stays=self.stays) else self.value
        waver = 1 + 0.03 * ((instant_ns // 1_000_000_000 // 10) % 5)
        return None if value is None else value * waver


@dataclass
class Line:
    """A line written each *every_s*, always or (with *flag*) while the flag is not off."""

    service: str
    template: str
    severe: bool = False
    every_s: float = 4.0
    flag: str = ""

    def written(self, instant_ns: int, flags: FakeFlags) -> bool:
        return not self.flag or _on(self.flag, instant_ns, flags)


def _on(flag: str, instant_ns: int, flags: FakeFlags, *, stays: bool = False) -> bool:
    """Whether the flag is on at the instant; with *stays*, whether it ever was."""
    if not flag:
        return False
    if stays and any(when <= instant_ns and state[flag] != FLAGS[flag][0] for when, state in flags.history):
        return True
    return flags.at(flag, instant_ns) != FLAGS[flag][0]


class FakeFlags:
    def __init__(self, clock: Clock, trouble: Trouble) -> None:
        self._clock = clock
        self._trouble = trouble
        self.state = {key: default for key, (default, _) in FLAGS.items()}
        self.targeting: dict[str, Any] = {}
        self.served_instead: dict[str, str] = {}
        self.history: list[tuple[int, dict[str, str]]] = [(0, dict(self.state))]

    def raw(self) -> bytes:
        return json.dumps(self.state, indent=1).encode()

    def changed(self) -> None:
        self.history.append((self._clock.now(), dict(self.state)))

    async def document(self) -> FlagDocument:
        await self._trouble.hit("flags.document")
        flags = {
            key: Flag(
                key=key,
                variants=variants,
                default_variant=self.state[key],
                targeting=self.targeting.get(key),
            )
            for key, (_, variants) in FLAGS.items()
        }
        return FlagDocument(raw=self.raw(), flags=flags)

    async def apply(self, change: FlagChange) -> None:
        await self._trouble.hit("flags.apply")
        if change.key not in FLAGS:
            raise FlagError(f"no flag {change.key!r}{nearest(change.key, FLAGS)}")
        if change.variant not in FLAGS[change.key][1]:
            raise FlagError(f"flag {change.key!r} has no variant {change.variant!r}")
        self.state[change.key] = change.variant
        self.changed()
        await self._trouble.hit("flags.applied")

    async def restore(self, document: FlagDocument) -> None:
        await self._trouble.hit("flags.restore")
        try:
            self.state = json.loads(document.raw)
        except ValueError as error:
            raise RestoreFailed(str(error)) from error
        self.changed()

    async def served(self, key: str, context: Mapping[str, Any]) -> ServedFlag:
        await self._trouble.hit("flags.served")
        if key not in FLAGS:
            raise FlagError(f"no flag {key!r}")
        variant = self.served_instead.get(key, self.state[key])
        return ServedFlag(key=key, variant=variant, value=FLAGS[key][1][variant], at_ns=self._clock.now())

    def at(self, key: str, instant_ns: int) -> str:
        index = bisect_right([when for when, _ in self.history], instant_ns) - 1
        return self.history[index][1][key]


@dataclass
class FakeTelemetry(Telemetry):
    clock: Clock
    flags: FakeFlags
    trouble: Trouble
    services: dict[str, Behaviour]
    begins_ns: int
    lag_s: float = 0.0
    ends_ns: int = 1 << 62
    tables: Sequence[str] = ("otel_traces", "otel_logs")
    driven: list[tuple[int, str, int]] = field(default_factory=list)
    gauges: Sequence[Gauge] = ()
    lines: Sequence[Line] = ()
    operations: Sequence[tuple[str, str, Behaviour]] = ()
    mentions: Sequence[FlagMention] = ()

    def _seen_to(self) -> int:
        return min(self.clock.now() - seconds_to_ns(self.lag_s), self.ends_ns)

    async def query(
        self, sql: str, parameters: Mapping[str, Any] | None = None, limits: QueryLimits | None = None
    ) -> Table:
        await self.trouble.hit("telemetry.query")
        return Table(("service",), (sorted(self.services),))

    async def schema(self) -> TelemetrySchema:
        await self.trouble.hit("telemetry.schema")
        columns = {"ServiceName": "String", "Timestamp": "DateTime64(9)"}
        return TelemetrySchema("otel", dict.fromkeys(self.tables, columns))

    async def ask(self, question: Question[T]) -> T:
        await self.trouble.hit(f"telemetry.{question.name}")
        answer: Any
        match question:
            case Latest():
                answer = self._seen_to() if self._seen_to() > self.begins_ns else None
            case ServiceHealthOf(window, bucket_s):
                answer = self._service_health(window, bucket_s)
            case OperationHealthOf(window, bucket_s, services):
                answer = self._operation_health(window, bucket_s, services)
            case MetricLevels(window, _, services):
                answer = self._metric_levels(window, services)
            case LogCounts(window, bucket_s, services):
                answer = self._log_counts(window, bucket_s, services)
            case LogKinds(window, bucket_s, services):
                answer = self._log_kinds(window, bucket_s, services)
            case CallEdges():
                answer = self._call_edges()
            case FlagMentions():
                answer = self.mentions
            case _:
                raise AssertionError(question)
        return cast("T", answer)

    def _service_health(self, window: Window, bucket_s: float) -> Sequence[ServiceHealth]:
        rows, step = [], seconds_to_ns(bucket_s)
        for name, behaviour in self.services.items():
            for start in range(window.start_ns, window.end_ns, step):
                row = self._bucket(name, behaviour, start, min(start + step, window.end_ns))
                if row.requests:
                    rows.append(row)
        return rows

    def _bucket(self, name: str, behaviour: Behaviour, start: int, end: int) -> ServiceHealth:
        low, high = max(start, self.begins_ns), min(end, self._seen_to())
        on = bool(behaviour.flag) and self.flags.at(behaviour.flag, start) != FLAGS[behaviour.flag][0]

        def pick(normal: float, faulty: float | None) -> float:
            return faulty if on and faulty is not None else normal

        rate = pick(behaviour.rate, behaviour.rate_on)
        errors = pick(behaviour.errors, behaviour.errors_on)
        p95_ms = pick(behaviour.p95_ms, behaviour.p95_on_ms)
        first = int((low - START_NS) / 1e9 * rate)
        last = int((high - START_NS) / 1e9 * rate) if high > low else first
        last += sum(calls for when, who, calls in self.driven if who == name and low <= when < high)
        failed = int(last * errors) - int(first * errors)
        # A little waver, the same in each run, so that medians are not all alike.
        waver = 1 + 0.02 * ((start // 1_000_000_000) % 7)
        return ServiceHealth(
            service=name,
            bucket_start_ns=start,
            requests=last - first,
            errors=failed,
            p50_ms=p95_ms * waver / 2,
            p95_ms=p95_ms * waver,
            p99_ms=p95_ms * waver * 1.2,
        )

    def _operation_health(
        self, window: Window, bucket_s: float, services: Sequence[str]
    ) -> Sequence[OperationHealth]:
        step, rows = seconds_to_ns(bucket_s), []
        for name, operation, behaviour in self.operations:
            if name not in services:
                continue
            for start in range(window.start_ns, window.end_ns, step):
                row = self._bucket(name, behaviour, start, min(start + step, window.end_ns))
                if row.requests:
                    rows.append(
                        OperationHealth(
                            service=name,
                            operation=operation,
                            bucket_start_ns=start,
                            calls=row.requests,
                            errors=row.errors,
                            p95_ms=row.p95_ms,
                            max_ms=row.p99_ms,
                        )
                    )
        return rows

    def _metric_levels(self, window: Window, services: Sequence[str]) -> Sequence[MetricLevel]:
        end = min(window.end_ns, self._seen_to())
        return [
            MetricLevel(
                service=gauge.service, metric=gauge.metric, kind=gauge.kind, bucket_start_ns=at, value=value
            )
            for gauge in self.gauges
            if gauge.service in services
            for at in range(self.begins_ns, end, seconds_to_ns(gauge.every_s))
            if at >= window.start_ns
            for value in [gauge.at(at, self.flags)]
            if value is not None
        ]

    def _log_counts(self, window: Window, bucket_s: float, services: Sequence[str]) -> Sequence[LogCount]:
        counts: dict[tuple[str, int], list[int]] = {}
        for service, at, severe, _ in self._lines(window, services):
            bucket = window.start_ns + (at - window.start_ns) // seconds_to_ns(bucket_s) * seconds_to_ns(
                bucket_s
            )
            one = counts.setdefault((service, bucket), [0, 0])
            one[0] += 1
            one[1] += severe
        return [
            LogCount(service=service, bucket_start_ns=bucket, lines=lines, severe=severe)
            for (service, bucket), (lines, severe) in counts.items()
        ]

    def _log_kinds(self, window: Window, bucket_s: float, services: Sequence[str]) -> Sequence[LogKind]:
        kinds: dict[tuple[str, str], list[Any]] = {}
        for service, at, severe, template in self._lines(window, services):
            one = kinds.setdefault((service, template), [0, set(), False])
            one[0] += 1
            one[1].add((at - window.start_ns) // seconds_to_ns(bucket_s))
            one[2] = one[2] or severe
        return [
            LogKind(service=service, template=template, severe=severe, lines=lines, buckets=len(buckets))
            for (service, template), (lines, buckets, severe) in kinds.items()
        ]

    def _lines(self, window: Window, services: Sequence[str]) -> Iterator[tuple[str, int, bool, str]]:
        end = min(window.end_ns, self._seen_to())
        for line in self.lines:
            for at in range(self.begins_ns, end, seconds_to_ns(line.every_s)):
                if at >= window.start_ns and line.service in services and line.written(at, self.flags):
                    yield line.service, at, line.severe, line.template

    def _call_edges(self) -> Sequence[CallEdge]:
        pairs = [("frontend", "checkout"), ("checkout", "payment"), ("frontend", "ad")]
        return [
            CallEdge(caller=a, callee=b, calls=9, errors=0, p50_ms=1, p99_ms=2)
            for a, b in pairs
            if a in self.services and b in self.services
        ]


@dataclass
class FakeTraffic:
    telemetry: FakeTelemetry
    willing: bool = True
    astray: bool = False
    asked: list[int] = field(default_factory=list)

    async def drive(self, services: Sequence[str], calls: int) -> int:
        await self.telemetry.trouble.hit("traffic.drive")
        self.asked.append(calls)
        if not (self.willing and services and calls):
            return 0
        if self.astray:
            return calls
        self.telemetry.driven.append((self.telemetry.clock.now(), services[0], calls))
        return calls

    def made(self) -> int:
        return sum(calls for _, _, calls in self.telemetry.driven)


def shop() -> dict[str, Behaviour]:
    return {
        "frontend": Behaviour(rate=20),
        "checkout": Behaviour(rate=8),
        "payment": Behaviour(rate=8, flag="paymentFailure", errors_on=0.5),
        "ad": Behaviour(rate=5, flag="adFailure", errors_on=0.1),
    }


class FakeTarget:
    name = "fake"
    seeded = False

    def __init__(
        self,
        *,
        services: dict[str, Behaviour] | None = None,
        wall: bool = False,
        exclusive: bool = False,
        reference: tuple[Window, ...] = (),
        redacted: bool = False,
        **telemetry: Any,
    ) -> None:
        self.exclusive = exclusive
        self.redacted = redacted
        self.trouble = Trouble()
        self.clock: Clock = WallClock() if wall else VirtualClock(START_NS)
        self.flags = FakeFlags(self.clock, self.trouble)
        begins = self.clock.now() - seconds_to_ns(1) if wall else START_NS
        settings = {"begins_ns": begins, **telemetry}
        self.telemetry = FakeTelemetry(
            self.clock, self.flags, self.trouble, shop() if services is None else services, **settings
        )
        self.traffic = FakeTraffic(self.telemetry)
        self.reference = reference
        self.system: dict[str, Any] = {}
        self.original = self.flags.raw()
        self.opened = 0
        self.closed = 0
        self.mistakes: list[str] = []

    @property
    def identity(self) -> object:
        return self

    def describe(self) -> Mapping[str, str]:
        return {"name": self.name, "version": "1"}

    def scenario_for(self, faults: Sequence[Fault]) -> Scenario | None:
        return None

    def validate(self, scenario: Scenario) -> Sequence[str]:
        return self.mistakes

    def close(self) -> None: ...

    @asynccontextmanager
    async def open(self, scenario: Scenario, session_id: str) -> AsyncIterator[TargetSession]:
        await self.trouble.hit("target.open")
        self.opened += 1
        try:
            yield TargetSession(
                clock=self.clock,
                flags=self.flags,
                telemetry=self.telemetry,
                traffic=self.traffic,
                reference=self.reference,
                provenance={"target": "fake"},
                redacted=self.redacted,
                **self.system,
            )
        finally:
            self.closed += 1
        await self.trouble.hit("target.close")

    @property
    def restored(self) -> bool:
        return self.flags.raw() == self.original


class Watcher:
    """Reads all events and keeps results; may act when a phase starts."""

    def __init__(self) -> None:
        self.events: list[SessionEvent] = []
        self.started: list[Phase] = []
        self.ended: list[PhaseRecord] = []
        self.progress: list[Impact] = []
        self.results: list[SessionResult] = []
        self.when: dict[Phase, Callable[[], None]] = {}
        self.waits: list[str] = []

    def see(self, event: SessionEvent) -> None:
        self.events.append(event)
        if isinstance(event, SessionWaiting):
            self.waits.append(event.reason)
        elif isinstance(event, PhaseStarted):
            self.started.append(event.phase)
            if event.phase in self.when:
                self.when[event.phase]()
        elif isinstance(event, PhaseEnded):
            self.ended.append(event.record)
        elif isinstance(event, ImpactMeasured):
            self.progress.append(event.impact)

    def keep(self, result: SessionResult) -> None:
        self.results.append(result)


async def blames_payment(investigation: Investigation) -> Diagnosis:
    await investigation.telemetry.service_health(investigation.incident, 5.0)
    return Diagnosis(detected=True, root_causes=(RootCause(service="payment", score=1.0),), confidence=0.9)


def scenario(*faults: str, **changes: Any) -> Scenario:
    """``scenario("paymentFailure=50%")``; without a fault a control."""
    parts = [text.split("=") for text in faults]
    chosen = tuple(Fault(flag=p[0], variant=p[1] if len(p) > 1 else None) for p in parts)
    expectation = (
        Expectation(
            anomalies=(ExpectedAnomaly(service="payment"),),
            root_causes=(ExpectedRootCause(service="payment"),),
        )
        if faults
        else Expectation(healthy=True)
    )
    timing = {"baseline_s": 60, "impact_timeout_s": 60, "observe_s": 30, "recover_timeout_s": 60}
    timing |= changes.pop("timing", {})
    values: dict[str, Any] = {
        "id": "case",
        "faults": chosen,
        "expectation": expectation,
        "timing": Timing(**timing),
    }
    return Scenario(**(values | changes))


def plan(case: Scenario | None = None, **changes: Any) -> SessionPlan:
    values: dict[str, Any] = {
        "scenario": case or scenario("paymentFailure=50%"),
        "session_id": "paymentFailure-1",
        "run_id": "run",
        "analyzer_name": "test",
    }
    return SessionPlan(**(values | changes))


QUICK = EngineSettings(
    cancel_grace_s=0.05,
    undo_timeout_s=deadline_s(5),
    judge_timeout_s=deadline_s(5),
    close_timeout_s=deadline_s(5),
)


def engine(target: FakeTarget, analyzer: Any = None, **changes: Any) -> SessionEngine:
    settings = changes.pop("settings", QUICK)
    judged = changes.pop("judge", judge)
    if watcher := changes.pop("watcher", None):
        changes |= {"emit": watcher.see, "keep": watcher.keep}
    return SessionEngine(
        target, as_analyzer(analyzer or blames_payment), judged, settings=settings, **changes
    )
