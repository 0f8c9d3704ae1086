"""Compares the flags as written with the flags as served, and explains every difference."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from pytest_otel_diag import catalog
from pytest_otel_diag.catalog.compare import CatalogComparison, compare
from pytest_otel_diag.catalog.entries import FlagEntry, Period
from pytest_otel_diag.catalog.names import folded
from pytest_otel_diag.errors import FlagError, ScenarioError, nearest
from pytest_otel_diag.flags.controller import SurfaceFlags
from pytest_otel_diag.flags.document import FlagdDocument
from pytest_otel_diag.model.flags import Flag, FlagDocument, FlagValue, ServedFlag
from pytest_otel_diag.sessions.faults.targeting import probes_of

Context = Mapping[str, FlagValue]
NO_CONTEXT: Context = {}

_LONGEST_RULE = 120
_STALE = (
    "flagd serves a different document: it has not read this one yet, it rejects this one, or the file was "
    "edited without flagd-ui"
)


@dataclass(frozen=True)
class ServedAnswer:
    """What is served in one context; ``expected`` is what the written document evaluates to there.

    Variants are empty where there is no answer.
    """

    context: Context
    variant: str
    value: FlagValue | None
    expected: str

    @property
    def agrees(self) -> bool:
        """Whether the served variant is the written one."""
        return self.variant == self.expected


@dataclass(frozen=True)
class FlagRow:
    """One flag as written and as served.

    ``written`` is the variant to which the flag is set, in its targeting rule where one decides; ``default``
    its default variant; ``rule`` the targeting as JSON, empty without one. ``on`` says that the flag is not
    as shipped, ``why`` explains what is remarkable, ``known`` says that the catalog has the flag.
    """

    flag: str
    written: str
    default: str
    rule: str
    answers: tuple[ServedAnswer, ...]
    on: bool
    why: str
    known: bool

    @property
    def agrees(self) -> bool:
        """Whether every served answer is what the document says."""
        return all(answer.agrees for answer in self.answers)


@dataclass(frozen=True)
class FlagOverview:
    """All flags of a system.

    ``written_at`` and ``served_by`` name where they are written and evaluated. ``unserved`` says why the
    served flags could not be read, and is empty when they could.
    """

    written_at: str
    served_by: str
    document: FlagDocument
    comparison: CatalogComparison
    rows: tuple[FlagRow, ...]
    unserved: str

    @property
    def agrees(self) -> bool:
        """Whether every flag is served as it is written."""
        return not self.unserved and all(row.agrees for row in self.rows)

    def row(self, flag: str) -> FlagRow:
        """Return the row of a flag of the document."""
        return next(row for row in self.rows if row.flag == flag)


def key_of(name: str, document: FlagDocument) -> str:
    """Return the key of the flag that *name* means in a document; names of other releases count too.

    Raises FlagError with the nearest name, or with the reason for a flag that cannot be used.
    """
    flags = document.flags
    if name in flags:
        return name
    if name in document.unusable:
        raise FlagError(f"flag {name!r} of the document cannot be used: {document.unusable[name]}")
    here = {folded(key): key for key in flags}
    if folded(name) in here:
        return here[folded(name)]
    known = f"known: {', '.join(flags) or 'none'}"
    try:
        entry = catalog.flag(name)
    except ScenarioError:
        raise FlagError(f"no flag {name!r} in the document{nearest(name, flags)}; {known}") from None
    for other in (*entry.names, *entry.aliases):
        if folded(other) in here:
            return here[folded(other)]
    raise FlagError(
        f"no flag {name!r} in the document, nor any of its other names ({', '.join(entry.names)}); {known}"
    )


def catalog_entry(flag: str, demo: str) -> tuple[FlagEntry, Period] | None:
    """Return what the catalog knows of a flag in a release, None when it knows nothing."""
    try:
        entry = catalog.flag(flag, demo)
    except ScenarioError:
        return None
    return entry, catalog.generation(demo).flags[entry.key]


def contexts_of(flag: Flag, demo: str) -> tuple[Context, ...]:
    """Return the contexts in which to evaluate a flag.

    These are the context that the fault needs, where a rule decides the flag, and the empty one. For a flag
    that is not in the catalog it is the first context that its rule distinguishes.
    """
    found = catalog_entry(flag.key, demo) if flag.targeting else None
    own: Context = dict(found[1].context) if found is not None else {}
    if not own:
        own = next(probes_of(flag.targeting), {})
    return (own, NO_CONTEXT) if own else (NO_CONTEXT,)


def written_variant(flag: Flag) -> str:
    """Return the variant to which a flag is set: in position 1 of its rule, or by default."""
    # A null there defers to the default.
    arguments = (flag.targeting or {}).get("if")
    if isinstance(arguments, list) and len(arguments) > 1 and isinstance(arguments[1], str):
        return arguments[1]
    return flag.default_variant


async def overview(flags: SurfaceFlags) -> FlagOverview:
    """Read the document and evaluate every flag; raises FlagError when the document cannot be read."""
    document = await flags.document()
    comparison = compare(catalog.load(), document.flags)
    wanted = {key: contexts_of(flag, comparison.demo) for key, flag in document.flags.items()}
    unserved = ""
    served: dict[tuple[str, bool], ServedFlag] = {}
    try:
        for key, answer in (await flags.served_all(NO_CONTEXT)).items():
            served[key, True] = answer
        for key, contexts in wanted.items():
            if len(contexts) > 1 and (key, True) in served:
                served[key, False] = await flags.served(key, contexts[0])
    except FlagError as error:
        unserved = str(error)
    written = FlagdDocument(document.raw, source=flags.surface.name)
    on = {text.partition("=")[0] for text in comparison.on}
    rows = [
        _row(flag, comparison, () if unserved else _answers(key, wanted[key], served, written), on=key in on)
        for key, flag in document.flags.items()
    ]
    rows += [_unusable(key, why) for key, why in document.unusable.items()]
    written_keys = {*document.flags, *document.unusable}
    rows += [_unwritten(answer) for (key, _), answer in served.items() if key not in written_keys]
    return FlagOverview(
        written_at=flags.surface.name,
        served_by=flags.reader.name,
        document=document,
        comparison=comparison,
        rows=tuple(rows),
        unserved=unserved,
    )


def _answers(
    key: str,
    contexts: Iterable[Context],
    served: Mapping[tuple[str, bool], ServedFlag],
    written: FlagdDocument,
) -> tuple[ServedAnswer, ...]:
    found = []
    for context in contexts:
        answer = served.get((key, not context))
        expected = expected_variant(written, key, context)
        variant, value = (answer.variant, answer.value) if answer else ("", None)
        found.append(ServedAnswer(context, variant, value, expected))
    return tuple(found)


def expected_variant(document: FlagdDocument, key: str, context: Context) -> str:
    """Return the variant to which the document evaluates, empty where it evaluates to none."""
    try:
        return document.answer(key, context)[0]
    except FlagError:
        return ""


def _row(
    flag: Flag, comparison: CatalogComparison, answers: tuple[ServedAnswer, ...], *, on: bool
) -> FlagRow:
    rule = json.dumps(flag.targeting, ensure_ascii=False) if flag.targeting else ""
    return FlagRow(
        flag=flag.key,
        written=written_variant(flag) or "none",
        default=flag.default_variant,
        rule=rule,
        answers=answers,
        on=on,
        why=_why(flag, rule, answers),
        known=catalog_entry(flag.key, comparison.demo) is not None,
    )


def _unusable(key: str, why: str) -> FlagRow:
    return FlagRow(key, "unusable", "", "", (), on=False, why=f"cannot be set: {why}", known=False)


def _unwritten(answer: ServedFlag) -> FlagRow:
    only = ServedAnswer(NO_CONTEXT, answer.variant, answer.value, "")
    why = f"not in the document; {_STALE}"
    return FlagRow(answer.key, "", "", "", (only,), on=False, why=why, known=False)


def _why(flag: Flag, rule: str, answers: Sequence[ServedAnswer]) -> str:
    if not flag.enabled:
        return "DISABLED: services use their own defaults"
    wrong = [answer for answer in answers if not answer.agrees]
    if wrong:
        return f"the document says {wrong[0].expected or 'no variant'}; {_STALE}"
    variants = {answer.variant for answer in answers}
    if rule and variants - {flag.default_variant}:
        return f"its rule decides, not its default {flag.default_variant!r}: {_shortened(rule)}"
    if rule and variants - {written_variant(flag)}:
        return f"its rule answers this where the condition does not hold: {_shortened(rule)}"
    if rule:
        return f"decided by its rule: {_shortened(rule)}"
    return ""


def _shortened(rule: str) -> str:
    return rule if len(rule) <= _LONGEST_RULE else rule[: _LONGEST_RULE - 1] + "…"
