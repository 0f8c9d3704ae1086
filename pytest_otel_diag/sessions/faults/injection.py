"""Faults: check them, put them in place, witness them as served, take them back and verify that."""

from __future__ import annotations

import asyncio
import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from pytest_otel_diag.errors import FlagError, ScenarioError, nearest
from pytest_otel_diag.model.flags import Flag, FlagChange, FlagDocument, FlagValue
from pytest_otel_diag.model.scenario import Fault, Scenario
from pytest_otel_diag.model.session import Cleanup, Witness
from pytest_otel_diag.ports import TargetSession
from pytest_otel_diag.sessions.faults.external_changes import OFF, Contexts, FlagGuard
from pytest_otel_diag.sessions.log import describe
from pytest_otel_diag.sessions.settings import EngineSettings

NO_ANSWER = "no answer: "
"""How the detail of a proof begins when the flag could not be read at all the last time."""


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


async def served_now(
    session: TargetSession,
    changes: Sequence[FlagChange],
    settings: EngineSettings,
    *,
    contexts: Contexts | None = None,
) -> dict[str, str]:
    """Return the variant each changed flag answers now."""
    return {
        change.key: (
            await session.flags.served(change.key, context_of(change.key, settings, contexts))
        ).variant
        for change in changes
    }


def context_of(key: str, settings: EngineSettings, contexts: Contexts | None) -> dict[str, FlagValue]:
    """Return the context that a flag is asked in: the usual one, and what is its own."""
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
    seen = {key: _Row(variant, context_of(key, settings, contexts)) for key, variant in wanted.items()}
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
            detail="" if row.count >= settings.witness_reads else row.last,
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
    last: str = f"{NO_ANSWER}nobody was asked"


async def _read(session: TargetSession, key: str, row: _Row, settings: EngineSettings) -> None:
    row.reads += 1
    try:
        async with asyncio.timeout(settings.witness_timeout_s):
            answer = (await session.flags.served(key, row.context)).variant
    except (FlagError, OSError, TimeoutError) as error:
        row.count, row.last = 0, f"{NO_ANSWER}{describe(error)}"
        return
    row.last = f"last answer: {answer!r}"
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
            detail = "; ".join(wrong) or await self._others()
            return Cleanup(restored=True, verified=not wrong, detail=detail)
        return Cleanup(restored=True, verified=False, detail=f"reading back failed: {failure}")

    async def _others(self) -> str:
        """Return what else is not as it was found: the undo need not take back what somebody else did."""
        guard = FlagGuard(self._session, self._settings, self._document, self._contexts or {})
        try:
            async with asyncio.timeout(self._settings.undo_timeout_s / 4):
                changed = await guard.look()
        except BaseException as error:  # as above; our own flags are proven, so this may stay unknown
            self._keep(error)
            return ""
        if not changed.intruders:
            return ""
        return f"other flags are not as they were found: {', '.join(changed.intruders)}"

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
            f"Take it back with: {cleanup.recovery_command}, or by hand and read it back, "
            "before anything else runs on this target"
        )
