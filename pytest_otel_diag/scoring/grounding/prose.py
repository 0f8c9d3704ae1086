"""Reads figures in sentences: "12 of 19 calls failed", "p95 1.2 s against 300 ms", "error rate rose to 37 %".

Only forms with one meaning are read; everything else is no claim. Every token is looked at a bounded number
of times, so that the parser takes linear time whatever the text.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Literal

from pytest_otel_diag.model.diagnosis import Measure
from pytest_otel_diag.scoring.grounding.sentences import Clause, clauses, sentences
from pytest_otel_diag.scoring.grounding.vocabulary import (
    BASELINE,
    BOUNDS,
    BOUNDS_OF_TWO,
    CALLS,
    CHANGED,
    CONNECTIVES,
    FAIL,
    INCIDENT,
    LINES,
    MOVES,
    NOT_FAIL,
    PERCENT,
    PLAIN,
    QUANTILES,
    QUIET,
    RESTRICTING,
    RESTRICTING_AFTER,
    TO_MS,
    UNITS,
)
from pytest_otel_diag.scoring.grounding.written import Bound, Written, read_number

MOST_CHARS = 20_000
"""Characters of one text that are read."""

Period = Literal["incident", "baseline"]

_WITH_FIGURES = re.compile(r"fail|err|p50|p95|p99|median|log", re.IGNORECASE)
"""What every text with a figure contains: most texts have none and need no parser."""

_QUALIFIERS = 5
"""Words before the noun that are looked at."""

_REACH = 14
"""Words after the name of a quantile in which its durations stand."""


@dataclass(frozen=True, slots=True)
class Amount:
    """One number of a statement; latencies in milliseconds, shares as ratios."""

    measure: Measure
    written: Written


@dataclass(frozen=True, slots=True)
class Said:
    """A statement about the calls (or log lines) of one window; its amounts belong together.

    ``part`` says that it may be about a part of the calls only, so that a greater total does not contradict
    it. ``qualifiers`` are the words before the noun ("gold calls"), which may name an operation or a part.
    ``compared`` says that it may be about any quiet time. ``at`` is its place in the text.
    """

    amounts: tuple[Amount, ...]
    period: Period
    text: str
    at: int = 0
    part: bool = False
    compared: bool = False
    qualifiers: tuple[str, ...] = ()


def read_figures(text: str) -> Iterator[Said]:
    """Yield the figures that *text* states, in order."""
    text = text[:MOST_CHARS]
    if not _WITH_FIGURES.search(text):
        return
    for sentence in sentences(text):
        failing = restricted = False
        for clause in clauses(sentence):
            if clause.words & (FAIL | NOT_FAIL):  # else the predicate of the clause before holds on
                failing = not clause.words & NOT_FAIL
                restricted = bool(clause.words & (RESTRICTING | RESTRICTING_AFTER))
            if failing:
                for said in (*_pairs(clause), *_shares(clause)):
                    yield replace(said, part=said.part or restricted) if _carried(clause) else said
            yield from _counts(clause)
        yield from _quantiles(sentence)


def _carried(clause: Clause) -> bool:
    return not clause.words & FAIL


def _pairs(clause: Clause) -> Iterator[Said]:
    """Yield "12 of 19 calls failed", "12/19 requests failed", "all 19 calls failed", "none of 240"."""
    for index in range(clause.low, clause.high):
        word = clause.word(index)
        after = _after_of(clause, index)
        if after is None or not clause.is_number(after) or not _of_what(clause, after):
            continue
        if not clause.separate(after, UNITS, slash=True) or _bound(clause, index) != "exact":
            continue
        total = read_number(clause.word(after))
        part = total if word == "all" else read_number("0" if word == "none" else word)
        if part is None or total is None or part.value > total.value:
            continue
        if clause.is_number(index) and not clause.separate(index, UNITS, slash=True):
            continue
        yield _said(
            clause, (Amount("failed", part.strict()), Amount("calls", total.strict())), index, after + 1
        )


def _after_of(clause: Clause, index: int) -> int | None:
    """Return where the total of "N of M", "all M" or "none of M" stands, None where none of them begins."""
    after = index + 1
    if clause.is_number(index):
        after += clause.word(after) == "out"
        if clause.word(after) not in {"of", "/"}:
            return None
        after += 1
    elif clause.word(index) == "none" and clause.word(after) == "of":
        after += 1
    elif clause.word(index) != "all":
        return None
    while clause.word(after) in {"the", "its"}:
        after += 1
    return after


def _of_what(clause: Clause, index: int) -> bool:
    """Whether the number at *index* counts calls: of "19 payment calls", or of nothing that is named."""
    following = clause.word(index + 1)
    if following in {"", "→", *FAIL}:
        return True
    near = {clause.word(index + step) for step in (1, 2, 3)}
    return bool(near & CALLS) or following in {"in", "did", "have", "were"}


def _shares(clause: Clause) -> Iterator[Said]:
    """Yield "error rate rose from 0.5 % to 37 %" and "37 % of calls failed"."""
    for index in clause.numbers():
        if clause.word(index - 1) == "by" or not clause.separate(index, UNITS):
            continue
        factor = _share_factor(clause, index)
        written = read_number(clause.word(index), _bound(clause, index))
        if factor is None or written is None:
            continue
        share = written.times(factor)
        if share.value <= 1.0:
            yield _said(clause, (Amount("error_ratio", share),), index, index + 1)


def _share_factor(clause: Clause, index: int) -> float | None:
    """Return what turns the number into a ratio, None where it is no share of failed calls."""
    following = clause.word(index + 1)
    if following in PERCENT:
        return 0.01 if _of_all_calls(clause, index + 2) else None
    if following in {"→", "to"} and clause.is_number(index + 2) and clause.word(index + 3) in PERCENT:
        return 0.01
    if not clause.words & {"rate", "ratio", "share"} or "." not in clause.word(index):
        return None
    return None if following in CALLS | TO_MS.keys() | {"of", "/", "out", "times", "x"} else 1.0


def _of_all_calls(clause: Clause, index: int) -> bool:
    """Whether the words after a percentage leave it a share of all calls."""
    following = clause.word(index)
    if following == "of":
        return bool({clause.word(index + step) for step in (1, 2, 3, 4)} & CALLS)
    return following not in CHANGED


def _counts(clause: Clause) -> Iterator[Said]:
    """Yield "12 failed calls" and "37 error log lines", which may be a part of them."""
    for index in clause.numbers():
        one, two, three = (clause.word(index + step) for step in (1, 2, 3))
        measure: Measure
        if one in {"failed", "failing"} and two in CALLS:
            measure = "failed"
        elif "log" in {one, two} and {two, three} & LINES:
            measure = "log_lines"
        else:
            continue
        if clause.word(index - 1) in {"of", "/", "all", "by"} or clause.words & {"per", "/", "no", "not"}:
            continue
        written = read_number(clause.word(index), _bound(clause, index))
        if written is not None and clause.separate(index, UNITS):
            yield replace(_said(clause, (Amount(measure, written),), index, index + 3), part=True)


def _quantiles(sentence: Clause) -> Iterator[Said]:
    """Yield "p95 rose from 300 ms to 1.2 s": the durations that follow the name of a quantile."""
    names = [index for index in range(sentence.low, sentence.high) if sentence.word(index) in QUANTILES]
    for index, following in zip(names, [*names[1:], sentence.high][: len(names)], strict=True):
        high = min(following, index + _REACH, sentence.high)
        reach = Clause(sentence.text, sentence.tokens, index, high)
        yield from _durations(reach, QUANTILES[sentence.word(index)])


def _durations(clause: Clause, measure: Measure) -> Iterator[Said]:
    for nth, index in enumerate(clause.numbers()):
        factor = _ms_factor(clause, index)
        written = read_number(clause.word(index), _bound(clause, index))
        alone = clause.separate(index, UNITS) and clause.word(index - 1) != "by"
        if factor is None or written is None or not alone:
            return
        said = _said(clause, (Amount(measure, written.times(factor)),), index, index + 1)
        if nth and not said.compared and not _linked(clause, index):
            return
        yield replace(said, text=clause.quoted(clause.low, index + 1))


def _ms_factor(clause: Clause, index: int) -> float | None:
    following = clause.word(index + 1)
    if following in {"→", "to"} and clause.is_number(index + 2):
        following = clause.word(index + 3)
    return TO_MS.get(following)


def _linked(clause: Clause, index: int) -> bool:
    """Whether a second number is about the same quantity: it follows ``to`` or ``→``, or names its window."""
    if clause.word(_before_bound(clause, index)) in {"to", "→"}:
        return True
    return bool(_near(clause, index) & (BASELINE | QUIET | INCIDENT))


def _bound(clause: Clause, index: int) -> Bound:
    one, two = clause.word(index - 1), clause.word(index - 2)
    return BOUNDS_OF_TWO.get((two, one)) or BOUNDS.get(one, "exact")


def _before_bound(clause: Clause, index: int) -> int:
    """Return the place before the number and before the words that bound it."""
    if (clause.word(index - 2), clause.word(index - 1)) in BOUNDS_OF_TWO:
        return index - 3
    return index - 2 if clause.word(index - 1) in BOUNDS else index - 1


def _said(clause: Clause, amounts: tuple[Amount, ...], index: int, last: int) -> Said:
    period, compared = _period(clause, index)
    restricted = clause.words & RESTRICTING
    if amounts[0].measure in {"failed", "error_ratio"}:
        moves = clause.words & MOVES - {"to"}
        restricted |= clause.between(last, clause.high) & (
            RESTRICTING_AFTER - {"from"} if moves else RESTRICTING_AFTER
        )
    text = clause.quoted(clause.low, clause.high - 1)
    at = clause.tokens[index].start
    qualifiers = _qualifiers(clause, last)
    return Said(amounts, period, text, at, part=bool(restricted), compared=compared, qualifiers=qualifiers)


def _qualifiers(clause: Clause, index: int) -> tuple[str, ...]:
    """Return the words between a number and the calls that it counts."""
    words: list[str] = []
    for place in range(index, index + _QUALIFIERS + 1):
        word = clause.word(place)
        if word in CALLS:
            return tuple(one for one in words if one not in PLAIN | PERCENT | FAIL)
        if clause.is_number(place):
            break
        words.append(word)
    return ()


def _period(clause: Clause, index: int) -> tuple[Period, bool]:
    """Return the window that the number is about, and whether a comparison rather than a name says so."""
    near = _near(clause, index)
    if near & INCIDENT and not near & (BASELINE | QUIET):
        return "incident", False
    if near & BASELINE and not near & INCIDENT:
        return "baseline", False
    if near & QUIET:
        return "baseline", True
    place = _before_bound(clause, index)
    one, two = clause.word(place), clause.word(place - 1)
    against = (
        one in {"against", "vs", "versus", "than"} or (two, one) == ("instead", "of") or two == "compared"
    )
    moved = one == "from" and bool(clause.words & MOVES)
    arrow = "→" in {clause.word(index + 1), clause.word(index + 2)}
    return ("baseline", True) if against or moved or arrow else ("incident", False)


def _near(clause: Clause, index: int) -> frozenset[str]:
    """Return the words around the number, as far as no other number or comparison stands between."""
    low = index
    while low > clause.low and not _breaks(clause, low - 1):
        low -= 1
    high = index + 1
    if clause.word(high) in {"of", "/", "out"}:  # the rest of "12 of 19"
        high += 2 + (clause.word(high) == "out")
        high += clause.word(high - 1) in {"the", "its"}
    while high < clause.high and not _breaks(clause, high):
        high += 1
    return clause.between(low, high)


def _breaks(clause: Clause, index: int) -> bool:
    return clause.is_number(index) or clause.word(index) in CONNECTIVES
