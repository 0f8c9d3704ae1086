"""Checks all citations of a diagnosis in a handful of statements."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from pytest_otel_diag.model.diagnosis import Diagnosis
from pytest_otel_diag.model.grounding import Claim, Grounding
from pytest_otel_diag.model.session import SessionWindows
from pytest_otel_diag.model.verdict import Verdict
from pytest_otel_diag.model.windows import Window
from pytest_otel_diag.ports import JudgeFacts
from pytest_otel_diag.scoring.grounding.checks import Checker
from pytest_otel_diag.scoring.grounding.citations import Citations, CitedFigure, Entity, citations_of
from pytest_otel_diag.scoring.grounding.facts import (
    BASELINE,
    FIRST_OTHER,
    INCIDENT,
    QUIET,
    REFERENCE,
    Asker,
    Facts,
    Wanted,
    sendable,
)
from pytest_otel_diag.scoring.grounding.figures import FigureChecker, mentioned_in
from pytest_otel_diag.scoring.grounding.query import check_query, described, returned
from pytest_otel_diag.scoring.names import ServiceNames

MOST_CLAIMS = 40
"""Refuted and unchecked claims that are kept with their texts."""

_MOST_WINDOWS = 8
_MOST_SEARCHED = 50


async def ground(
    diagnosis: Diagnosis, verdict: Verdict, facts: JudgeFacts, expected: Iterable[str] = ()
) -> Grounding:
    """Return what telemetry says of the citations of the diagnosis that *verdict* is about.

    *expected* are further services that exist: a fault may stop one before telemetry shows it. Statements
    that fail leave their claims unchecked. Raises TelemetryError where not even the schema is known.
    """
    citations = citations_of(diagnosis)
    names = ServiceNames(facts.known_services, verdict.parts)
    names = names.including(expected) if names.known else names
    labels = _labels(citations, facts.windows)
    figures = [*citations.figures.values(), *described(diagnosis)]
    wanted = _wanted(citations, figures, names)
    asker = Asker(
        facts.telemetry,
        await facts.telemetry.schema(),
        _labelled(facts.windows, labels, compared=any(figure.said.compared for figure in figures)),
        _known(facts.windows),
    )
    found = await asker.ask(wanted) if _known(facts.windows) else Facts()
    checker = Checker(found, names, facts.sightings)
    lost = [entity.name for entity in citations.entities.values() if _lost(entity, checker)]
    if lost and not found.problems.get("calls"):
        await asker.find_operations(sendable(lost)[:_MOST_SEARCHED])
    if not _known(facts.windows):
        return _Grounding(checker, citations, figures, labels, facts.windows).result(diagnosis, verdict)
    strangers = [one.name for one in citations.entities.values() if _strange(one, names)]
    if strangers and names.known:
        await asker.find_peers(sendable(strangers)[:_MOST_SEARCHED])
    grounding = _Grounding(checker, citations, figures, labels, facts.windows)
    first = grounding.checked()
    wrong = [figure for figure, one in zip(figures, first, strict=True) if _wrong(figure, one)]
    if not wrong:
        return grounding.result(diagnosis, verdict, first)
    await asker.look_again(wanted.services)
    return grounding.result(diagnosis, verdict)


@dataclass(frozen=True)
class _Grounding:
    checker: Checker
    citations: Citations
    figures: Sequence[CitedFigure]
    labels: dict[Window, int]
    windows: SessionWindows

    @property
    def judge(self) -> FigureChecker:
        return FigureChecker(
            self.checker,
            self.labels,
            has_baseline=self.windows.baseline is not None,
            has_reference=bool(self.windows.reference),
        )

    def checked(self) -> list[Claim]:
        """Return what the first look says of each figure."""
        judge = self.judge
        return [judge.check(figure) for figure in self.figures]

    def result(
        self, diagnosis: Diagnosis, verdict: Verdict, figures: Sequence[Claim] | None = None
    ) -> Grounding:
        """Return all claims; *figures* are those of the figures where they are known."""
        judge = self.judge
        claims = [self.checker.id(cited) for cited in self.citations.ids.values()]
        for figure, checked in zip(self.figures, figures or self.checked(), strict=True):
            shown = figure.place == "query.description" and returned(figure, verdict.query)
            claims.append(judge.confirmed(figure) if shown else checked)
        claims += check_query(diagnosis, verdict.query, self.checker.names)
        known, unknown, entities = 0, [], self.citations.entities if self.checker.names.known else {}
        for entity in entities.values():
            named = self.checker.entity(entity)
            known += named.outcome != "refuted"
            if entity.cited:
                claims.append(named)
            elif named.outcome == "refuted":
                unknown.append(named)
        listed = [one for wanted in ("refuted", "unchecked") for one in claims if one.outcome == wanted]
        return Grounding(
            confirmed=_count(claims, "confirmed"),
            refuted=_count(claims, "refuted"),
            unchecked=_count(claims, "unchecked"),
            left_out=self.citations.left_out,
            entities=len(entities),
            entities_known=known,
            claims=tuple((*unknown, *listed)[:MOST_CLAIMS]),
        )


def _count(claims: Iterable[Claim], outcome: str) -> int:
    return sum(one.outcome == outcome for one in claims)


def _known(windows: SessionWindows) -> list[Window]:
    own = (windows.incident, windows.baseline)
    return [window for window in own if window is not None] + list(windows.reference)


def _labels(citations: Citations, windows: SessionWindows) -> dict[Window, int]:
    """Return a label for each window of a figure that lies in the session's windows."""
    known = _known(windows)
    labels: dict[Window, int] = {}
    for figure in citations.figures.values():
        window = figure.window
        if not isinstance(window, Window) or window in labels or len(labels) >= _MOST_WINDOWS:
            continue
        if window.empty or window.minus(tuple(known)):
            continue  # some of it is telemetry that is none of this session's
        labels[window] = FIRST_OTHER + len(labels)
    return labels


def _labelled(
    windows: SessionWindows, labels: dict[Window, int], *, compared: bool
) -> list[tuple[int, Window]]:
    asked = [(label, window) for window, label in labels.items()]
    if windows.incident is not None:
        asked.append((INCIDENT, windows.incident))
    if windows.baseline is not None:
        asked.append((BASELINE, windows.baseline))
    if compared and windows.reference:
        asked += [(REFERENCE, window) for window in windows.reference]
        asked += [(QUIET, window) for window in windows.reference]
        asked += [(QUIET, windows.baseline)] if windows.baseline is not None else []
    return asked


def _wanted(citations: Citations, figures: Sequence[CitedFigure], names: ServiceNames) -> Wanted:
    """Return what to ask: calls only of services whose operations or figures are checked."""
    named = [entity.service for entity in citations.entities.values() if entity.kind == "operation"]
    named += [figure.service for figure in figures]
    services = [service for name in dict.fromkeys(named) if (service := names.resolve(name)) is not None]
    for text in dict.fromkeys(figure.text for figure in figures if figure.text):
        services += mentioned_in(text, names.known)
    amounts = [amount for figure in figures for amount in figure.said.amounts]
    measured = {amount.measure for amount in amounts}
    subjects = [(figure.said.amounts[0].measure, figure.subject) for figure in figures if figure.subject]
    return Wanted(
        services=sendable(dict.fromkeys(services)),
        trace_ids=sendable(id_ for kind, id_ in citations.ids if kind == "trace"),
        span_ids=sendable(id_ for kind, id_ in citations.ids if kind == "span"),
        latency=any(measure.endswith("_ms") for measure in measured),
        lines="log_lines" in measured,
        subjects=sendable(dict.fromkeys(s for measure, s in subjects if measure == "log_lines")),
        metrics=sendable(dict.fromkeys(s for measure, s in subjects if measure == "metric")),
    )


def _lost(entity: Entity, checker: Checker) -> bool:
    """Whether an operation is unknown to the service that it is named with."""
    if entity.kind != "operation":
        return False
    return not checker.operations(checker.names.resolve(entity.service) or "", entity.name)


def _wrong(figure: CitedFigure, checked: Claim) -> bool:
    """Whether further views on the calls may still confirm the figure."""
    about_calls = figure.said.amounts[0].measure not in {"metric", "log_lines"}
    return about_calls and checked.outcome == "refuted"


def _strange(entity: Entity, names: ServiceNames) -> bool:
    """Whether the name is that of no service, and of none of several."""
    return entity.kind == "service" and names.resolve(entity.name) is None
