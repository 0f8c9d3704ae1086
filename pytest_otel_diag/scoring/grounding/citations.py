"""Collects what a diagnosis cites, a limited number of each kind."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from itertools import islice
from typing import Literal, TypeVar

from pytest_otel_diag.model.diagnosis import Anomaly, Diagnosis, Evidence, Figure, Signal
from pytest_otel_diag.model.windows import Window
from pytest_otel_diag.scoring.grounding.prose import Amount, Period, Said, read_figures
from pytest_otel_diag.scoring.grounding.vocabulary import TO_MS
from pytest_otel_diag.scoring.grounding.written import Written, from_value

K = TypeVar("K")
V = TypeVar("V")

_HALF_PERCENT = 0.005

MOST_IDS = MOST_FIGURES = 200
MOST_ENTITIES = 500
MOST_CHARS = 100_000
"""What is checked of one diagnosis: ids, figures, names, and characters of its texts."""

_FIGURES_OF_A_TEXT = 50
_ID_CHARS = 64
_NAME_CHARS = 300
_NEAR_CHARS = 500
_MOST_TOUCHED = 20


@dataclass(frozen=True, slots=True)
class CitedId:
    """A cited trace or span; ``services`` are those that it should touch."""

    kind: Literal["trace", "span"]
    id: str
    place: str
    services: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Entity:
    """A named service, or an operation of ``service``; ``cited`` where evidence names it."""

    kind: Literal["service", "operation"]
    name: str
    place: str
    service: str = ""
    cited: bool = False


@dataclass(frozen=True, slots=True)
class CitedFigure:
    """A structured figure, or one in ``text``, which is about ``service`` unless it names another."""

    said: Said
    place: str
    service: str
    operation: str | None
    window: Period | Window
    subject: str = ""
    text: str = ""


@dataclass
class Citations:
    """What a diagnosis cites; ``left_out`` is how much of it goes beyond the limits."""

    ids: dict[tuple[str, str], CitedId] = field(default_factory=dict)
    entities: dict[tuple[str, str, str], Entity] = field(default_factory=dict)
    figures: dict[object, CitedFigure] = field(default_factory=dict)
    left_out: int = 0
    chars: int = 0

    def cite(self, found: CitedId) -> None:
        """Add a trace or span."""
        self._add(self.ids, (found.kind, found.id), found, MOST_IDS)

    def name(self, found: Entity) -> None:
        """Add a service or operation; a name in evidence counts as cited wherever else it stands."""
        if not found.name or len(found.name) > _NAME_CHARS:
            self.left_out += bool(found.name)
            return
        key = (found.kind, found.name, found.service if found.kind == "operation" else "")
        if found.cited and key in self.entities:
            self.entities[key] = found
        self._add(self.entities, key, found, MOST_ENTITIES)

    def state(self, found: CitedFigure) -> None:
        """Add a figure; the same one said twice counts once."""
        key = (found.service, found.operation, found.said.amounts, found.window, found.subject)
        self._add(self.figures, key, found, MOST_FIGURES)

    def read(self, text: str, place: str, service: str, operation: str | None) -> None:
        """Add the figures of a text about *service*."""
        left = max(0, MOST_CHARS - self.chars)
        self.chars += min(len(text), left)
        for said in islice(read_figures(text[:left]), _FIGURES_OF_A_TEXT):
            self.state(CitedFigure(said, place, service, operation, said.period, text=around(text, said)))

    def _add(self, into: dict[K, V], key: K, value: V, most: int) -> None:
        if key in into:
            return
        if len(into) < most:
            into[key] = value
        else:
            self.left_out += 1


def citations_of(diagnosis: Diagnosis) -> Citations:
    """Return what the diagnosis cites, in order of importance: root causes, anomalies, hypotheses, texts."""
    found = Citations()
    for place, service, operation, evidence in _findings(diagnosis):
        for nth, one in enumerate(evidence):
            _evidence(found, one, f"{place}.evidence.{nth}", service, operation)
    for nth, anomaly in enumerate(diagnosis.anomalies):
        for figure in _of_anomaly(anomaly, f"anomalies.{nth}"):
            found.state(figure)
    for nth, cause in enumerate(diagnosis.root_causes):
        found.read(cause.explanation, f"root_causes.{nth}.explanation", cause.service, cause.operation)
    first = diagnosis.root_causes[0] if diagnosis.root_causes else None
    found.read(
        diagnosis.summary, "summary", first.service if first else "", first.operation if first else None
    )
    for nth, hypothesis in enumerate(diagnosis.hypotheses):
        for name, text in (("statement", hypothesis.statement), ("reason", hypothesis.reason)):
            found.read(text, f"hypotheses.{nth}.{name}", hypothesis.service or "", None)
    for entity in _entities(diagnosis):
        found.name(entity)
    return found


def around(text: str, said: Said) -> str:
    """Return the part of *text* in which the names stand that the figure is about."""
    return text[max(0, said.at - _NEAR_CHARS) : said.at + _NEAR_CHARS]


def _findings(diagnosis: Diagnosis) -> Iterator[tuple[str, str, str | None, tuple[Evidence, ...]]]:
    for nth, cause in enumerate(diagnosis.root_causes):
        yield f"root_causes.{nth}", cause.service, cause.operation, cause.evidence
    for nth, anomaly in enumerate(diagnosis.anomalies):
        yield f"anomalies.{nth}", anomaly.service, anomaly.operation, anomaly.evidence


def _evidence(found: Citations, one: Evidence, place: str, service: str, operation: str | None) -> None:
    touched = (service, *one.services[:_MOST_TOUCHED])
    for name in one.services:
        found.name(Entity("service", name, place, cited=True))
    for name in one.operations:
        found.name(Entity("operation", name, place, service, cited=True))
    for cited in one.trace_ids:
        found.cite(CitedId("trace", cited.strip()[:_ID_CHARS], place, touched))
    for cited in one.span_ids:
        found.cite(CitedId("span", cited.strip()[:_ID_CHARS], place, touched))
    for figure in one.figures:
        found.state(structured(figure, place))
    found.read(one.summary, f"{place}.summary", service, operation)


def structured(figure: Figure, place: str) -> CitedFigure:
    """Return a structured figure as a statement with one amount."""
    written = from_value(figure.value)
    unit = figure.unit.strip().lower()
    if figure.measure == "error_ratio" and unit in {"%", "percent"}:
        written = written.times(0.01)
    elif figure.measure == "error_ratio" and figure.value.is_integer():
        written = Written(figure.value, _HALF_PERCENT, _HALF_PERCENT)  # 0 is no rounding of 0.4
    elif figure.measure.endswith("_ms"):
        written = written.times(TO_MS.get(unit, 1.0))
    else:
        written = written if figure.measure in {"metric", "error_ratio"} else written.strict()
    whose = " ".join(part for part in (figure.service, figure.operation, figure.subject) if part)
    text = (
        f"{figure.measure} {figure.value:g} {figure.unit}".rstrip() + f" of {whose}, {_named(figure.window)}"
    )
    said = Said((Amount(figure.measure, written),), "incident", text)
    return CitedFigure(said, place, figure.service, figure.operation, figure.window, figure.subject)


def _of_anomaly(anomaly: Anomaly, place: str) -> Iterator[CitedFigure]:
    """Yield the shares of failed calls that an anomaly states; other signals leave the statistic open."""
    unit = anomaly.unit.strip().lower()
    if anomaly.signal is not Signal.ERROR_RATE or unit not in {"ratio", "%", "percent"}:
        return
    stated: tuple[tuple[Period, float | None], ...] = (
        ("incident", anomaly.observed),
        ("baseline", anomaly.baseline),
    )
    for window, value in stated:
        if value is not None:
            figure = Figure(
                measure="error_ratio",
                service=anomaly.service,
                operation=anomaly.operation,
                window=window,
                value=value,
                unit="" if unit == "ratio" else "%",
            )
            one = structured(figure, f"{place}.{'observed' if window == 'incident' else 'baseline'}")
            yield replace(one, said=replace(one.said, compared=window == "baseline"))


def _named(window: str | Window) -> str:
    return str(window) if isinstance(window, Window) else window


def _entities(diagnosis: Diagnosis) -> Iterator[Entity]:
    for nth, cause in enumerate(diagnosis.root_causes):
        yield from _pair(f"root_causes.{nth}", cause.service, cause.operation)
        yield from _of_figures(f"root_causes.{nth}", cause.evidence)
    for nth, anomaly in enumerate(diagnosis.anomalies):
        yield from _pair(f"anomalies.{nth}", anomaly.service, anomaly.operation)
        yield from _of_figures(f"anomalies.{nth}", anomaly.evidence)
    for nth, path in enumerate(diagnosis.critical_paths):
        ends = (path.startService, path.endService)
        hops = (name for edge in path.edges for name in (edge.source, edge.target))
        for name in (*path.services, *ends, *hops):
            yield Entity("service", name, f"critical_paths.{nth}")
    for nth, hypothesis in enumerate(diagnosis.hypotheses):
        if hypothesis.service:
            yield Entity("service", hypothesis.service, f"hypotheses.{nth}")


def _of_figures(place: str, evidence: tuple[Evidence, ...]) -> Iterator[Entity]:
    for one in evidence:
        for figure in one.figures:
            yield from _pair(place, figure.service, figure.operation)


def _pair(place: str, service: str, operation: str | None) -> Iterator[Entity]:
    yield Entity("service", service, place)
    if operation:
        yield Entity("operation", operation, place, service)
