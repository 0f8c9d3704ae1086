"""Detects flag changes that other clients make: another run, a schedule in flagd-ui, a person.

The flag document is compared with the one that the session knows. What counts is what services get (variant
and value); descriptions and metadata may change. A change that is reverted between two reads leaves no trace
in the document, so polling cannot detect it.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from pytest_otel_diag.errors import FlagError
from pytest_otel_diag.model.flags import Flag, FlagDocument, FlagValue
from pytest_otel_diag.model.session import Status
from pytest_otel_diag.sessions.ending import SessionStopped, describe
from pytest_otel_diag.sessions.faults.injection import OFF
from pytest_otel_diag.sessions.faults.targeting import possible, probes_of
from pytest_otel_diag.sessions.faults.witness import FlagWitness

_GONE = "(gone)"
_READS = 3


@dataclass(frozen=True)
class ExternalChanges:
    """What other clients changed.

    ``faults`` are ``flag=variant`` of flags that now answer something else than before, ``lost`` the flags of
    this session that no longer answer what it set, ``notes`` changes without effect on any answer.
    """

    faults: tuple[str, ...] = ()
    lost: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()


def refuse_foreign(found: Sequence[str]) -> None:
    """Raise SessionStopped (INVALID) when a fault is on that this session did not set."""
    if found:
        raise SessionStopped(
            Status.INVALID,
            f"EXTERNAL_CHANGE: a fault was on before the session: {', '.join(found)}; switch it off "
            "(otel-diag heal, otel-diag flags reset), and stop whatever else changes flags of this target",
        )


def changed_externally(found: Sequence[str]) -> SessionStopped:
    """Return what ends a session during which another client changed these flags."""
    return SessionStopped(
        Status.INVALID,
        f"EXTERNAL_CHANGE: changed by another client during the session: {', '.join(found)}; stop what "
        "changes flags of this target (another run, a schedule in flagd-ui, a person), or give the run a "
        "system that nothing else uses",
    )


async def foreign_faults(witness: FlagWitness, document: FlagDocument) -> list[str]:
    """Return ``flag=variant`` of every flag that has an ``off`` variant and answers another one.

    Variants that the target calls normal are left out. The default variant of a flag with targeting does not
    decide, so such a flag is asked: in the usual context, in the contexts of the session's own flags, and
    with each value that its rule compares a variable with. Raises FlagError.
    """
    found: list[str] = []
    for flag in document.flags.values():
        if OFF not in flag.variants or not flag.enabled:
            continue
        variants = [flag.default_variant]
        if flag.targeting:
            probes = [{}, *witness.contexts.values(), *probes_of(flag.targeting)]
            variants = await _answers(witness, flag.key, probes)
        healthy = _healthy(witness, flag.key)
        found.extend(f"{flag.key}={variant}" for variant in dict.fromkeys(variants) if variant not in healthy)
    return found


async def _answers(witness: FlagWitness, key: str, probes: Iterable[Mapping[str, FlagValue]]) -> list[str]:
    return [await witness.variant(key, probe) for probe in probes]


def _healthy(witness: FlagWitness, key: str) -> set[str]:
    return {OFF, witness.system.normal.get(key, OFF)}


class ExternalChangeDetector:
    """Compares the flag document with the one that the session left, at each :meth:`check`."""

    def __init__(self, witness: FlagWitness, known: FlagDocument) -> None:
        self._witness = witness
        self._known = known
        self._written: dict[str, str] = {}

    async def adopt(self, changes: Mapping[str, str]) -> ExternalChanges:
        """Take over what the session just wrote (flag → variant); return what else had changed.

        Raises FlagError when the document cannot be read.
        """
        self._written.update(changes)
        document = await self._read()
        changed = await self.compare(document, skip=changes.keys())
        self._known = document
        return changed

    async def check(self) -> ExternalChanges:
        """Return what changed since the last check; raises FlagError when the document cannot be read."""
        document = await self._read()
        if document.raw == self._known.raw:
            return ExternalChanges()
        changed = await self.compare(document)
        self._known = document
        return changed

    async def _read(self) -> FlagDocument:
        """Read the document, repeatedly when that fails: one lost answer must not cost a session."""
        settings, system = self._witness.settings, self._witness.system
        failure = ""
        for turn in range(_READS):
            if turn:
                await system.clock.sleep(settings.witness_poll_s)
            try:
                async with asyncio.timeout(settings.witness_timeout_s):
                    return await system.flags.document()
            except (FlagError, OSError, TimeoutError) as error:
                failure = describe(error)
        raise FlagError(
            f"the flags cannot be read, so another fault may have been turned on: {failure}; "
            "check that the place where flags are written is reachable"
        )

    async def compare(self, document: FlagDocument, skip: Iterable[str] = ()) -> ExternalChanges:
        """Return how the document differs from the known one, leaving out the flags in *skip*."""
        faults: list[str] = []
        lost: list[str] = []
        notes: list[str] = []
        before, now = self._known.flags, document.flags
        for key in sorted((before.keys() | now.keys()) - set(skip)):
            if _exact(before.get(key)) == _exact(now.get(key)):
                continue
            if key in self._written:
                answer = await self._own_answer(key, now.get(key))
                if answer != self._written[key]:
                    lost.append(f"{key}={self._written[key]} (now {answer!r})")
                    continue
            elif effect := await self._effect(key, before.get(key), now.get(key)):
                faults.extend(effect)
                continue
            notes.append(f"another client changed flag {key}, with no effect on what it answers")
        return ExternalChanges(tuple(faults), tuple(lost), tuple(notes))

    async def _own_answer(self, key: str, flag: Flag | None) -> str:
        """Return the variant that a flag of this session answers now."""
        if flag is None:
            return _GONE
        if flag.targeting:
            return await self._witness.variant(key)
        return flag.default_variant if flag.enabled else "(disabled)"

    async def _effect(self, key: str, before: Flag | None, now: Flag | None) -> list[str]:
        """Return ``flag=variant`` where services get, or may get, another answer than before."""
        if now is None:
            return [f"{key}={_GONE}"] if _default_answer(before) != (OFF, None) else []
        if now.targeting or (before is not None and before.targeting):
            return await self._effect_of_rule(now, before)
        if before is None and OFF not in now.variants:
            return []  # a new setting: services that do not know it do not ask for it
        if before is not None and _off_has_another_value(before, now):
            return [f"{key}={OFF} (its value is now {json.dumps(now.variants[OFF])})"]
        old, new = _default_answer(before), _default_answer(now)
        return [f"{key}={new[0]}"] if _typed(old) != _typed(new) else []

    async def _effect_of_rule(self, now: Flag, before: Flag | None) -> list[str]:
        if not now.enabled:
            return []
        rules = [flag.targeting for flag in (now, before) if flag is not None]
        contexts = self._witness.contexts.values()
        probes = [{}, *contexts, *(probe for rule in rules for probe in probes_of(rule))]
        answers = dict.fromkeys(await _answers(self._witness, now.key, probes))
        answers.update(dict.fromkeys(sorted(possible(now.targeting, now.variants.keys()))))
        if OFF not in now.variants:
            return [f"{now.key}={'|'.join(answers)}"]  # no variant is harmless by its name
        healthy = _healthy(self._witness, now.key)
        return [f"{now.key}={variant}" for variant in answers if variant not in healthy]


def _typed(value: Any) -> str:
    """Return the value as JSON text: Python has ``True == 1 == 1.0``, but services get different types."""
    return json.dumps(value, sort_keys=True)


def _exact(flag: Flag | None) -> str:
    return "" if flag is None else _typed(flag.model_dump(mode="json"))


def _off_has_another_value(before: Flag, now: Flag) -> bool:
    """Whether ``off`` is answered as before, but with another value under this name."""
    answer_off = all(flag.enabled and flag.default_variant == OFF for flag in (before, now))
    return answer_off and _typed(before.variants.get(OFF)) != _typed(now.variants.get(OFF))


def _default_answer(flag: Flag | None) -> tuple[str, FlagValue | None]:
    """Return variant and value of a flag without a rule; ``off`` where services use their own default."""
    if flag is None or not flag.enabled or flag.default_variant == OFF:
        return OFF, None
    return flag.default_variant, flag.variants.get(flag.default_variant)
