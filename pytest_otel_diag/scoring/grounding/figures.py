"""Compares figures with telemetry: in every way in which they can be meant, before they are called wrong."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache

from pytest_otel_diag.model.grounding import Claim
from pytest_otel_diag.model.windows import Window
from pytest_otel_diag.scoring.grounding.checks import Checker, claim
from pytest_otel_diag.scoring.grounding.citations import CitedFigure
from pytest_otel_diag.scoring.grounding.facts import (
    BASELINE,
    INCIDENT,
    QUIET,
    REFERENCE,
    Calls,
    Lines,
)
from pytest_otel_diag.scoring.grounding.prose import Amount
from pytest_otel_diag.scoring.names import mentions

_ROLES = ("entry", "", "exit", "inner")
_ROLES_OF_OPERATIONS = ("", "entry", "exit", "inner")
_WORD = re.compile(r"[\w-]+")
_MOST_MENTIONED = 4
_SHORTEST_OPERATION = 3
_WHEN = {INCIDENT: "the incident", BASELINE: "the baseline"}


@dataclass(frozen=True, slots=True)
class Reading:
    """One way to understand of which calls a figure speaks."""

    words: str
    calls: Calls


@dataclass(frozen=True)
class FigureChecker:
    """Judges figures; ``labels`` are the labels of windows other than incident and baseline."""

    checker: Checker
    labels: Mapping[Window, int]
    has_baseline: bool
    has_reference: bool

    def check(self, figure: CitedFigure) -> Claim:
        """Return whether telemetry confirms the figure."""
        label = self._label(figure.window)
        services = self._services(figure)
        obstacle = self._obstacle(figure, label, services)
        if label is None or obstacle:
            return self._unchecked(figure, obstacle)
        measure = figure.said.amounts[0].measure
        if measure == "metric":
            return self._metric(figure, label)
        if measure == "log_lines":
            return self._lines(figure, services, label)
        return self._calls(figure, services, label)

    def _obstacle(self, figure: CitedFigure, label: int | None, services: Sequence[str]) -> str:
        """Return why the figure cannot be checked, '' where it can."""
        measure = figure.said.amounts[0].measure
        if label is None:
            return "its window is none of the session's"
        if label == BASELINE and not self.has_baseline:
            return "the session has no baseline"
        kind = {"log_lines": "lines", "metric": "points"}.get(measure, "calls")
        if kind in self.checker.facts.problems:
            return self.checker.facts.problems[kind]
        return "" if services else "which service it is about is open"

    def _label(self, window: str | Window) -> int | None:
        if isinstance(window, Window):
            return self.labels.get(window)
        return INCIDENT if window == "incident" else BASELINE

    def _unchecked(self, figure: CitedFigure, why: str) -> Claim:
        return claim("figure", figure.place, figure.said.text, "unchecked", why)

    def _refuted(self, figure: CitedFigure, truth: str) -> Claim:
        return claim("figure", figure.place, figure.said.text, "refuted", truth)

    def confirmed(self, figure: CitedFigure) -> Claim:
        """Return the figure as a confirmed claim."""
        return claim("figure", figure.place, figure.said.text, "confirmed")

    def _calls(self, figure: CitedFigure, services: Sequence[str], label: int) -> Claim:
        readings = list(self._readings(figure, services, label))
        answers = [_agreement(figure.said.amounts, reading.calls) for reading in readings]
        quiet = figure.said.compared and self._agrees(figure, services, (REFERENCE, QUIET))
        if True in answers or quiet:
            return self.confirmed(figure)
        truth = _truth(figure.said.amounts, readings, label)
        doubt = self._doubt(figure, services, label, readings, open_=None in answers)
        if doubt:
            return self._unchecked(figure, f"{doubt}; {truth}")
        other = {INCIDENT: BASELINE, BASELINE: INCIDENT}.get(label)
        if other is not None and self._agrees(figure, services, (other,)):
            truth += f"; the figure is that of {_WHEN[other]}"
        return self._refuted(figure, truth)

    def _doubt(
        self,
        figure: CitedFigure,
        services: Sequence[str],
        label: int,
        readings: Sequence[Reading],
        *,
        open_: bool,
    ) -> str:
        """Return why a figure that agrees with no reading may still be right, '' where it is wrong."""
        facts, said = self.checker.facts, figure.said
        if open_:
            return "its rounding or bound leaves it open"
        if "views" in facts.problems:
            return "how its callers see it is unknown"
        if said.compared and self.has_reference:
            return "it may be about another quiet time"
        if self._partial(figure, services) and any(_possible(said.amounts, one.calls) for one in readings):
            return "it may be about a part of the calls"
        if all((label, service, None, "") not in facts.calls for service in services):
            return "it may be about calls that only its callers see"
        return ""

    def _partial(self, figure: CitedFigure, services: Sequence[str]) -> bool:
        """Whether it may be about some of the calls: its words restrict it, or qualify them by no name."""
        names = " ".join((*services, *(name for one in services for name in self._known(one)))).casefold()
        return figure.said.part or any(word not in names for word in figure.said.qualifiers)

    def _known(self, service: str) -> Iterable[str]:
        return self.checker.facts.operations.get(service, ())

    def _agrees(self, figure: CitedFigure, services: Sequence[str], labels: Sequence[int]) -> bool:
        return any(
            _agreement(figure.said.amounts, reading.calls) is True
            for label in labels
            for reading in self._readings(figure, services, label)
        )

    def _services(self, figure: CitedFigure) -> list[str]:
        """Return the services that the figure may be about, those that its text names first."""
        own = self.checker.names.resolve(figure.service)
        mentioned = mentioned_in(figure.text, self.checker.names.known) if figure.text else []
        if len(mentioned) > _MOST_MENTIONED:
            return []
        return list(dict.fromkeys([*mentioned, *([own] if own is not None else [])]))

    def _readings(self, figure: CitedFigure, services: Sequence[str], label: int) -> Iterator[Reading]:
        """Yield the calls that the figure may be about, the likeliest first."""
        facts = self.checker.facts
        found = False
        for key, words in self._keys(figure, services, label):
            calls = facts.calls.get(key)
            if calls is not None:
                found = True
                yield Reading(words, calls)
        for service in services:
            for words, calls in facts.views.get((label, service), ()):
                yield Reading(f"{service} {words}", calls)
        if not found:
            yield Reading(" ".join(part for part in (services[0], figure.operation) if part), Calls())

    def _keys(
        self, figure: CitedFigure, services: Sequence[str], label: int
    ) -> Iterator[tuple[tuple[int, str, str | None, str], str]]:
        for service in services:
            for operation in self._operations(figure, service):
                for role in _ROLES_OF_OPERATIONS:
                    yield (label, service, operation, role), f"{service} {operation}"
        if figure.text or figure.operation is None:
            for service in services:
                for role in _ROLES:
                    yield (label, service, None, role), service

    def _operations(self, figure: CitedFigure, service: str) -> list[str]:
        known = self._known(service)
        text = figure.text.casefold()
        words = set(_WORD.findall(text))
        named = [name for name in known if len(name) >= _SHORTEST_OPERATION and name.casefold() in text]
        named += [name for name in known if _short(name) in words]
        own = self.checker.operations(service, figure.operation) if figure.operation else []
        return list(dict.fromkeys([*named, *own]))

    def _lines(self, figure: CitedFigure, services: Sequence[str], label: int) -> Claim:
        counted = [
            self.checker.facts.lines.get((label, service)) or Lines(0, 0, 0, {}) for service in services
        ]
        written = figure.said.amounts[0].written
        if figure.subject:
            holding = [one.holding.get(figure.subject, 0) for one in counted]
            if any(written.judged(number, number) for number in holding):
                return self.confirmed(figure)
            return self._refuted(figure, f"{holding[0]} lines contain {figure.subject!r}")
        numbers = [number for one in counted for number in (one.lines, one.severe, one.errors)]
        if any(written.judged(number, number) for number in numbers):
            return self.confirmed(figure)
        truth = f"{counted[0].lines} lines, {counted[0].severe} of them warnings and worse, in {_when(label)}"
        if figure.said.part and written.value - written.half <= max(numbers):
            return self._unchecked(figure, f"it may be about a part of the lines; {services[0]} has {truth}")
        return self._refuted(figure, truth)

    def _metric(self, figure: CitedFigure, label: int) -> Claim:
        service = self.checker.names.resolve(figure.service) or figure.service
        points = self.checker.facts.points.get((label, service, figure.subject))
        if points is None:
            return self._unchecked(figure, f"{service} emits no gauge or sum of this name in {_when(label)}")
        written = figure.said.amounts[0].written
        stated = (points.mean, points.least, points.most, points.last)
        if any(written.judged(value, value) for value in stated):
            return self.confirmed(figure)
        truth = f"{points.least:.4g} to {points.most:.4g}, mean {points.mean:.4g}, in {_when(label)}"
        if points.total or written.judged(points.least, points.most) is not False:
            return self._unchecked(figure, f"which of its values is meant is open; {truth}")
        return self._refuted(figure, truth)


@lru_cache(maxsize=10_000)
def _short(operation: str) -> str:
    """Return the last part of the name of an operation, ``charge`` of ``oteldemo.PaymentService/Charge``."""
    last = re.split(r"[/.:# ]", operation.casefold())[-1]
    return last if len(last) >= _SHORTEST_OPERATION else ""


def mentioned_in(text: str, names: Sequence[str]) -> list[str]:
    """Return those of *names* that stand in the text as words."""
    words = {word.casefold() for word in _WORD.findall(text)}
    return [
        name
        for name in names
        if (name.casefold() in words if _WORD.fullmatch(name) else mentions(text, name))
    ]


def _agreement(amounts: Sequence[Amount], calls: Calls) -> bool | None:
    """Return whether all amounts agree with these calls, None where rounding or a bound leaves it open."""
    answers: list[bool | None] = []
    for amount in amounts:
        true = calls.span_of(amount.measure)
        answers.append(False if true is None else amount.written.judged(*true))
    if False in answers:
        return False
    return None if None in answers else True


def _possible(amounts: Sequence[Amount], calls: Calls) -> bool:
    """Whether some of these calls can be what the amounts speak of."""
    for amount in amounts:
        least = amount.written.value - amount.written.half
        if amount.measure == "calls" and least > calls.calls:
            return False
        if amount.measure == "failed" and least > calls.failed:
            return False
        if amount.measure == "error_ratio" and least > 0 and not calls.failed:
            return False
        if amount.measure.endswith("_ms") and least > calls.longest_ns / 1e6:
            return False
    return True


def _truth(amounts: Sequence[Amount], readings: Sequence[Reading], label: int) -> str:
    """Return what telemetry has in place of the amounts, in the likeliest reading."""
    best = next((one for one in readings if one.calls.calls), readings[0])
    calls = best.calls
    measures = {amount.measure for amount in amounts}
    if not calls.calls:
        words = "no calls"
    elif measures <= {"calls", "failed", "error_ratio"}:
        words = f"{calls.failed} of {calls.calls} calls failed"
        if "error_ratio" in measures:
            words += f" ({100 * calls.failed / calls.calls:.3g} %)"
    else:
        span = calls.span_of(amounts[0].measure) or (0.0, 0.0)
        words = f"{amounts[0].measure.removesuffix('_ms')} {span[0]:.4g} ms"
        if span[1] > span[0]:
            words = f"{words.removesuffix(' ms')} to {span[1]:.4g} ms"
    return f"telemetry: {words} ({best.words}, {_when(label)})"


def _when(label: int) -> str:
    return _WHEN.get(label, "its window")
