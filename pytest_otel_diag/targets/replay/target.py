"""The target ``replay``: recorded incidents in virtual time, with the recorded fault as a flag."""

from __future__ import annotations

import os
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import AbstractAsyncContextManager, ExitStack, asynccontextmanager
from functools import cached_property, partial
from pathlib import Path
from typing import Literal, Self

from pytest_otel_diag.config.settings import Settings
from pytest_otel_diag.errors import ScenarioError, nearest
from pytest_otel_diag.flags.memory import MemoryFlags
from pytest_otel_diag.model.base import Nanos
from pytest_otel_diag.model.flags import Flag, FlagChange, FlagValue, ServedFlag
from pytest_otel_diag.model.scenario import Environment, Fault, Scenario
from pytest_otel_diag.model.windows import Window
from pytest_otel_diag.ports import TargetSession
from pytest_otel_diag.recordings.format.manifest import SCHEMA_VERSION
from pytest_otel_diag.recordings.format.reader import Recording
from pytest_otel_diag.recordings.library import open_recordings
from pytest_otel_diag.targets.clock import VirtualClock
from pytest_otel_diag.targets.private import held
from pytest_otel_diag.targets.replay.recording_store import MEMORY_DSN, RecordingStore, shared_store
from pytest_otel_diag.targets.replay.telemetry import ReplayedTelemetry
from pytest_otel_diag.targets.replay.timeline import (
    Replay,
    replay_of_control,
    replay_of_incident,
    scenario_of,
)
from pytest_otel_diag.telemetry.leaks import NOTHING_HIDDEN, Hidden

OFF = "off"
Reference = Literal["recording", "past"]


class RecordedFlag(MemoryFlags):
    """The recorded fault as a flag: setting it waits, in virtual time, for the recorded start.

    Before that instant it serves ``off`` in any case, so the witness sees the recorded state.
    """

    def __init__(self, flag: Flag, starts_ns: Nanos, clock: VirtualClock) -> None:
        super().__init__([flag], now=clock.now)
        self._starts_ns = starts_ns
        self._clock = clock

    async def apply(self, change: FlagChange) -> None:
        """Set the flag and wait for the recorded start."""
        await super().apply(change)
        if change.variant != OFF:
            await self._clock.sleep_until(self._starts_ns)

    async def served(self, key: str, context: Mapping[str, FlagValue]) -> ServedFlag:
        """Return the variant that was served at the virtual instant."""
        answer = await super().served(key, context)
        if self._clock.now() >= self._starts_ns:
            return answer
        return self.answer((await self.document()).flags[key], OFF)


class NoTraffic:
    """Traffic of a recording, which cannot be driven."""

    async def drive(self, services: Sequence[str], calls: int) -> int:  # noqa: ARG002 - the port
        """Send no request."""
        return 0

    def made(self) -> int:
        """Return 0."""
        return 0


class ReplayTarget:
    """Recorded incidents and controls as a target.

    *paths* are recordings, importable folders, or folders of these. *store_dsn* is the store that telemetry
    is loaded into; empty means the cache folder, where the next start finds it, or memory while another
    process uses the cache. *worker* separates parallel processes on disk. ``reference`` "past" leaves out
    quiet windows after a session, as in a live system. With *redact*, sessions see no evaluations of flags.

    Recordings are read when they are needed. Raises RecordingError for recordings that cannot be read.
    """

    name = "replay"
    exclusive = False
    seeded = False

    def __init__(
        self,
        paths: Sequence[Path],
        *,
        store_dsn: str,
        cache_dir: Path,
        worker: str = "",
        reference: Reference = "recording",
        redact: bool = False,
    ) -> None:
        self._paths = tuple(paths)
        self._cache_dir = cache_dir.absolute()
        self._dsns = (store_dsn,) if store_dsn else (f"chdb://{self._store_path(worker)}", MEMORY_DSN)
        self._reference = reference
        self._redact = redact
        self._resources = ExitStack()

    @classmethod
    def from_settings(cls, rest: str, *, settings: Settings, worker: str) -> Self:
        """Return the target for ``PATH`` or ``replay:PATH``; join several by the path separator."""
        paths = [Path(part).expanduser() for part in rest.removeprefix("replay:").split(os.pathsep) if part]
        if not paths:
            raise ScenarioError("the target replay needs a recording; write replay:PATH")
        return cls(
            paths,
            store_dsn=settings.store.reveal(),
            cache_dir=settings.cache_dir(),
            worker=worker,
            redact=settings.leaks == "redact",
        )

    @cached_property
    def recordings(self) -> tuple[Recording, ...]:
        """The recordings below the paths; the first access may import them, which takes seconds."""
        return open_recordings(self._paths, self._cache_dir)

    @cached_property
    def _replays(self) -> Mapping[str, Replay]:
        replays: dict[str, Replay] = {}
        for recording in self.recordings:
            manifest = recording.manifest
            found = [replay_of_incident(recording, incident) for incident in manifest.incidents]
            found.extend(replay_of_control(recording, control) for control in manifest.controls)
            for replay in found:
                if replay.id in replays:
                    first = replays[replay.id].recording.folder
                    raise ScenarioError(
                        f"{replay.id!r} is in {first} and in {recording.folder}; name only one of the two"
                    )
                replays[replay.id] = replay
        return replays

    @cached_property
    def _store(self) -> RecordingStore:
        return self._resources.enter_context(shared_store(self._dsns, self._cache_dir))

    @property
    def identity(self) -> object:
        """The target itself."""
        return self

    def describe(self) -> Mapping[str, str]:
        """Return name, format version and the recordings with their hashes."""
        sources = {f"recording.{r.manifest.id}": r.sha256 for r in self.recordings}
        return {
            "name": self.name,
            "version": f"recording format {SCHEMA_VERSION}",
            "source": "; ".join(sorted({r.manifest.source.title for r in self.recordings})),
            "reference": self._reference,
            **sources,
        }

    def scenarios(self) -> tuple[Scenario, ...]:
        """Return one scenario per incident and control, in the order of the recordings."""
        return self._scenarios

    @cached_property
    def _scenarios(self) -> tuple[Scenario, ...]:
        return tuple(scenario_of(replay) for replay in self._replays.values())

    def scenario_for(self, faults: Sequence[Fault]) -> Scenario | None:
        """Return the scenario of the recorded incident with this fault."""
        if len(faults) != 1:
            return None
        known = {scenario.faults[0].flag: scenario for scenario in self._scenarios if scenario.faults}
        scenario = known.get(faults[0].flag)
        if scenario is None or faults[0].variant is None:
            return scenario
        return scenario.model_copy(update={"faults": tuple(faults)})

    def validate(self, scenario: Scenario) -> tuple[str, ...]:
        """Return the reasons why the scenario cannot be replayed, with the nearest spellings."""
        impossible = [
            what
            for what, asked in (
                ("schedules of faults", any(fault.scheduled for fault in scenario.faults)),
                ("disturbances", bool(scenario.disturbances)),
                ("environments", scenario.environment != Environment()),
            )
            if asked
        ]
        if impossible:
            return (f"scenario {scenario.id!r} has {', '.join(impossible)}; the past cannot be changed",)
        if len(scenario.faults) > 1:
            return (
                f"scenario {scenario.id!r} has {len(scenario.faults)} faults; a recorded incident has one",
            )
        wanted, known = self._lookup(scenario)
        if wanted not in known:
            hint = f"{nearest(wanted, known)}; choose from {', '.join(sorted(known)) or 'none'}"
            return (f"no recorded incident {wanted!r}{hint}" if scenario.faults else _unnamed(wanted, hint),)
        incident = known[wanted].incident
        variant = scenario.faults[0].variant if scenario.faults else None
        if incident is not None and variant not in {None, incident.variant}:
            return (f"incident {wanted!r} was recorded with variant {incident.variant!r}, not {variant!r}",)
        return ()

    def open(
        self,
        scenario: Scenario,
        session_id: str,  # noqa: ARG002 - the port; nothing the analyzer sees may be named after it
    ) -> AbstractAsyncContextManager[TargetSession]:
        """Open one incident or control; its telemetry is loaded if necessary.

        The clock starts at the session's baseline. Raises ScenarioError for scenarios that :meth:`validate`
        rejects, RecordingError and TelemetryError when loading fails.
        """
        return self._session(scenario)

    @asynccontextmanager
    async def _session(self, scenario: Scenario) -> AsyncIterator[TargetSession]:
        mistakes = self.validate(scenario)
        if mistakes:
            raise ScenarioError("; ".join(mistakes))
        wanted, known = self._lookup(scenario)
        replay = known[wanted]
        session = replay.session(scenario.timing)
        reference = replay.reference(scenario.timing, past_only=self._reference == "past")
        clock = VirtualClock(session.start_ns)
        opening = partial(self._telemetry, replay, scenario, clock, reference)
        async with held(opening, _release) as (_, telemetry):
            yield TargetSession(
                clock=clock,
                flags=_flags(replay, clock),
                telemetry=telemetry,
                traffic=NoTraffic(),
                reference=reference,
                provenance=self._provenance(replay),
                redacted=self._redact,
            )

    def _telemetry(
        self, replay: Replay, scenario: Scenario, clock: VirtualClock, reference: Sequence[Window]
    ) -> tuple[RecordingStore, ReplayedTelemetry]:
        loaded = self._store
        return loaded, ReplayedTelemetry.open(
            loaded.store,
            loaded.database_of(replay.recording),
            clock=clock,
            own=replay.visible(scenario.timing),
            reference=reference,
            hidden=Hidden(flags=replay.recording.manifest.flags) if self._redact else NOTHING_HIDDEN,
        )

    def close(self) -> None:
        """Release the store; a later session opens it again."""
        self._resources.close()
        self.__dict__.pop("_store", None)

    def load(self) -> None:
        """Load all recordings now (blocking); otherwise sessions load them on demand."""
        for recording in self.recordings:
            self._store.database_of(recording)

    def _lookup(self, scenario: Scenario) -> tuple[str, Mapping[str, Replay]]:
        """Return the id that the scenario requests and the available replays."""
        faulty = bool(scenario.faults)
        known = {
            key: replay for key, replay in self._replays.items() if (replay.incident is not None) == faulty
        }
        return (scenario.faults[0].flag if faulty else scenario.id), known

    def _provenance(self, replay: Replay) -> dict[str, str]:
        manifest = replay.recording.manifest
        return {
            "recording": manifest.id,
            "recording_sha256": replay.recording.sha256,
            "recording_source": manifest.source.title,
            "recording_licence": manifest.source.licence,
            "reference": self._reference,
        }

    def _store_path(self, worker: str) -> Path:
        return self._cache_dir / "stores" / (worker or "main")


def _release(opened: tuple[RecordingStore, ReplayedTelemetry] | None) -> None:
    if opened is None:
        return  # a failed opening leaves nothing behind
    loaded, telemetry = opened
    try:
        telemetry.close()
    finally:
        loaded.discard(telemetry.database)


def _unnamed(wanted: str, hint: str) -> str:
    return (
        f"no recorded control {wanted!r}: a recording has several controls; "
        'name one with otel_scenario(id), or take them all with otel_recorded("controls")' + hint
    )


def _flags(replay: Replay, clock: VirtualClock) -> MemoryFlags:
    incident = replay.incident
    if incident is None:
        return MemoryFlags([], now=clock.now)
    variants: dict[str, FlagValue] = {OFF: False, incident.variant: True}
    flag = Flag(key=incident.id, variants=variants, default_variant=OFF)
    return RecordedFlag(flag, replay.start_ns, clock)
