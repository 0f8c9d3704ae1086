"""The target ``live``: a running OpenTelemetry Demo, in wall time.

Flags are written where ``--otel-diag-flags`` says and evaluated where services get them
(``--otel-diag-flagd``), by default both behind the demo's frontend. Telemetry comes from a ClickHouse server
that the collector fills, or from a receiver in this process (see ``store``). A lease allows one session at a
time, across processes and hosts. A journal and a guardian process undo every fault, whatever happens to this
process (see ``undo``).
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator, Iterator, Mapping, Sequence
from contextlib import AbstractAsyncContextManager, AsyncExitStack, asynccontextmanager, suppress
from dataclasses import replace
from importlib import metadata
from random import Random
from typing import Self

from pytest_otel_diag import catalog
from pytest_otel_diag.config.settings import Settings
from pytest_otel_diag.errors import ConfigurationError, FlagError, ScenarioError, nearest
from pytest_otel_diag.flags.access import open_flags
from pytest_otel_diag.flags.controller import SurfaceFlags
from pytest_otel_diag.flags.own_requests import TRACE_ID
from pytest_otel_diag.flags.surface import FlagAddress
from pytest_otel_diag.model.flags import Flag
from pytest_otel_diag.model.scenario import Disturbance, Environment, Fault, Scenario, Timing
from pytest_otel_diag.model.windows import Window
from pytest_otel_diag.ports import FlagController, TargetSession, Traffic, report_waiting
from pytest_otel_diag.secret import SecretText
from pytest_otel_diag.targets.live.clock import LiveClock, measured
from pytest_otel_diag.targets.live.flags import Found, LiveDocument, reader
from pytest_otel_diag.targets.live.options import WAITING, LiveOptions
from pytest_otel_diag.targets.live.preflight import Condition, ready
from pytest_otel_diag.targets.live.reference import FirstChange, Reference
from pytest_otel_diag.targets.live.residue import Residue, RestartCommand
from pytest_otel_diag.targets.live.store import Opened, telemetry_source
from pytest_otel_diag.targets.live.traffic import LiveTraffic, NoDriving
from pytest_otel_diag.targets.private import held
from pytest_otel_diag.telemetry.leaks import Hidden
from pytest_otel_diag.telemetry.session import StoreTelemetry
from pytest_otel_diag.undo.heal import heal_command
from pytest_otel_diag.undo.owner import Owner
from pytest_otel_diag.undo.session import guarded
from pytest_otel_diag.undo.settings import UndoSettings

ANSWER_TIMEOUT_S = 15.0
"""Limit of one request to the flags in the preflight."""

_FRONTEND = "frontend"
_ALONE = "main"
_READ_BACK_S = 60.0
_DEADLINE_SLACK_S = 900.0
"""Added to the longest duration of a session, so that slow answers do not end a fault too early."""

log = logging.getLogger("pytest_otel_diag.live")


def access_of(settings: Settings) -> FlagAddress:
    """Return the access to the flags that the settings name."""
    frontend = settings.frontend.reveal().rstrip("/")
    return FlagAddress(
        control=settings.flags or SecretText(f"flagd-ui:{frontend}/feature"),
        served=settings.flagd or SecretText(f"flagd:{frontend}/flagservice"),
    )


class LiveTarget:
    """A running demo as a target; connects on first use.

    Raises ConfigurationError for options that are invalid or contradict each other.
    """

    name = "live"
    exclusive = True
    seeded = False

    def __init__(self, options: LiveOptions, settings: Settings, *, worker: str = "main") -> None:
        self._options = options
        self._settings = settings
        self._worker = worker
        self.access = access_of(settings)
        self.source = telemetry_source(settings.store.reveal(), settings.otlp_receiver, worker=worker)
        self.document = LiveDocument(reader(self.access), demo=options.demo)
        self._reference = Reference(options.reference_s)
        self._restart = RestartCommand(settings.restart.reveal()) if settings.restart else None
        self._redact = settings.leaks == "redact"

    @classmethod
    def from_settings(cls, rest: str, *, settings: Settings, worker: str) -> Self:
        """Return the target for ``demo=3.0,fresh_s=30``, each part optional; see LiveOptions."""
        return cls(LiveOptions.parse(rest), settings, worker=worker)

    def close(self) -> None:
        """Release store and receiver; a later session opens them again."""
        self.source.close()

    @property
    def identity(self) -> object:
        """The target itself."""
        return self

    def describe(self) -> Mapping[str, str]:
        """Return the name, the release of the demo by its flags, and where flags and telemetry are."""
        facts = {
            "name": self.name,
            "version": metadata.version("pytest-otel-diag"),
            "source": f"OpenTelemetry Demo at {self._settings.frontend}",
            "flags": str(self.access.control),
            "served_by": str(self.access.served),
            "store": self.source.name,
        }
        try:
            found = self.document.found()
        except FlagError as error:
            return {**facts, "demo": f"unknown: {error}"}
        comparison = found.comparison
        facts["demo"] = found.demo
        if comparison.guessed:
            facts["demo_found_by"] = f"{len(found.flags)} flags, {len(comparison.differences)} differences"
        if comparison.alike:
            facts["demo_alike"] = ", ".join(comparison.alike)
        return facts

    def scenarios(self) -> tuple[Scenario, ...]:
        """Return the catalog's scenarios for the system's flags; raises FlagError when unreachable."""
        found = self.document.found()
        known = catalog.scenarios(found.demo)
        return tuple(_as_found(one) for one in known if all(f.flag in found.flags for f in one.faults))

    def scenario_for(self, faults: Sequence[Fault]) -> Scenario | None:
        """Return the catalog's scenario of the faults together; None when it does not know one of them.

        Without faults, return a control that lasts as long as faults do, so that its duration reveals
        nothing.
        """
        demo = self.document.demo
        with suppress(ConfigurationError):
            return _as_found(catalog.together(faults, demo) if faults else catalog.controls(demo)[0])
        return None

    def validate(self, scenario: Scenario) -> tuple[str, ...]:
        """Return the reasons why this system cannot run a scenario, judged by its real flags."""
        try:
            found = self.document.found()
        except FlagError as error:
            return (f"scenario {scenario.id!r}: the flags of the live system cannot be read: {error}",)
        return tuple(self._mistakes(scenario, found))

    def _mistakes(self, scenario: Scenario, found: Found) -> Iterator[str]:
        wanted = scenario.environment.demo
        if wanted is not None and wanted not in {found.demo, *found.comparison.alike}:
            yield (
                f"scenario {scenario.id!r} is for the demo {wanted}, this one is {found.demo} by its flags; "
                "omit the release, or set live:demo=… if the flags are misleading"
            )
        possible = {"restart"} if self._restart is not None else set()
        kinds = sorted({each.kind for each in scenario.disturbances} - possible)
        if kinds:
            yield (
                f"scenario {scenario.id!r} has disturbances that a live system cannot produce on demand: "
                f"{', '.join(kinds)}; run it on the target shop"
                + ("" if self._restart else " (restart needs --otel-diag-restart)")
            )
        for fault in scenario.faults:
            flag = found.flags.get(fault.flag)
            if flag is None:
                yield (
                    f"the live system has no flag {fault.flag!r}{nearest(fault.flag, found.flags)}; it has "
                    f"{', '.join(found.flags) or 'none'} (demo {found.demo} by its flags)"
                )
                continue
            yield from _variant_mistakes(fault, flag)

    def open(self, scenario: Scenario, session_id: str) -> AbstractAsyncContextManager[TargetSession]:
        """Open the system for one session, after lease, healing and preflight.

        Raises ScenarioError for the objections of :meth:`validate`, Occupied while another run holds the
        system, NotReady when telemetry or traffic is missing, FlagError and TelemetryError.
        """
        return self._session(scenario, session_id)

    @asynccontextmanager
    async def _session(self, scenario: Scenario, session_id: str) -> AsyncIterator[TargetSession]:
        mistakes = await asyncio.to_thread(self.validate, scenario)
        if mistakes:
            raise ScenarioError("; ".join(mistakes))
        clock = LiveClock()
        async with AsyncExitStack() as stack:
            inner = open_flags(self.access, now=clock.now)
            stack.push_async_callback(inner.aclose)
            try:
                flags = await stack.enter_async_context(self._guarded(inner, scenario, session_id))
                found = await self._flags_answer(flags)
                opened, condition, quiet = await self._telemetry_flows(clock, found)
            finally:
                report_waiting("")
            begun_ns, first_change = clock.now(), FirstChange(flags, clock)
            hidden = Hidden(flags=tuple(found.flags) if self._redact else None, trace_id=TRACE_ID)
            views = held(lambda: opened.session(clock.now, begun_ns, quiet, hidden), _closed)
            telemetry = await stack.enter_async_context(views)
            traffic = await self._traffic(stack, scenario, session_id, flags)
            provenance = self._provenance(found, opened, clock, condition)
            try:
                made = self._made(clock, first_change, telemetry, traffic, found, provenance)
                yield replace(
                    made,
                    reference=quiet,
                    undo_timeout_s=_undo_timeout_s(inner),
                    redacted=self._redact,
                )
                if first_change.first_ns is not None:  # otherwise nothing says that the baseline was quiet
                    self._reference.add(begun_ns, first_change.first_ns)
            finally:
                provenance["driven"] = ", ".join(
                    f"{count} x {outcome}" for outcome, count in sorted(traffic.counts.items())
                )
                counts = self.source.counts()
                if counts is not None:
                    provenance["received"] = "; ".join(counts.lines())

    def _made(
        self,
        clock: LiveClock,
        flags: FlagController,
        telemetry: StoreTelemetry,
        traffic: Traffic,
        found: Found,
        provenance: Mapping[str, str],
    ) -> TargetSession:
        return TargetSession(
            clock=clock,
            flags=flags,
            telemetry=telemetry,
            exporter=telemetry.exporter,
            traffic=traffic,
            provenance=provenance,
            disturb=self._disturb if self._restart is not None else None,
            normal=found.normal,
            residue=Residue(found.demo, self._restart),
            restart=self._restarted,
            recovery_command=heal_command(self._settings.state_dir()),
        )

    def _guarded(
        self, inner: SurfaceFlags, scenario: Scenario, session_id: str
    ) -> AbstractAsyncContextManager[FlagController]:
        settings = self._settings
        worker = "" if self._worker == _ALONE else self._worker
        return guarded(
            inner,
            owner=Owner.here(now_ns=LiveClock().now(), session_id=session_id, worker=worker),
            state_dir=settings.state_dir(),
            settings=UndoSettings(
                lease_wait_s=settings.lease_wait_s,
                deadline_s=deadline_s(scenario.timing, settings.session_timeout_s),
                keep=settings.skip_cleanup,
                target=self.name,
            ),
            notify=_notify,
        )

    async def _flags_answer(self, flags: FlagController) -> Found:
        """Read the document and evaluate one flag."""
        try:
            async with asyncio.timeout(ANSWER_TIMEOUT_S):
                found = self.document.take(await flags.document())
                probe = next((key for key, flag in found.flags.items() if flag.enabled), None)
                if probe is not None:
                    await flags.served(probe, {})
        except TimeoutError:
            raise FlagError(
                f"flags written at {self.access.control} and served at {self.access.served} did not answer "
                f"within {ANSWER_TIMEOUT_S:g} s; otel-diag doctor --target live shows which of the two"
            ) from None
        return found

    async def _telemetry_flows(
        self, clock: LiveClock, found: Found
    ) -> tuple[Opened, Condition, tuple[Window, ...]]:
        """Open the store, correct the clock, and wait for fresh telemetry with requests."""
        opened = await asyncio.to_thread(self.source.open)
        if not self.source.own:
            offset = await asyncio.to_thread(measured, opened.store.clock_ns)
            if offset.matters:
                log.warning(
                    "the store's clock differs from this host's by %s; sessions use the store's", offset
                )
                clock.offset_ns = offset.offset_ns
        everything = await asyncio.to_thread(opened.everything)
        try:
            condition = await ready(
                everything,
                clock,
                self._options,
                frontend=catalog.service(_FRONTEND, found.demo),
                source=self._source_name(opened),
                notify=_notify,
            )
            quiet = await self._reference.windows(everything, clock, _notify)
        finally:
            everything.close()
        return opened, condition, quiet

    def _source_name(self, opened: Opened) -> str:
        receiving = self.source.receiving()
        if receiving:
            places = ", ".join(f"{kind} {address}" for kind, address in receiving.items())
            return f"the OTLP receiver of this run ({places})"
        return f"database {opened.database!r} of {opened.store.dsn}"

    async def _traffic(
        self, stack: AsyncExitStack, scenario: Scenario, session_id: str, flags: FlagController
    ) -> LiveTraffic | NoDriving:
        if not self._settings.drive:
            return NoDriving()
        rng = Random(f"{session_id}/{self._settings.seed}")  # noqa: S311 - chooses customers, no secret
        named = [fault.flag for fault in scenario.faults]
        frontend, rate = self._settings.frontend.reveal(), self._options.rate
        traffic = LiveTraffic(frontend, flags=named, served=flags.served, rng=rng, rate=rate)
        return await stack.enter_async_context(traffic)

    async def _restarted(self, service: str) -> str:
        """Restart the service with the user's command; return why that failed, '' on success."""
        if self._restart is None:
            return "no command for that is set, see --otel-diag-restart"
        return await self._restart.run(service)

    async def _disturb(self, disturbance: Disturbance) -> None:
        """Restart the service; raises FlagError when the command fails."""
        assert self._restart is not None and disturbance.service is not None, "refused by validate"
        problem = await self._restart.run(disturbance.service)
        if problem:
            raise FlagError(f"{disturbance.service} was not restarted: {problem}")

    def _provenance(
        self, found: Found, opened: Opened, clock: LiveClock, condition: Condition
    ) -> dict[str, str]:
        frontend = catalog.service(_FRONTEND, found.demo)
        return {
            "demo": found.demo,
            "flags": str(self.access.control),
            "served_by": str(self.access.served),
            **opened.describe(),
            "views": "from the beginning of the session to the present"
            if opened.isolated
            else "none: the user is read-only",
            "clock_offset_s": f"{clock.offset_ns / 1e9:.3f}",
            "requests_per_minute": f"{condition.per_minute(frontend):.1f}",
        }


def _undo_timeout_s(flags: SurfaceFlags) -> float:
    """Return how long an undo may take, in seconds: two writes and the reads after them."""
    return 2 * flags.surface.write_timeout_s + _READ_BACK_S


def deadline_s(timing: Timing, session_timeout_s: float | None) -> float:
    """Return after how many seconds the guardian undoes a fault: longer than any session takes."""
    longest = (
        timing.baseline_s
        + timing.guard_s
        + timing.impact_timeout_s
        + timing.observe_s
        + timing.analyze_timeout_s
        + timing.recover_timeout_s
    )
    return (longest if session_timeout_s is None else min(longest, session_timeout_s)) + _DEADLINE_SLACK_S


def _notify(text: str) -> None:
    """Log the text; what the session waits for is also reported to it."""
    log.warning("%s", text)
    if text.startswith(WAITING):
        report_waiting(text.removeprefix(WAITING))


def _closed(telemetry: StoreTelemetry | None) -> None:
    if telemetry is not None:
        telemetry.close()


def _as_found(scenario: Scenario) -> Scenario:
    """Return the scenario without its environment, which only a simulated system can adopt."""
    return scenario.model_copy(update={"environment": Environment()})


def _variant_mistakes(fault: Fault, flag: Flag) -> Iterator[str]:
    for variant in (fault.variant, *(step.variant for step in fault.steps)):
        if variant is not None and variant not in flag.variants:
            yield (
                f"flag {fault.flag!r} of the live system has no variant {variant!r}"
                f"{nearest(variant, flag.variants)}; it has {', '.join(flag.variants)}"
            )
