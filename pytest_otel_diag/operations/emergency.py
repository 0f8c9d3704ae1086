"""Emergency stop: ends the runs that hold a system, restores their faults and sets every flag to off."""

from __future__ import annotations

import asyncio
import signal
import time
from collections.abc import AsyncIterator, Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from pytest_otel_diag.errors import FlagError, OtelDiagError
from pytest_otel_diag.flags.access import open_flags
from pytest_otel_diag.flags.surface import FlagAddress
from pytest_otel_diag.model.flags import Flag, FlagChange, FlagValue
from pytest_otel_diag.ports import FlagController
from pytest_otel_diag.sessions.faults.targeting import probes_of
from pytest_otel_diag.undo.heal import Liveness, Opener, liveness
from pytest_otel_diag.undo.journal import Entry, Journal, State
from pytest_otel_diag.undo.lease import lease_holders
from pytest_otel_diag.undo.owner import Owner
from pytest_otel_diag.undo.processes import Process

OFF = "off"
_POLL_S = 0.2
_SERVED_S = 30.0


@dataclass(frozen=True)
class StopRequested:
    """A process of a run was asked to end, or could not be."""

    pid: int
    outcome: Literal["asked to end", "not permitted", "unreachable"]
    owner: Owner


@dataclass(frozen=True)
class StillRunning:
    """A run did not end in time."""

    owner: Owner


StopEvent = StopRequested | StillRunning


@dataclass(frozen=True)
class FlagSwitched:
    """What became of a flag: ``detail`` says why it may still be on."""

    flag: str
    outcome: Literal["was off", "switched off", "may be on"]
    detail: str = ""

    @property
    def off(self) -> bool:
        """Whether the flag is known to be served as off."""
        return self.outcome != "may be on"


async def stop_runs(state_dir: Path, *, wait_s: float) -> AsyncIterator[StopEvent]:
    """Ask every run that holds a system or has an open fault to end; yield what is done, then who still runs.

    Runs of this machine get SIGTERM, upon which they undo their faults, and so does the parent that would
    start another worker in their place. Waits up to *wait_s* seconds for them to end. Runs of other hosts
    cannot be reached.
    """
    until_s = time.monotonic() + wait_s
    asked: set[Process] = set()
    while running := _running(state_dir):
        for owner in running:
            for event in _ask_to_end(owner, asked):
                yield event
        if time.monotonic() > until_s:
            break
        await asyncio.sleep(_POLL_S)
    for owner in running:
        yield StillRunning(owner)


def _running(state_dir: Path) -> list[Owner]:
    """Return the owner of every held lease and open fault whose process is alive, without this process."""
    me = Process.this()
    open_faults = [entry.owner for entry in _open(state_dir) if liveness(entry.owner) is not Liveness.DEAD]
    owners = [*lease_holders(state_dir), *open_faults]
    found = {owner.process: owner for owner in owners if owner.process != me}
    return [owner for process, owner in found.items() if process.alive is not False]


def _open(state_dir: Path) -> Iterator[Entry]:
    for each in Journal(state_dir).entries():
        if isinstance(each, Entry) and each.state is not State.KEPT:
            yield each


def _ask_to_end(owner: Owner, asked: set[Process]) -> Iterator[StopRequested]:
    for process in (owner.parent, owner.process):
        if process is None or process in asked:
            continue
        asked.add(process)
        try:
            sent = process.send(signal.SIGTERM)
        except PermissionError:
            yield StopRequested(process.pid, "not permitted", owner)
            continue
        yield StopRequested(process.pid, "asked to end" if sent else "unreachable", owner)


async def switch_all_off(access: FlagAddress, *, opener: Opener = open_flags) -> AsyncIterator[FlagSwitched]:
    """Set every flag that has an ``off`` variant to it, read it back, and yield what became of it.

    Raises FlagError when the flags cannot be read at all.
    """
    flags = opener(access, now=time.time_ns)
    try:
        document = await flags.document()
        for flag in document.flags.values():
            if OFF in flag.variants and flag.enabled:
                yield await _switch_off(flag, flags)
    finally:
        await flags.aclose()


async def _switch_off(flag: Flag, flags: FlagController) -> FlagSwitched:
    others = [name for name in flag.variants if name != OFF]
    on = flag.default_variant != OFF or _names_any(flag.targeting, others)
    try:
        for context in _contexts(flag) if on else ():
            await flags.apply(FlagChange(key=flag.key, variant=OFF, context=context))
        for context in _contexts(flag):
            served = await _served(flag, flags, context)
            if served != OFF:
                found = f"flagd serves {served or 'nothing'!r} after {_SERVED_S:g} s"
                return FlagSwitched(flag.key, "may be on", found + (f" for {context}" if context else ""))
    except OtelDiagError as error:
        return FlagSwitched(flag.key, "may be on", str(error))
    return FlagSwitched(flag.key, "switched off" if on else "was off")


def _contexts(flag: Flag) -> list[dict[str, FlagValue]]:
    """Return the contexts that the flag distinguishes, the empty one first."""
    found: list[dict[str, FlagValue]] = [{}]
    found.extend(probe for probe in probes_of(flag.targeting) if probe not in found)
    return found


async def _served(flag: Flag, flags: FlagController, context: Mapping[str, FlagValue]) -> str:
    """Return the variant that is served once it is off, or the last one when the time is up."""
    until_s = time.monotonic() + _SERVED_S
    variant = ""
    while time.monotonic() < until_s:
        with suppress(FlagError):
            variant = (await flags.served(flag.key, context)).variant
        if variant == OFF:
            break
        await asyncio.sleep(_POLL_S)
    return variant


def _names_any(rule: object, variants: list[str]) -> bool:
    """Return whether a targeting rule names one of the variants anywhere."""
    if isinstance(rule, dict):
        return any(_names_any(part, variants) for part in rule.values())
    if isinstance(rule, list):
        return any(_names_any(part, variants) for part in rule)
    return rule in variants
