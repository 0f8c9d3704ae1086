"""Checks whether sessions would run on a live system: its flags, traffic, telemetry and leftovers.

Nothing is written to the system.
"""

from __future__ import annotations

import asyncio
import os
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import AsyncExitStack
from pathlib import Path

from pytest_otel_diag import catalog
from pytest_otel_diag.config.settings import Settings
from pytest_otel_diag.errors import ConfigurationError, FlagError, OtelDiagError
from pytest_otel_diag.flags.access import open_flags
from pytest_otel_diag.flags.controller import SurfaceFlags
from pytest_otel_diag.flags.http import HttpClient
from pytest_otel_diag.model.telemetry import SIGNAL_TABLES, TelemetrySchema
from pytest_otel_diag.operations.checks import CheckResult, CheckState
from pytest_otel_diag.operations.flag_overview import FlagOverview, overview
from pytest_otel_diag.targets.live.clock import TOLERATED_S, LiveClock, measured
from pytest_otel_diag.targets.live.flags import Found
from pytest_otel_diag.targets.live.options import LiveOptions
from pytest_otel_diag.targets.live.preflight import Condition, condition, lacking
from pytest_otel_diag.targets.live.store import Opened
from pytest_otel_diag.targets.live.target import LiveTarget
from pytest_otel_diag.telemetry.rights import excess
from pytest_otel_diag.telemetry.schema import NEEDED
from pytest_otel_diag.telemetry.session import StoreTelemetry
from pytest_otel_diag.undo.heal import heal_command
from pytest_otel_diag.undo.journal import Damaged, Entry, Journal
from pytest_otel_diag.undo.lease import lease_holders

RECEIVER_WAIT_S = 40.0
"""How long to wait for a first span: a collector that was refused retries within 30 s."""

_RIGHTS_SHOWN = 5
_METRICS_OLD_S = 180.0
"""Metrics are exported every minute; older ones are a warning."""


async def live_checks(
    rest: str, settings: Settings, *, receiver_wait_s: float = RECEIVER_WAIT_S
) -> AsyncIterator[CheckResult]:
    """Yield the checks of the live system of the settings; *rest* is what follows ``live:`` in the spec."""
    try:
        target = LiveTarget.from_settings(rest, settings=settings, worker="doctor")
        options = LiveOptions.parse(rest)
    except OtelDiagError as error:
        yield CheckResult("failed", "target", str(error))
        return
    try:
        async for check in _LiveChecks(target, options, settings, receiver_wait_s).all():
            yield check
    finally:
        target.close()


class _LiveChecks:
    def __init__(
        self, target: LiveTarget, options: LiveOptions, settings: Settings, receiver_wait_s: float
    ) -> None:
        self._target = target
        self._options = options
        self._settings = settings
        self._receiver_wait_s = receiver_wait_s
        self._listened_s = 0.0
        self._demo = target.document.demo if options.demo != "auto" else catalog.DEFAULT_DEMO

    async def all(self) -> AsyncIterator[CheckResult]:
        for part in (self._frontend(), self._flags(), self._telemetry()):
            async for check in part:
                yield check
        for check in self._leftovers():
            yield check

    async def _frontend(self) -> AsyncIterator[CheckResult]:
        url, needed = self._settings.frontend, self._settings.drive
        try:
            client = HttpClient(url.reveal(), remedy="give its address with --otel-diag-frontend")
        except ConfigurationError as error:  # httpx is not installed, or this is no address
            yield CheckResult("failed" if needed else "warning", "frontend", str(error))
            return
        try:
            answer = await client.get("")
            fine = answer.status < 500
            yield CheckResult("ok" if fine else "warning", "frontend", f"{url} answers {answer.status}")
        except FlagError as error:
            hint = "" if needed else " (traffic is not driven, so it may be down)"
            yield CheckResult("failed" if needed else "warning", "frontend", f"{error}{hint}")
        finally:
            await client.aclose()

    async def _flags(self) -> AsyncIterator[CheckResult]:
        async with AsyncExitStack() as stack:
            try:
                flags = open_flags(self._target.access, now=time.time_ns)
                stack.push_async_callback(flags.aclose)
                found_flags = await overview(flags)
            except OtelDiagError as error:
                yield CheckResult("failed", "flags", str(error))
                return
            found = self._target.document.take(found_flags.document)
            self._demo = found.demo
            yield await _surface(flags)
            yield _writable(self._target.access.control.reveal())
            yield _release(found)
            for check in _served(found_flags):
                yield check
            yield self._faults(found)

    def _faults(self, found: Found) -> CheckResult:
        """Report faults that are on and how to restore them."""
        on = [text for text in found.comparison.on if text.partition("=")[0] not in found.normal]
        if not on:
            return CheckResult("ok", "faults", "none is on")
        refused = f"{', '.join(on)}; a session refuses to start"
        if any(isinstance(entry, Entry) for entry in Journal(self._settings.state_dir()).entries()):
            return CheckResult("failed", "faults", f"{refused}; the journal check says how to restore it")
        one = on[0].partition("=")[0]
        return CheckResult(
            "failed",
            "faults",
            f"{refused}; no journal on this machine has it. Run otel-diag flags set {one} off, or otel-diag "
            "flags reset --all-off, and stop other clients that switch flags",
        )

    async def _telemetry(self) -> AsyncIterator[CheckResult]:
        try:
            opened = await asyncio.to_thread(self._target.source.open)
        except OtelDiagError as error:
            yield CheckResult("failed", "store", str(error))
            return
        yield CheckResult(
            "ok", "store", ", ".join(f"{name}={value}" for name, value in opened.describe().items())
        )
        if self._target.source.own:
            places = ", ".join(f"{kind} {where}" for kind, where in self._target.source.receiving().items())
            wait = f"waiting up to {self._receiver_wait_s:g} s for a collector to connect"
            yield CheckResult("ok", "receiver", f"listens on {places}; {wait}")
        clock = LiveClock()
        yield await self._clock(opened, clock)
        for check in _placement(opened):
            yield check
        if not self._target.source.own:
            yield await asyncio.to_thread(_rights, opened)
        telemetry = await asyncio.to_thread(opened.everything)
        try:
            for check in _tables(await telemetry.schema()):
                yield check
            for check in self._fresh(await self._condition(telemetry, clock)):
                yield check
        except OtelDiagError as error:
            yield CheckResult("failed", "telemetry", str(error))
        finally:
            telemetry.close()

    async def _clock(self, opened: Opened, clock: LiveClock) -> CheckResult:
        if self._target.source.own:
            return CheckResult(
                "ok", "clock", "this process receives the telemetry; its age shows clocks that differ"
            )
        offset = await asyncio.to_thread(measured, opened.store.clock_ns)
        if not offset.matters:
            return CheckResult("ok", "clock", f"the store's clock is ahead by {offset}")
        clock.offset_ns = offset.offset_ns
        return CheckResult(
            "warning",
            "clock",
            f"the store's clock is ahead by {offset}; sessions use it. Synchronise it with this machine's",
        )

    async def _condition(self, telemetry: StoreTelemetry, clock: LiveClock) -> Condition:
        """Return the telemetry's condition; where this process receives it, wait for a collector first."""
        begin_s = time.monotonic()
        deadline_s = begin_s + self._receiver_wait_s
        while True:
            await asyncio.to_thread(self._target.source.flush)
            found = await condition(telemetry, clock)
            self._listened_s = time.monotonic() - begin_s
            late = time.monotonic() >= deadline_s
            if late or not self._target.source.own or (set(found.newest_ns) >= {"traces", "logs"}):
                return found
            await asyncio.sleep(1.0)

    def _listened(self) -> str:
        """Return in which time telemetry was looked for: nothing came before this process listened."""
        if not self._target.source.own:
            return "the last hour"
        return f"the {self._listened_s:.0f} s since this process listens (metrics come once a minute)"

    def _fresh(self, found: Condition) -> Iterator[CheckResult]:
        allowed = {"traces": self._options.fresh_s, "logs": self._options.fresh_s, "metrics": _METRICS_OLD_S}
        for signal in SIGNAL_TABLES:
            age_s = found.age_s(signal)
            if age_s is None:
                state: CheckState = "failed" if signal == "traces" else "warning"
                yield CheckResult(
                    state,
                    f"{signal}",
                    f"none in {self._listened()}; faults that show only there cannot be detected",
                )
            elif age_s < -TOLERATED_S:
                yield CheckResult(
                    "warning", signal, f"the newest lies {-age_s:.1f} s in the future: clocks of hosts differ"
                )
            else:
                late = age_s > allowed[signal]
                yield CheckResult("warning" if late else "ok", signal, f"the newest is {age_s:.1f} s old")
        frontend = catalog.service("frontend", self._demo)
        problem = lacking(found, self._options, frontend=frontend, source=self._target.source.name)
        load = f"{found.per_minute(frontend):.0f} requests a minute of {frontend}"
        yield CheckResult("failed" if problem else "ok", "load", problem or load)

    def _leftovers(self) -> Iterator[CheckResult]:
        state_dir = self._settings.state_dir()
        entries = list(Journal(state_dir).entries())
        if not entries:
            yield CheckResult("ok", "journal", f"no fault is open in {state_dir}")
        for entry in entries:
            if isinstance(entry, Damaged):
                yield CheckResult("failed", "journal", entry.sentence)
            else:
                yield CheckResult(
                    "warning",
                    "journal",
                    f"{entry.faults} is {entry.state} at {entry.identity}, by {entry.owner.sentence}; "
                    f"{heal_command(state_dir)}",
                )
        owners = list(lease_holders(state_dir))
        if not owners:
            yield CheckResult("ok", "lease", "no run holds a system on this machine")
        for owner in owners:
            yield CheckResult("warning", "lease", f"held by {owner.sentence}")


async def _surface(flags: SurfaceFlags) -> CheckResult:
    """Report where flags are written, with the generation of a flagd-ui."""
    return CheckResult("ok", "flags", await flags.surface.describe())


def _writable(control: str) -> CheckResult:
    """Report whether the document can be replaced, as far as that shows without writing."""
    kind, _, rest = control.partition(":")
    if kind == "file":
        path = Path(rest).expanduser()
        folder = path.resolve().parent
        if os.access(folder, os.W_OK | os.X_OK):
            return CheckResult("ok", "writable", f"files in {folder} can be replaced")
        return CheckResult(
            "failed",
            "writable",
            f"{folder} is not writable for this user; grant write access, or use flagd-ui:URL",
        )
    return CheckResult("ok", "writable", f"not tried: {kind} shows it only when it is written to")


def _release(found: Found) -> CheckResult:
    comparison = found.comparison
    alike = f", like {', '.join(comparison.alike)}" if comparison.alike else ""
    kinds = [item for item in comparison.differences if item.kind != "default"]
    detail = f"{found.demo} by {len(found.flags)} flags{alike}"
    if not kinds:
        return CheckResult("ok", "demo", detail)
    shown = "; ".join(f"{item.flag}: {item.kind}, {item.found} for {item.expected}" for item in kinds[:5])
    more = f" and {len(kinds) - 5} more" if len(kinds) > 5 else ""
    return CheckResult(
        "warning", "demo", f"{detail}; not as shipped: {shown}{more} (otel-diag catalog check)"
    )


def _served(found: FlagOverview) -> Iterator[CheckResult]:
    if found.unserved:
        yield CheckResult("failed", "served", found.unserved)
        return
    odd = [row for row in found.rows if not row.agrees]
    shown = "; ".join(f"{row.flag}: {row.why}" for row in odd[:5])
    detail = shown or f"{len(found.rows)} flags as they are written"
    yield CheckResult("failed" if odd else "ok", "served", f"{found.served_by}: {detail}")


def _rights(opened: Opened) -> CheckResult:
    """Report what the store's user may do beyond what sessions need."""
    try:
        found = excess(opened.store.grants(), opened.database)
    except OtelDiagError as error:
        return CheckResult("warning", "rights", f"cannot be read: {error}")
    if not found:
        return CheckResult("ok", "rights", "the user of the store may do only what sessions need")
    shown = ", ".join(found[:_RIGHTS_SHOWN])
    more = f" and {len(found) - _RIGHTS_SHOWN} more" if len(found) > _RIGHTS_SHOWN else ""
    return CheckResult(
        "warning",
        "rights",
        f"the user of the store has rights that sessions do not need: {shown}{more}. A user of its own makes "
        "the server refuse what the check of statements might miss; docs/live.md shows how to create it",
    )


def _placement(opened: Opened) -> Iterator[CheckResult]:
    spread = [table for table in opened.tables if table.distributed]
    for table in spread:
        if table.name == "otel_traces":
            whole = table.traces == "whole on a shard"
            yield CheckResult(
                "ok" if whole else "warning",
                "cluster",
                f"{table.database}.{table.name} reads {table.local} on {table.cluster}, sharded by "
                f"{table.sharding_key or 'an unknown key'}: traces are {table.traces}"
                + ("" if whole else "; query the Distributed table, answers of local tables would be wrong"),
            )


def _tables(schema: TelemetrySchema) -> Iterator[CheckResult]:
    there = [table for table in schema.tables if table in NEEDED]
    lost = {
        table: [name for name in NEEDED[table] if not schema.has(table, name)]
        for table in there
        if not schema.has(table, *NEEDED[table])
    }
    if "otel_traces" not in there:
        yield CheckResult("failed", "tables", f"database {schema.database!r} has no otel_traces")
    for table, names in lost.items():
        yield CheckResult(
            "failed", "columns", f"{table} lacks {', '.join(names)}: is it the exporter's table?"
        )
    if not lost:
        yield CheckResult("ok", "tables", f"{', '.join(sorted(schema.tables))}")
