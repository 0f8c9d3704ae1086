"""Emergency stop: runs that hold an environment are told to end, faults are taken back, flags go off."""

from __future__ import annotations

import asyncio
import signal
import time
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

from pytest_otel_diag.errors import FlagError, OtelDiagError
from pytest_otel_diag.flags.surface import FlagAccess
from pytest_otel_diag.model.flags import Flag, FlagChange
from pytest_otel_diag.ports import FlagController
from pytest_otel_diag.undo.heal import Life, Opener, settled
from pytest_otel_diag.undo.journal import Entry, Journal, State
from pytest_otel_diag.undo.lease import Tell, held
from pytest_otel_diag.undo.owner import Owner
from pytest_otel_diag.undo.processes import Process

OFF = "off"
_POLL_S = 0.2
_SERVED_S = 30.0


async def stop_owners(state_dir: Path, *, wait_s: float, tell: Tell) -> list[Owner]:
    """Tell every run that holds an environment or has a fault open to end; return those that still run.

    Runs of this machine get SIGTERM, which lets them undo their faults, and so does what would start another
    worker in their place. Waits up to *wait_s* seconds. Runs of other hosts cannot be reached: they are
    among those returned.
    """
    until_s = time.monotonic() + wait_s
    told: set[Process] = set()
    while running := _running(state_dir):
        for owner in running:
            _stop(owner, told, tell)
        if time.monotonic() > until_s:
            break
        await asyncio.sleep(_POLL_S)
    return running


def _running(state_dir: Path) -> list[Owner]:
    """Return the runs at work, this process aside: an environment is held, or a fault open, by each."""
    me = Process.this()
    open_faults = [entry.owner for entry in _open(state_dir) if settled(entry.owner) is not Life.DEAD]
    owners = [*held(state_dir), *open_faults]
    found = {owner.process: owner for owner in owners if owner.process != me}
    return [owner for process, owner in found.items() if process.alive is not False]


def _open(state_dir: Path) -> Iterator[Entry]:
    for each in Journal(state_dir).entries():
        if isinstance(each, Entry) and each.state is not State.KEPT:
            yield each


def _stop(owner: Owner, told: set[Process], tell: Tell) -> None:
    for process in (owner.parent, owner.process):
        if process is None or process in told:
            continue
        told.add(process)
        try:
            sent = process.send(signal.SIGTERM)
        except PermissionError:
            tell(f"may not stop process {process.pid}: {owner.sentence}")
            continue
        what = "told to end" if sent else "cannot be reached from here"
        tell(f"process {process.pid} {what}: {owner.sentence}")


async def switch_all_off(access: FlagAccess, *, opener: Opener, tell: Tell) -> bool:
    """Set every flag that has an ``off`` variant to it and read it back; return whether all answer off.

    Raises FlagError when the flags cannot be read at all.
    """
    flags = opener(access, now=time.time_ns)
    try:
        document = await flags.document()
        switchable = [flag for flag in document.flags.values() if OFF in flag.variants and flag.enabled]
        return all([await _switch_off(flag, flags, tell) for flag in switchable])
    finally:
        await flags.aclose()


async def _switch_off(flag: Flag, flags: FlagController, tell: Tell) -> bool:
    other = [name for name in flag.variants if name != OFF]
    on = flag.default_variant != OFF if flag.targeting is None else _names_any(flag.targeting, other)
    try:
        if on:
            await flags.apply(FlagChange(key=flag.key, variant=OFF))
            tell(f"{flag.key}: written off")
        return await _answers_off(flag, flags, tell)
    except OtelDiagError as error:
        tell(f"{flag.key}: MAY BE ON: {error}")
        return False


async def _answers_off(flag: Flag, flags: FlagController, tell: Tell) -> bool:
    until_s = time.monotonic() + _SERVED_S
    answer = ""
    while time.monotonic() < until_s:
        with suppress(FlagError):
            answer = (await flags.served(flag.key, {})).variant
        if answer == OFF:
            return True
        await asyncio.sleep(_POLL_S)
    tell(f"{flag.key}: MAY BE ON: it answers {answer or 'nothing'!r} after {_SERVED_S:g} s")
    return False


def _names_any(rule: object, variants: list[str]) -> bool:
    """Whether a rule holds one of the variants anywhere."""
    if isinstance(rule, dict):
        return any(_names_any(part, variants) for part in rule.values())
    if isinstance(rule, list):
        return any(_names_any(part, variants) for part in rule)
    return rule in variants
