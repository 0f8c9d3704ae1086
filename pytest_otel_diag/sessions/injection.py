"""Faults: check them, put them in place, witness them as served, take them back and verify that."""

from __future__ import annotations

import asyncio
import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from pytest_otel_diag.errors import FlagError, ScenarioError, nearest
from pytest_otel_diag.model.flags import Flag, FlagChange, FlagDocument, FlagValue
from pytest_otel_diag.model.scenario import Fault, Scenario
from pytest_otel_diag.model.session import Blame, Cleanup, Status, Witness
from pytest_otel_diag.ports import TargetSession
from pytest_otel_diag.sessions.plan import EngineSettings
from pytest_otel_diag.sessions.record import SessionStopped, describe

OFF = "off"

Contexts = Mapping[str, Mapping[str, FlagValue]]
"""Flag → the evaluation context it is asked in, beyond the usual one."""


def contexts_of(faults: Iterable[Fault]) -> Contexts:
    """Return the contexts in which the services ask for the flags of the faults."""
    return {fault.flag: dict(fault.context) for fault in faults if fault.context}


def scenario_mistakes(scenario: Scenario) -> list[str]:
    """Return what is wrong with the scenario for any target."""
    mistakes = []
    if not scenario.faults and not scenario.control:
        mistakes.append(
            f"scenario {scenario.id!r} expects a fault but names none; "
            "add a fault, or set expectation.healthy for a control"
        )
    flags = [fault.flag for fault in scenario.faults]
    mistakes.extend(
        f"scenario {scenario.id!r} names flag {flag!r} {flags.count(flag)} times; a flag has one variant"
        for flag in dict.fromkeys(flags)
        if flags.count(flag) > 1
    )
    return mistakes


def resolve_faults(faults: Sequence[Fault], document: FlagDocument) -> tuple[FlagChange, ...]:
    """Return the changes that make the faults; raises ScenarioError listing every unknown name."""
    changes, mistakes = [], []
    for fault in faults:
        flag = document.flags.get(fault.flag)
        if flag is None:
            known = ", ".join(sorted(document.flags)) or "none"
            mistakes.append(
                f"no flag {fault.flag!r}{nearest(fault.flag, document.flags)}; the target has: {known}"
            )
            continue
        variant, mistake = _variant(fault, flag)
        steps = (_unknown(flag, step.variant) for step in fault.steps)
        mistakes.extend(found for found in (mistake, *steps) if found)
        changes.append(FlagChange(key=fault.flag, variant=variant))
    if mistakes:
        raise ScenarioError("; ".join(mistakes))
    return tuple(changes)


def _variant(fault: Fault, flag: Flag) -> tuple[str, str]:
    """Return the variant to set, and what is wrong with it ('' when nothing)."""
    if fault.variant is not None:
        return fault.variant, _unknown(flag, fault.variant)
    others = [name for name in flag.variants if name != _off(flag)]
    if "on" in others:
        return "on", ""
    if len(others) == 1:
        return others[0], ""
    names = ", ".join(flag.variants)
    return "", f"flag {flag.key!r} needs a variant, write {flag.key}=VARIANT; it has: {names}"


def _unknown(flag: Flag, variant: str) -> str:
    """Return what is wrong with the variant, '' when the flag has it."""
    if variant in flag.variants:
        return ""
    guess, names = nearest(variant, flag.variants), ", ".join(flag.variants)
    return f"flag {flag.key!r} has no variant {variant!r}{guess}; it has: {names}"


def _off(flag: Flag) -> str:
    return OFF if OFF in flag.variants else flag.default_variant


async def foreign_faults(
    session: TargetSession,
    document: FlagDocument,
    settings: EngineSettings,
    *,
    contexts: Iterable[Mapping[str, FlagValue]] = (),
) -> list[str]:
    """Return ``flag=variant`` of every flag that has an ``off`` variant and does not answer it.

    A variant that the target calls normal is none.
    A flag with targeting is asked, since there its default variant does not decide: in the usual
    context, in each of *contexts*, and with each value that its rule compares a variable with.
    """
    found: list[str] = []
    for flag in document.flags.values():
        if OFF not in flag.variants:
            continue
        variants = [flag.default_variant]
        if flag.targeting:
            probes: list[Mapping[str, FlagValue]] = [{}, *contexts, *_probes(flag.targeting)]
            variants = [
                (await session.flags.served(flag.key, {**settings.flag_context, **probe})).variant
                for probe in probes
            ]
        healthy = {OFF, session.normal.get(flag.key, OFF)}
        found.extend(f"{flag.key}={variant}" for variant in dict.fromkeys(variants) if variant not in healthy)
    return found


def _probes(rule: Any) -> Iterator[dict[str, FlagValue]]:
    """Yield contexts that a JsonLogic rule tells apart: from ``{"==": [{"var": name}, value]}``, ``in``."""
    if isinstance(rule, list):
        for part in rule:
            yield from _probes(part)
    if not isinstance(rule, Mapping):
        return
    for operator, operands in rule.items():
        if operator in {"==", "===", "in"} and isinstance(operands, list) and len(operands) == 2:
            left, right = operands
            yield from _compared(left, right if isinstance(right, list) else [right])
            yield from _compared(right, [left])
        yield from _probes(operands)


def _compared(variable: Any, literals: Sequence[Any]) -> Iterator[dict[str, FlagValue]]:
    name = variable.get("var") if isinstance(variable, Mapping) else None
    for literal in literals:
        if isinstance(name, str) and isinstance(literal, str | int | float):
            yield {name: literal}


async def served_now(
    session: TargetSession,
    changes: Sequence[FlagChange],
    settings: EngineSettings,
    *,
    contexts: Contexts | None = None,
) -> dict[str, str]:
    """Return the variant each changed flag answers now."""
    return {
        change.key: (await session.flags.served(change.key, _context(change.key, settings, contexts))).variant
        for change in changes
    }


def _context(key: str, settings: EngineSettings, contexts: Contexts | None) -> dict[str, FlagValue]:
    return {**settings.flag_context, **(contexts or {}).get(key, {})}


async def witness(
    session: TargetSession,
    wanted: Mapping[str, str],
    settings: EngineSettings,
    *,
    contexts: Contexts | None = None,
) -> tuple[Witness, ...]:
    """Read flags back as served until each answers its variant ``witness_reads`` times in a row.

    Each is asked in its context of *contexts* over the usual one. ``at_ns`` is the first read of that
    row: from there on the variant was really in force. Reads that fail count as another answer.
    Returns after about ``witness_timeout_s`` of the target's clock, or as many wall seconds when reads
    hang.
    """
    wall = asyncio.get_running_loop().time
    deadline = wall() + settings.witness_timeout_s + settings.witness_reads * settings.witness_poll_s
    rounds = settings.witness_reads + math.ceil(settings.witness_timeout_s / settings.witness_poll_s)
    seen = {key: _Row(variant, _context(key, settings, contexts)) for key, variant in wanted.items()}
    for turn in range(rounds):
        if turn:
            await session.clock.sleep(settings.witness_poll_s)
        for key, row in seen.items():
            if row.count < settings.witness_reads:
                await _read(session, key, row, settings)
        if all(row.count >= settings.witness_reads for row in seen.values()) or wall() > deadline:
            break
    return tuple(
        Witness(
            flag=key,
            variant=row.wanted,
            reads=row.reads,
            confirmed=row.count >= settings.witness_reads,
            at_ns=row.first_ns or session.clock.now(),
            detail="" if row.count >= settings.witness_reads else f"last answer: {row.last}",
        )
        for key, row in seen.items()
    )


@dataclass
class _Row:
    wanted: str
    context: Mapping[str, FlagValue]
    count: int = 0
    reads: int = 0
    first_ns: int = 0
    last: str = "none"


async def _read(session: TargetSession, key: str, row: _Row, settings: EngineSettings) -> None:
    row.reads += 1
    try:
        async with asyncio.timeout(settings.witness_timeout_s):
            answer = (await session.flags.served(key, row.context)).variant
    except (FlagError, OSError, TimeoutError) as error:
        row.count, row.last = 0, describe(error)
        return
    row.last = repr(answer)
    if answer != row.wanted:
        row.count = 0
        return
    row.count += 1
    if row.count == 1:
        row.first_ns = session.clock.now()


class Undo:
    """Puts the flags back and verifies it; made before the change it takes back."""

    def __init__(
        self,
        session: TargetSession,
        document: FlagDocument,
        served: Mapping[str, str],
        settings: EngineSettings,
        *,
        contexts: Contexts | None = None,
    ) -> None:
        self._session = session
        self._document = document
        self._served = dict(served)
        self._settings = settings
        self._contexts = contexts
        self._given_up = False
        self.interrupt: BaseException | None = None
        self.proofs: tuple[Witness, ...] = ()
        """How the flags answered afterwards, empty before that was read."""

    def give_up(self) -> None:
        """Let the next interrupt end the undo: it has had its time."""
        self._given_up = True

    async def run(self) -> Cleanup:
        """Restore, then read back until every flag answers as before.

        Raises nothing before :meth:`give_up`. An interrupt that hits in the middle does not stop
        it: the attempt is repeated and the interrupt kept in ``interrupt`` for the caller to raise.
        """
        failure = "no attempt was made"
        for _ in range(self._settings.undo_attempts):
            try:
                await self._session.flags.restore(self._document)
                break
            except BaseException as error:  # every kind: leaving now would leave the fault on
                failure = describe(error)
                self._keep(error)
        else:
            return Cleanup(restored=False, verified=False, detail=f"restore failed: {failure}")
        return await self._verify()

    async def _verify(self) -> Cleanup:
        for _ in range(2):
            try:
                self.proofs = await witness(
                    self._session, self._served, self._settings, contexts=self._contexts
                )
            except BaseException as error:  # as above
                failure = describe(error)
                self._keep(error)
                continue
            wrong = [
                f"{w.flag} should answer {w.variant!r}, {w.detail}" for w in self.proofs if not w.confirmed
            ]
            return Cleanup(restored=True, verified=not wrong, detail="; ".join(wrong))
        return Cleanup(restored=True, verified=False, detail=f"reading back failed: {failure}")

    def _keep(self, error: BaseException) -> None:
        if isinstance(error, Exception):
            return
        if self._given_up:
            raise error
        self.interrupt = error

    def way_out(self, cleanup: Cleanup) -> str:
        """Return the sentence a person needs when the undo did not go through."""
        flags = ", ".join(f"{key} (back to {variant!r})" for key, variant in self._served.items())
        return (
            f"A FAULT MAY STILL BE ON: {flags}: {cleanup.detail}. "
            "Set it back by hand and read it back before anything else runs on this target"
        )


def refuse_foreign(found: Sequence[str]) -> None:
    """Raise when a fault is on that this session did not set."""
    if found:
        raise SessionStopped(
            Status.ERROR,
            f"preflight: already on before the session: {', '.join(found)}; switch off what is left over, "
            "and whatever else changes flags of this target",
            Blame.INFRASTRUCTURE,
        )
