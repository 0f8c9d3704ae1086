"""What is written against what is served, flag by flag, and why the two differ."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from pytest_otel_diag import catalog
from pytest_otel_diag.catalog.compare import Comparison, compare
from pytest_otel_diag.catalog.entries import FlagEntry, Period
from pytest_otel_diag.catalog.names import folded
from pytest_otel_diag.errors import FlagError, ScenarioError, nearest
from pytest_otel_diag.flags.controller import SurfaceFlags
from pytest_otel_diag.flags.document import FlagdDocument
from pytest_otel_diag.model.flags import Flag, FlagDocument, FlagValue, ServedFlag

Context = Mapping[str, FlagValue]
NOBODY: Context = {}

_LONGEST_RULE = 120
_STALE = (
    "flagd serves another document: it has not read this one yet, refuses it, or somebody edited the file "
    "beside flagd-ui"
)


@dataclass(frozen=True)
class Answer:
    """What is served in one context; ``expected`` is what the written document answers there.

    Variants are empty where there is no answer.
    """

    context: Context
    variant: str
    value: FlagValue | None
    expected: str

    @property
    def agrees(self) -> bool:
        """Whether it is what is written."""
        return self.variant == self.expected


@dataclass(frozen=True)
class Row:
    """One flag. ``written`` is the variant that it is switched to, in its rule where one decides."""

    flag: str
    written: str
    default: str
    rule: str
    answers: tuple[Answer, ...]
    on: bool
    why: str
    known: bool

    @property
    def agrees(self) -> bool:
        """Whether everything served is what the document says."""
        return all(answer.agrees for answer in self.answers)

    def body(self) -> dict[str, Any]:
        """Return it for machines."""
        return {
            "flag": self.flag,
            "written": self.written,
            "default_variant": self.default,
            "rule": self.rule,
            "served": [
                {
                    "context": dict(one.context),
                    "variant": one.variant,
                    "value": one.value,
                    "expected": one.expected,
                }
                for one in self.answers
            ],
            "agrees": self.agrees,
            "on": self.on,
            "why": self.why,
            "known": self.known,
        }


@dataclass(frozen=True)
class Overview:
    """All flags. ``unserved`` says why nothing could be asked, empty when it could."""

    document: FlagDocument
    comparison: Comparison
    rows: tuple[Row, ...]
    unserved: str

    @property
    def agrees(self) -> bool:
        """Whether all was asked, and is as written."""
        return not self.unserved and all(row.agrees for row in self.rows)

    def row(self, flag: str) -> Row:
        """Return the row of a flag that the document has."""
        return next(row for row in self.rows if row.flag == flag)


def key_of(name: str, flags: Mapping[str, Flag]) -> str:
    """Return the flag of the document that *name* means, an older or newer name of it too.

    Raises FlagError with the nearest name.
    """
    if name in flags:
        return name
    here = {folded(key): key for key in flags}
    if folded(name) in here:
        return here[folded(name)]
    try:
        entry = catalog.flag(name)
    except ScenarioError:
        raise FlagError(
            f"there is no flag {name!r}{nearest(name, flags)}; there are {', '.join(flags) or 'none'}"
        ) from None
    for other in (*entry.names, *entry.aliases):
        if folded(other) in here:
            return here[folded(other)]
    raise FlagError(
        f"there is no flag {name!r} here, nor is it there by another name ({', '.join(entry.names)}); "
        f"there are {', '.join(flags) or 'none'}"
    )


def known(flag: str, demo: str) -> tuple[FlagEntry, Period] | None:
    """Return what the catalog knows of a flag in a release, None when it knows nothing."""
    try:
        entry = catalog.flag(flag, demo)
    except ScenarioError:
        return None
    return entry, catalog.generation(demo).flags[entry.key]


def contexts(flag: Flag, demo: str) -> tuple[Context, ...]:
    """Return the contexts to ask a flag in: that of nobody, and where a rule decides that of its fault."""
    found = known(flag.key, demo) if flag.targeting else None
    own: Context = dict(found[1].context) if found is not None else {}
    return (own, NOBODY) if own else (NOBODY,)


def switched(flag: Flag) -> str:
    """Return the variant that a flag is switched to: in position 1 of its rule, or by default."""
    arguments = (flag.targeting or {}).get("if")
    if isinstance(arguments, list) and len(arguments) > 1 and isinstance(arguments[1], str):
        return arguments[1]
    return flag.default_variant


async def overview(flags: SurfaceFlags) -> Overview:
    """Read and ask everything; raises FlagError when the document cannot be read."""
    document = await flags.document()
    comparison = compare(catalog.load(), document.flags)
    wanted = {key: contexts(flag, comparison.demo) for key, flag in document.flags.items()}
    unserved = ""
    served: dict[tuple[str, bool], ServedFlag] = {}
    try:
        for key, answer in (await flags.served_all(NOBODY)).items():
            served[key, True] = answer
        for key, asked in wanted.items():
            if len(asked) > 1 and (key, True) in served:
                served[key, False] = await flags.served(key, asked[0])
    except FlagError as error:
        unserved = str(error)
    written = FlagdDocument(document.raw, source=flags.surface.name)
    on = {text.partition("=")[0] for text in comparison.on}
    rows = [
        _row(flag, comparison, _answers(key, wanted[key], served, written, unserved), key in on)
        for key, flag in document.flags.items()
    ]
    rows += [_unwritten(answer) for (key, _), answer in served.items() if key not in document.flags]
    return Overview(document, comparison, tuple(rows), unserved)


def _answers(
    key: str,
    asked: Iterable[Context],
    served: Mapping[tuple[str, bool], ServedFlag],
    written: FlagdDocument,
    unserved: str,
) -> tuple[Answer, ...]:
    if unserved:
        return ()
    found = []
    for context in asked:
        answer = served.get((key, not context))
        expected = answer_of(written, key, context)
        variant, value = (answer.variant, answer.value) if answer else ("", None)
        found.append(Answer(context, variant, value, expected))
    return tuple(found)


def answer_of(document: FlagdDocument, key: str, context: Context) -> str:
    """Return the variant that the document answers, empty where it answers none."""
    try:
        return document.answer(key, context)[0]
    except FlagError:
        return ""


def _row(flag: Flag, comparison: Comparison, answers: tuple[Answer, ...], on: bool) -> Row:
    rule = json.dumps(flag.targeting, ensure_ascii=False) if flag.targeting else ""
    found = known(flag.key, comparison.demo)
    return Row(
        flag=flag.key,
        written=switched(flag) or "none",
        default=flag.default_variant,
        rule=rule,
        answers=answers,
        on=on,
        why=_why(flag, rule, answers),
        known=found is not None,
    )


def _unwritten(answer: ServedFlag) -> Row:
    only = Answer(NOBODY, answer.variant, answer.value, "")
    return Row(answer.key, "", "", "", (only,), on=False, why=f"not in the document; {_STALE}", known=False)


def _why(flag: Flag, rule: str, answers: Sequence[Answer]) -> str:
    if not flag.enabled:
        return "DISABLED: services use their own defaults"
    wrong = [answer for answer in answers if not answer.agrees]
    if wrong:
        return f"by the document it is {wrong[0].expected or 'no variant'}; {_STALE}"
    seen = {answer.variant for answer in answers}
    if rule and seen - {flag.default_variant}:
        return f"its rule decides, not its default {flag.default_variant!r}: {_short(rule)}"
    if rule and seen - {switched(flag)}:
        return f"its rule answers so for whom it does not hold: {_short(rule)}"
    if rule:
        return f"by its rule: {_short(rule)}"
    return ""


def _short(rule: str) -> str:
    return rule if len(rule) <= _LONGEST_RULE else rule[: _LONGEST_RULE - 1] + "…"
