"""What ``otel-diag doctor`` checks of a live system. Nothing is written to it.

Each check is a row: fine, a warning (a session would run, something is odd), or a failure with the way out.
"""

from __future__ import annotations

import asyncio
import os
import time
from collections.abc import AsyncGenerator, AsyncIterator, Iterator
from contextlib import AsyncExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from pytest_otel_diag import catalog
from pytest_otel_diag.config.settings import Settings
from pytest_otel_diag.errors import FlagError, OtelDiagError
from pytest_otel_diag.flags.access import open_flags
from pytest_otel_diag.flags.controller import SurfaceFlags
from pytest_otel_diag.flags.http import HttpClient
from pytest_otel_diag.model.telemetry import SIGNAL_TABLES, TelemetrySchema
from pytest_otel_diag.operations.flag_overview import Overview, overview
from pytest_otel_diag.targets.live.clock import TOLERATED_S, LiveClock, measured
from pytest_otel_diag.targets.live.flags import Found
from pytest_otel_diag.targets.live.options import LiveOptions
from pytest_otel_diag.targets.live.preflight import Condition, condition, lacking
from pytest_otel_diag.targets.live.store import Opened
from pytest_otel_diag.targets.live.target import LiveTarget
from pytest_otel_diag.telemetry.session import StoreTelemetry
from pytest_otel_diag.undo.heal import command as heal_command
from pytest_otel_diag.undo.journal import Damaged, Entry, Journal
from pytest_otel_diag.undo.lease import held

State = Literal["ok", "warn", "FAIL"]

RECEIVER_WAIT_S = 40.0
"""How long the receiver listens for a first span: a collector that was refused tries again within 30 s."""

_METRICS_OLD_S = 180.0
"""Metrics come every minute; older ones are told."""

_NEEDED = {
    "otel_traces": (
        *("Timestamp", "TraceId", "SpanId", "ParentSpanId", "ServiceName", "SpanName", "SpanKind"),
        *("Duration", "StatusCode", "ResourceAttributes"),
    ),
    "otel_logs": ("Timestamp", "ServiceName", "SeverityText", "SeverityNumber", "Body"),
    "otel_metrics_gauge": ("TimeUnix", "ServiceName", "MetricName", "Attributes", "Value"),
    "otel_metrics_sum": ("TimeUnix", "ServiceName", "MetricName", "Attributes", "Value", "IsMonotonic"),
}
"""Columns that statements of this package read."""


@dataclass(frozen=True)
class Row:
    """One check."""

    state: State
    name: str
    detail: str


def rows(rest: str, settings: Settings, *, receiver_wait_s: float = RECEIVER_WAIT_S) -> Iterator[Row]:
    """Return the rows for the live system of the settings; *rest* is what follows ``live:`` in the spec."""
    try:
        target = LiveTarget.from_settings(rest, settings=settings, worker="doctor")
        options = LiveOptions.parse(rest)
    except OtelDiagError as error:
        yield Row("FAIL", "target", str(error))
        return
    checks = _Doctor(target, options, settings, receiver_wait_s).all()
    try:
        with asyncio.Runner() as runner:  # one row at a time: a person sees what is being waited for
            while (row := runner.run(_next(checks))) is not None:
                yield row
            runner.run(checks.aclose())
    finally:
        target.close()


async def _next(checks: AsyncGenerator[Row, None]) -> Row | None:
    return await anext(checks, None)


class _Doctor:
    def __init__(
        self, target: LiveTarget, options: LiveOptions, settings: Settings, receiver_wait_s: float
    ) -> None:
        self._target = target
        self._options = options
        self._settings = settings
        self._receiver_wait_s = receiver_wait_s
        self._demo = target.document.demo if options.demo != "auto" else catalog.DEFAULT_DEMO

    async def all(self) -> AsyncGenerator[Row, None]:
        for part in (self._frontend(), self._flags(), self._telemetry()):
            async for row in part:
                yield row
        for row in self._leftovers():
            yield row

    async def _frontend(self) -> AsyncIterator[Row]:
        url, needed = self._settings.frontend, self._settings.drive
        client = HttpClient(url, way_out="give its address with --otel-diag-frontend")
        try:
            answer = await client.get("")
            fine = answer.status < 500
            yield Row("ok" if fine else "warn", "frontend", f"{url} answers {answer.status}")
        except FlagError as error:
            hint = "" if needed else " (traffic is not driven, so it may be away)"
            yield Row("FAIL" if needed else "warn", "frontend", f"{error}{hint}")
        finally:
            await client.aclose()

    async def _flags(self) -> AsyncIterator[Row]:
        async with AsyncExitStack() as stack:
            try:
                flags = open_flags(self._target.access, now=time.time_ns)
                stack.push_async_callback(flags.aclose)
                seen = await overview(flags)
            except OtelDiagError as error:
                yield Row("FAIL", "flags", str(error))
                return
            found = self._target.document.take(seen.document)
            self._demo = found.demo
            yield await _surface(flags)
            yield _writable(self._target.access.control)
            yield _release(found)
            for row in _served(flags, seen):
                yield row
            yield self._faults(found)

    def _faults(self, found: Found) -> Row:
        """Return what is on, with the way out: the journal knows how what is ours is taken back."""
        on = [text for text in found.comparison.on if text.partition("=")[0] not in found.normal]
        if not on:
            return Row("ok", "faults", "none is on")
        told = f"{', '.join(on)}; a session refuses to start"
        if any(isinstance(entry, Entry) for entry in Journal(self._settings.state_dir()).entries()):
            return Row(
                "FAIL", "faults", f"{told}; see journal below for who left it and how it is taken back"
            )
        one = on[0].partition("=")[0]
        return Row(
            "FAIL",
            "faults",
            f"{told}; nobody's journal here has it. otel-diag flags set {one} off, or otel-diag flags reset "
            "--all-off, and stop whatever else switches flags",
        )

    async def _telemetry(self) -> AsyncIterator[Row]:
        try:
            opened = await asyncio.to_thread(self._target.source.open)
        except OtelDiagError as error:
            yield Row("FAIL", "store", str(error))
            return
        told = ", ".join(f"{name}={value}" for name, value in opened.describe().items())
        yield Row("ok", "store", told)
        if self._target.source.own:
            places = ", ".join(f"{kind} {where}" for kind, where in self._target.source.receiving().items())
            wait = f"waits up to {self._receiver_wait_s:g} s for a collector to find it"
            yield Row("ok", "receiver", f"listens: {places}; {wait}")
        clock = LiveClock()
        yield await self._clock(opened, clock)
        for row in _placement(opened):
            yield row
        telemetry = await asyncio.to_thread(opened.everything)
        try:
            for row in _tables(await telemetry.schema()):
                yield row
            for row in self._fresh(await self._condition(telemetry, clock)):
                yield row
        except OtelDiagError as error:
            yield Row("FAIL", "telemetry", str(error))
        finally:
            telemetry.close()

    async def _clock(self, opened: Opened, clock: LiveClock) -> Row:
        if self._target.source.own:
            return Row("ok", "clock", "telemetry arrives in this process; clocks of hosts show by its age")
        offset = await asyncio.to_thread(measured, opened.store.clock_ns)
        if not offset.matters:
            return Row("ok", "clock", f"the store's is ahead by {offset}")
        clock.offset_ns = offset.offset_ns
        return Row(
            "warn", "clock", f"the store's is ahead by {offset}; sessions go by it. Synchronise the two"
        )

    async def _condition(self, telemetry: StoreTelemetry, clock: LiveClock) -> Condition:
        """Look once; where our own receiver has just begun to listen, wait for the collector to find it."""
        deadline_s = time.monotonic() + self._receiver_wait_s
        while True:
            await asyncio.to_thread(self._target.source.flush)
            found = await condition(telemetry, clock)
            late = time.monotonic() >= deadline_s
            if late or not self._target.source.own or (set(found.newest_ns) >= {"traces", "logs"}):
                return found
            await asyncio.sleep(1.0)

    def _fresh(self, found: Condition) -> Iterator[Row]:
        allowed = {"traces": self._options.fresh_s, "logs": self._options.fresh_s, "metrics": _METRICS_OLD_S}
        for signal in SIGNAL_TABLES:
            age_s = found.age_s(signal)
            if age_s is None:
                state: State = "FAIL" if signal == "traces" else "warn"
                yield Row(
                    state, f"{signal}", "none in the last hour; faults that show only there are not seen"
                )
            elif age_s < -TOLERATED_S:
                yield Row("warn", signal, f"newest lies {-age_s:.1f} s in the future: clocks of hosts differ")
            else:
                late = age_s > allowed[signal]
                yield Row("warn" if late else "ok", signal, f"newest is {age_s:.1f} s old")
        frontend = catalog.service("frontend", self._demo)
        problem = lacking(found, self._options, frontend=frontend, source=self._target.source.name)
        load = f"{found.per_minute(frontend):.0f} requests a minute of {frontend}"
        yield Row("FAIL" if problem else "ok", "load", problem or load)

    def _leftovers(self) -> Iterator[Row]:
        state_dir = self._settings.state_dir()
        entries = list(Journal(state_dir).entries())
        if not entries:
            yield Row("ok", "journal", f"no fault is open in {state_dir}")
        for entry in entries:
            if isinstance(entry, Damaged):
                yield Row("FAIL", "journal", entry.sentence)
            else:
                yield Row(
                    "warn",
                    "journal",
                    f"{entry.faults} is {entry.state} at {entry.identity}, by {entry.owner.sentence}; "
                    f"{heal_command(state_dir)}",
                )
        owners = list(held(state_dir))
        if not owners:
            yield Row("ok", "lease", "nobody holds a system on this machine")
        for owner in owners:
            yield Row("warn", "lease", f"held by {owner.sentence}")


async def _surface(flags: SurfaceFlags) -> Row:
    """Return where flags are written, with the generation of a flagd-ui."""
    return Row("ok", "flags", await flags.surface.describe())


def _writable(control: str) -> Row:
    """Return whether the document could be replaced, as far as that can be told without writing."""
    kind, _, rest = control.partition(":")
    if kind == "file":
        path = Path(rest).expanduser()
        folder = path.resolve().parent
        if os.access(folder, os.W_OK | os.X_OK):
            return Row("ok", "writable", f"files in {folder} can be replaced")
        return Row(
            "FAIL", "writable", f"{folder} is not writable for this user; give it rights, or use flagd-ui:URL"
        )
    return Row("ok", "writable", f"not tried: {kind} tells only when it is written to")


def _release(found: Found) -> Row:
    comparison = found.comparison
    alike = f", like {', '.join(comparison.alike)}" if comparison.alike else ""
    kinds = [item for item in comparison.differences if item.kind != "default"]
    detail = f"{found.demo} by {len(found.flags)} flags{alike}"
    if not kinds:
        return Row("ok", "demo", detail)
    shown = "; ".join(f"{item.flag}: {item.kind}, {item.found} for {item.expected}" for item in kinds[:5])
    more = f" and {len(kinds) - 5} more" if len(kinds) > 5 else ""
    return Row("warn", "demo", f"{detail}; other than shipped: {shown}{more} (otel-diag catalog check)")


def _served(flags: SurfaceFlags, seen: Overview) -> Iterator[Row]:
    if seen.unserved:
        yield Row("FAIL", "served", seen.unserved)
    else:
        odd = [row for row in seen.rows if not row.agrees]
        told = "; ".join(f"{row.flag}: {row.why}" for row in odd[:5])
        yield Row(
            "FAIL" if odd else "ok",
            "served",
            f"{flags.reader.name}: {told or f'{len(seen.rows)} flags as they are written'}",
        )


def _placement(opened: Opened) -> Iterator[Row]:
    spread = [table for table in opened.tables if table.distributed]
    for table in spread:
        if table.name == "otel_traces":
            whole = table.traces == "whole on a shard"
            yield Row(
                "ok" if whole else "warn",
                "cluster",
                f"{table.database}.{table.name} asks {table.local} on {table.cluster}, sharded by "
                f"{table.sharding_key or 'nothing that is told'}: traces are {table.traces}"
                + ("" if whole else "; ask the Distributed table, statements over local ones would be wrong"),
            )


def _tables(schema: TelemetrySchema) -> Iterator[Row]:
    there = [table for table in schema.tables if table in _NEEDED]
    lost = {
        table: [name for name in _NEEDED[table] if not schema.has(table, name)]
        for table in there
        if not schema.has(table, *_NEEDED[table])
    }
    if "otel_traces" not in there:
        yield Row("FAIL", "tables", f"database {schema.database!r} has no otel_traces")
    for table, names in lost.items():
        yield Row("FAIL", "columns", f"{table} lacks {', '.join(names)}: is it the exporter's table?")
    if not lost:
        yield Row("ok", "tables", f"{', '.join(sorted(schema.tables))}")
