"""Did somebody else change flags? The document that the session knows of, compared with what is there now.

A flag that was changed and changed back between two reads leaves no trace in the document: polling
cannot see it. What is compared is what services get (variant and value); descriptions and metadata may
change.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from pytest_otel_diag.errors import FlagError
from pytest_otel_diag.model.flags import Flag, FlagDocument, FlagValue
from pytest_otel_diag.model.session import Status
from pytest_otel_diag.ports import TargetSession
from pytest_otel_diag.sessions.log import SessionStopped, describe
from pytest_otel_diag.sessions.settings import EngineSettings

OFF = "off"
_GONE = "(gone)"
_READS = 3

Contexts = Mapping[str, Mapping[str, FlagValue]]
"""Flag → the evaluation context it is asked in, beyond the usual one."""


def refuse_foreign(found: Sequence[str]) -> None:
    """Raise when a fault is on that this session did not set."""
    if found:
        raise SessionStopped(
            Status.INVALID,
            f"INTRUDER: already on before the session: {', '.join(found)}; switch off what is left over "
            "(otel-diag heal, otel-diag flags reset), and stop whatever else changes flags of this target",
        )


def intruded(found: Sequence[str]) -> SessionStopped:
    """Return what ends a session during which these flags were changed by somebody else."""
    return SessionStopped(
        Status.INVALID,
        f"INTRUDER: changed by somebody else during the session: {', '.join(found)}; stop what changes flags "
        "of this target (another run, a schedule in flagd-ui, a person), or give the run a system of its own",
    )


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
        if OFF not in flag.variants or not flag.enabled:
            continue
        variants = [flag.default_variant]
        if flag.targeting:
            probes: list[Mapping[str, FlagValue]] = [{}, *contexts, *probes_of(flag.targeting)]
            variants = await _answers(session, flag.key, probes, settings)
        healthy = {OFF, session.normal.get(flag.key, OFF)}
        found.extend(f"{flag.key}={variant}" for variant in dict.fromkeys(variants) if variant not in healthy)
    return found


async def _answers(
    session: TargetSession, key: str, probes: Iterable[Mapping[str, FlagValue]], settings: EngineSettings
) -> list[str]:
    """Return what the flag answers in each context, one answer each."""
    return [(await session.flags.served(key, {**settings.flag_context, **probe})).variant for probe in probes]


def probes_of(rule: Any) -> Iterator[dict[str, FlagValue]]:
    """Yield contexts that a JsonLogic rule tells apart: from ``{"==": [{"var": name}, value]}``, ``in``."""
    if isinstance(rule, list):
        for part in rule:
            yield from probes_of(part)
    if not isinstance(rule, Mapping):
        return
    for operator, operands in rule.items():
        if operator in {"==", "===", "in"} and isinstance(operands, list) and len(operands) == 2:
            left, right = operands
            yield from _compared(left, right if isinstance(right, list) else [right])
            yield from _compared(right, [left])
        yield from probes_of(operands)


def possible(rule: Any, variants: Collection[str]) -> set[str]:
    """Return the variants that a rule may answer for somebody, whatever its conditions say.

    What is neither a name, an ``if`` nor a ``fractional`` is computed: it may be any variant.
    """
    if rule is None:
        return set()
    if isinstance(rule, str | bool):
        name = json.dumps(rule) if isinstance(rule, bool) else rule
        return {name} & set(variants)
    if not isinstance(rule, Mapping) or len(rule) != 1:
        return set(variants) if rule else set()
    ((operator, operands),) = rule.items()
    if operator == "if" and isinstance(operands, list):
        last = operands[-1:] if len(operands) % 2 else []
        return set().union(*(possible(branch, variants) for branch in [*operands[1::2], *last]))
    if operator == "fractional" and isinstance(operands, list):
        buckets = [part for part in operands if isinstance(part, list) and part]
        return set().union(*(possible(part[0], variants) for part in buckets if part[1:] != [0]))
    return set(variants)


def _compared(variable: Any, literals: Sequence[Any]) -> Iterator[dict[str, FlagValue]]:
    name = variable.get("var") if isinstance(variable, Mapping) else None
    for literal in literals:
        if isinstance(name, str) and isinstance(literal, str | int | float):
            yield {name: literal}


@dataclass(frozen=True)
class Changed:
    """What somebody else did: faults that came on, flags of this session switched, harmless things."""

    intruders: tuple[str, ...] = ()
    lost: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()


@dataclass
class FlagGuard:
    """Knows the document as this session left it, and tells what else happened to it.

    ``contexts`` are the evaluation contexts of the session's own flags beyond the usual one.
    """

    session: TargetSession
    settings: EngineSettings
    known: FlagDocument
    contexts: Contexts = field(default_factory=dict)
    _ours: dict[str, str] = field(default_factory=dict)

    async def adopt(self, changes: Mapping[str, str]) -> Changed:
        """Take over what the session itself just wrote (flag → variant); return what else had changed.

        Raises FlagError when the document cannot be read.
        """
        self._ours.update(changes)
        document = await self._read()
        changed = await self._compared(document, skip=changes.keys())
        self.known = document
        return changed

    async def look(self) -> Changed:
        """Return what has changed since the last time; raises FlagError when the flags cannot be read."""
        document = await self._read()
        if document.raw == self.known.raw:
            return Changed()
        changed = await self._compared(document)
        self.known = document
        return changed

    async def _read(self) -> FlagDocument:
        """Read the document, again when that fails: one lost answer must not cost a session."""
        failure = ""
        for turn in range(_READS):
            if turn:
                await self.session.clock.sleep(self.settings.witness_poll_s)
            try:
                async with asyncio.timeout(self.settings.witness_timeout_s):
                    return await self.session.flags.document()
            except (FlagError, OSError, TimeoutError) as error:
                failure = describe(error)
        raise FlagError(
            f"the flags cannot be read, so nobody knows whether another fault came on: {failure}; "
            "check that the place where flags are written is reachable"
        )

    async def _compared(self, document: FlagDocument, skip: Iterable[str] = ()) -> Changed:
        intruders: list[str] = []
        lost: list[str] = []
        notes: list[str] = []
        before, now = self.known.flags, document.flags
        for key in sorted((before.keys() | now.keys()) - set(skip)):
            if _exact(before.get(key)) == _exact(now.get(key)):
                continue
            if key in self._ours:
                answer = await self._answer(key, now.get(key))
                if answer != self._ours[key]:
                    lost.append(f"{key}={self._ours[key]} (now {answer!r})")
                    continue
            elif names := await self._effect(key, before.get(key), now.get(key)):
                intruders.extend(names)
                continue
            notes.append(f"flag {key} was changed by somebody else, with no effect on what it answers")
        return Changed(tuple(intruders), tuple(lost), tuple(notes))

    async def _answer(self, key: str, flag: Flag | None) -> str:
        """Return the variant that a flag of this session answers now."""
        if flag is None:
            return _GONE
        if flag.targeting:
            answers = await _answers(self.session, key, [self.contexts.get(key, {})], self.settings)
            return answers[0]
        return flag.default_variant if flag.enabled else "(disabled)"

    async def _effect(self, key: str, before: Flag | None, now: Flag | None) -> list[str]:
        """Return ``flag=variant`` where services get something else than before, or may."""
        if now is None:
            return [f"{key}={_GONE}"] if _served_by_default(before) != (OFF, None) else []
        if now.targeting or (before is not None and before.targeting):
            return await self._effect_of_rule(now, before)
        if before is None and OFF not in now.variants:
            return []  # a new setting, which services that do not know it do not ask for
        if before is not None and _off_means_another(before, now):
            return [f"{key}={OFF} (its value is now {json.dumps(now.variants[OFF])})"]
        was, is_ = _served_by_default(before), _served_by_default(now)
        return [f"{key}={is_[0]}"] if _typed(was) != _typed(is_) else []

    async def _effect_of_rule(self, now: Flag, before: Flag | None) -> list[str]:
        if not now.enabled:
            return []
        rules = [flag.targeting for flag in (now, before) if flag is not None]
        probes = [{}, *self.contexts.values(), *(probe for rule in rules for probe in probes_of(rule))]
        answers = dict.fromkeys(await _answers(self.session, now.key, probes, self.settings))
        answers.update(dict.fromkeys(sorted(possible(now.targeting, now.variants.keys()))))
        if OFF not in now.variants:
            return [f"{now.key}={'|'.join(answers)}"]  # no variant of it is harmless by its name
        healthy = {OFF, self.session.normal.get(now.key, OFF)}
        return [f"{now.key}={variant}" for variant in answers if variant not in healthy]


def _typed(value: Any) -> str:
    """Return the JSON text: in Python ``True == 1 == 1.0``, but a service gets another type."""
    return json.dumps(value, sort_keys=True)


def _exact(flag: Flag | None) -> str:
    return "" if flag is None else _typed(flag.model_dump(mode="json"))


def _off_means_another(before: Flag, now: Flag) -> bool:
    """Tell whether ``off`` is answered as before, but with another value under this name."""
    answer_off = all(flag.enabled and flag.default_variant == OFF for flag in (before, now))
    return answer_off and _typed(before.variants.get(OFF)) != _typed(now.variants.get(OFF))


def _served_by_default(flag: Flag | None) -> tuple[str, FlagValue | None]:
    """Return variant and value of a flag without a rule; ``off`` stands for none: services use their own."""
    if flag is None or not flag.enabled or flag.default_variant == OFF:
        return OFF, None
    return flag.default_variant, flag.variants.get(flag.default_variant)
