"""Checks that a live system is ready for a session: fresh telemetry, and requests that can show a fault."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

from pytest_otel_diag import statements
from pytest_otel_diag.errors import NotReady
from pytest_otel_diag.model.base import Nanos
from pytest_otel_diag.model.telemetry import SIGNAL_TABLES, TelemetrySchema
from pytest_otel_diag.model.windows import NANOS_PER_SECOND, Window, seconds_to_ns
from pytest_otel_diag.ports import Clock
from pytest_otel_diag.targets.live.clock import TOLERATED_S
from pytest_otel_diag.targets.live.options import WAITING, LiveOptions
from pytest_otel_diag.telemetry.schema import ALIASES
from pytest_otel_diag.telemetry.session import StoreTelemetry

LOOK_BACK_S = 3600.0
"""Older telemetry counts as none, since it says nothing about the system now."""

LOAD_S = 60.0
POLL_S = 1.0


@dataclass(frozen=True)
class Condition:
    """The state of the system according to telemetry.

    ``newest_ns`` is by signal, without signals that have no recent telemetry; ``requests`` is by service, in
    the last ``over_s`` seconds of traces.
    """

    at_ns: Nanos
    newest_ns: Mapping[str, Nanos] = field(default_factory=dict)
    requests: Mapping[str, int] = field(default_factory=dict)
    over_s: float = LOAD_S

    def age_s(self, signal: str) -> float | None:
        """Return the age of the newest telemetry of the signal, negative when it is in the future."""
        newest = self.newest_ns.get(signal)
        return None if newest is None else (self.at_ns - newest) / NANOS_PER_SECOND

    def per_minute(self, service: str) -> float:
        """Return the requests per minute of the service, of all services if it has none."""
        count = self.requests.get(service, sum(self.requests.values()))
        return count * 60.0 / self.over_s if self.over_s else 0.0

    @property
    def youngest_s(self) -> float | None:
        """Return the age of the newest telemetry of any signal."""
        ages = [age for signal in self.newest_ns if (age := self.age_s(signal)) is not None]
        return min(ages, default=None)


async def condition(telemetry: StoreTelemetry, clock: Clock) -> Condition:
    """Query the state once; raises TelemetryError."""
    schema, now = await telemetry.schema(), clock.now()
    newest: dict[str, Nanos] = {}
    for signal in SIGNAL_TABLES:
        found = [
            instant
            for table in _tables(schema, signal)
            if (instant := await _newest(telemetry, signal, table, now)) is not None
        ]
        if found:
            newest[signal] = max(found)
    if "traces" not in newest:
        return Condition(now, newest)
    # Requests count up to the newest trace: later ones are not exported yet, which is no lack of traffic.
    end_ns = min(now, newest["traces"] + 1)  # windows are half open
    window = Window(start_ns=end_ns - seconds_to_ns(LOAD_S), end_ns=end_ns)
    requests: dict[str, int] = {}
    first_ns = end_ns
    for row in await telemetry.service_health(window, LOAD_S / 12):
        requests[row.service] = requests.get(row.service, 0) + row.requests
        first_ns = min(first_ns, row.bucket_start_ns)
    return Condition(now, newest, requests, over_s=max(LOAD_S / 12, (end_ns - first_ns) / NANOS_PER_SECOND))


def _tables(schema: TelemetrySchema, signal: str) -> Sequence[str]:
    return [table for table in schema.tables if ALIASES.get(table, table) in SIGNAL_TABLES[signal]]


async def _newest(telemetry: StoreTelemetry, signal: str, table: str, now_ns: Nanos) -> Nanos | None:
    since_ns = now_ns - seconds_to_ns(LOOK_BACK_S)
    answer = await telemetry.run(
        statements.load(__package__, f"newest_{signal}"), {"since_ns": since_ns, "table": table}
    )
    newest_ns, rows = next(answer.rows(), (0, 0))
    return int(newest_ns) if rows else None


async def ready(
    telemetry: StoreTelemetry,
    clock: Clock,
    options: LiveOptions,
    *,
    frontend: str,
    source: str,
    notify: Callable[[str], object] = lambda _: None,
) -> Condition:
    """Wait up to ``options.wait_s`` for fresh telemetry with requests; raises NotReady with what is missing.

    *source* is the name of the store in errors.
    """
    loop = asyncio.get_running_loop()
    deadline_s = loop.time() + options.wait_s
    notified = False
    while True:
        found = await condition(telemetry, clock)
        problem = lacking(found, options, frontend=frontend, source=source)
        if not problem:
            return found
        if options.wait_s and not notified:
            notify(f"{WAITING}{problem} (for at most {options.wait_s:g} s)")
            notified = True
        if loop.time() >= deadline_s:
            raise NotReady(f"{problem} (waited {options.wait_s:g} s)")
        await asyncio.sleep(POLL_S)


def lacking(found: Condition, options: LiveOptions, *, frontend: str, source: str) -> str:
    """Return what prevents a session and how to fix it; empty when the system is ready."""
    youngest_s = found.youngest_s
    if youngest_s is None:
        return (
            f"no telemetry of the last hour in {source}; check that the collector's exporter sends to it and "
            "that the system runs"
        )
    if "traces" not in found.newest_ns:
        return (
            f"{source} gets {', '.join(found.newest_ns)} but no traces; add the exporter to the collector's "
            "traces pipeline"
        )
    age_s = found.age_s("traces")
    assert age_s is not None
    if age_s > options.fresh_s:
        return (
            f"the newest span in {source} is {age_s:.0f} s old, {options.fresh_s:g} s are allowed; check the "
            "collector's log and queue, or allow more with live:fresh_s=…"
        )
    if -age_s > TOLERATED_S:
        return (
            f"the newest span in {source} is {-age_s:.1f} s in the future: the clocks of this host and of "
            "the system's hosts differ; synchronise them"
        )
    if not found.per_minute(frontend):
        return (
            "NO_TRAFFIC: spans arrive, but no request was served in the last minute; start the load "
            "generator (loadGeneratorTraffic=on, or its web page)"
        )
    return ""
