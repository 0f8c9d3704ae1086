"""Turns an answer, in whatever shape an agent wrote it, into a diagnosis, and notes what was left out."""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Iterable, Mapping
from itertools import pairwise
from typing import Any, TypeVar, get_args

from pydantic import ValidationError

from pytest_otel_diag.errors import AnalyzerError
from pytest_otel_diag.model.base import Model
from pytest_otel_diag.model.diagnosis import (
    Anomaly,
    CriticalPath,
    Diagnosis,
    DiagnosticQuery,
    Direction,
    Evidence,
    Figure,
    Hypothesis,
    Mechanism,
    PathEdge,
    PathMetrics,
    RootCause,
    Signal,
)

M = TypeVar("M", bound=Model)

MOST_ITEMS = 200
"""Items of a list that are read."""
MOST_CHARACTERS = 8_000
"""Characters of a text that are kept."""

_SHOWN_REMARKS = 5
_ARROW = re.compile(r"\s*(?:→|->|>)\s*")
_NO_FIGURES = PathMetrics(requestCount=0, avgLatency=0.0, errorRate=0.0, p99Latency=0.0)

MECHANISMS: Mapping[str, Mechanism] = {
    "errors": Mechanism.ERROR,
    "failure": Mechanism.ERROR,
    "exception": Mechanism.ERROR,
    "slow": Mechanism.LATENCY,
    "slowness": Mechanism.LATENCY,
    "delay": Mechanism.LATENCY,
    "cpu_saturation": Mechanism.CPU,
    "high_cpu": Mechanism.CPU,
    "memory_leak": Mechanism.MEMORY,
    "oom": Mechanism.MEMORY,
    "garbage_collection": Mechanism.GC,
    "packet_loss": Mechanism.NETWORK,
    "unavailable": Mechanism.UNREACHABLE,
    "connection_refused": Mechanism.UNREACHABLE,
    "down": Mechanism.UNREACHABLE,
    "queue_lag": Mechanism.QUEUE,
    "backlog": Mechanism.QUEUE,
    "load": Mechanism.TRAFFIC,
    "traffic_spike": Mechanism.TRAFFIC,
    "misconfiguration": Mechanism.CONFIGURATION,
    "config": Mechanism.CONFIGURATION,
}
"""Words for mechanisms beside those of the taxonomy."""

_STATUSES = {
    **dict.fromkeys(("kept", "confirmed", "accepted", "supported", "true"), "kept"),
    **dict.fromkeys(("eliminated", "rejected", "refuted", "ruled_out", "discarded", "false"), "eliminated"),
}
_YES = frozenset({"true", "yes", "y", "1"})
_NO = frozenset({"false", "no", "n", "0"})
_HALVES = re.compile("[\ud800-\udfff]")
_CAUSES = ("root_causes", "root_cause", "rootCauses", "rootCause")
_NAMES = ("service", "name", "component", "service_name", "serviceName")


class AnswerReader:
    """Reads one answer; ``remarks`` say what was left out."""

    def __init__(self, answer: Mapping[str, Any]) -> None:
        self._answer = answer
        self.remarks: list[str] = []

    def diagnosis(self) -> Diagnosis:
        """Return the diagnosis; raises AnalyzerError for an answer that is none."""
        given = _first(self._answer, _CAUSES)
        causes = self._each(given, RootCause, self._cause)
        stated = self._answer.get("detected")
        detected = _truth(stated)
        if detected is None and stated is not None:
            self._leave_out("detected", stated)
        if detected is None and not causes:
            raise AnalyzerError(
                "the answer is no diagnosis: it states neither detected nor root_causes; write "
                '{"detected": true, "root_causes": [{"service": "NAME"}]}'
            )
        if given and not causes:
            raise AnalyzerError(
                f"the root causes cannot be read: {'; '.join(self.remarks)[:500]}; write "
                '[{"service": "NAME", "mechanism": "error", "confidence": 0.8}]'
            )
        diagnosis = Diagnosis(
            detected=bool(causes) if detected is None else detected,
            root_causes=causes,
            anomalies=self._each(self._answer.get("anomalies"), Anomaly, self._anomaly),
            critical_paths=self._paths(),
            query=self._query(),
            hypotheses=self._each(self._answer.get("hypotheses"), Hypothesis, _hypothesis),
            confidence=self._confidence(self._answer, causes),
        )
        return diagnosis.model_copy(update={"summary": self._summary()})  # once all remarks are known

    def _summary(self) -> str:
        """Return the summary with what was left out."""
        text = _text(self._answer.get("summary"))
        shown = "; ".join(self.remarks[:_SHOWN_REMARKS])
        more = len(self.remarks) - _SHOWN_REMARKS
        ending = f"; and {more} more" if more > 0 else ""
        return " ".join(filter(None, (text, f"(left out of the answer: {shown}{ending})" if shown else "")))

    def _each(
        self, items: Any, model: type[M], shape: Callable[[Any], Mapping[str, Any] | None]
    ) -> tuple[M, ...]:
        """Return the items of a list, or the single one, that have the shape of *model*."""
        found = []
        for item in _listed(items):
            shaped = shape(item)
            try:
                if shaped is None:
                    raise ValueError("no object")
                found.append(model.model_validate(shaped))
            except (ValidationError, ValueError) as error:
                self._leave_out(model.__name__, item, error)
        return tuple(found)

    def _cause(self, item: Any) -> Mapping[str, Any] | None:
        if isinstance(item, str):
            return {"service": _text(item)}
        if not isinstance(item, Mapping):
            return None
        sentences = [_text(one) for one in _listed(item.get("evidence")) if isinstance(one, str)]
        explanation = _text(_first(item, ("explanation", "reason", "description")))
        return {
            "service": _name(item),
            "operation": _text(item.get("operation")) or None,
            "mechanism": self._mechanism(item.get("mechanism")),
            "confidence": self._confidence(item),
            "explanation": " ".join(filter(None, (explanation, *sentences))),
            "evidence": self._evidence(item),
        }

    def _anomaly(self, item: Any) -> Mapping[str, Any] | None:
        if not isinstance(item, Mapping):
            return None
        direction = _word(item.get("direction"))
        return {
            "service": _name(item),
            "signal": Signal(_word(item.get("signal"))) if _word(item.get("signal")) in set(Signal) else None,
            "operation": _text(item.get("operation")) or None,
            "direction": direction if direction in get_args(Direction) else "changed",
            "baseline": _number(item.get("baseline")),
            "observed": _number(item.get("observed")),
            "unit": _text(item.get("unit")),
            "evidence": self._evidence(item),
        }

    def _evidence(self, item: Mapping[str, Any]) -> tuple[Evidence, ...]:
        objects = [one for one in _listed(item.get("evidence")) if isinstance(one, Mapping)]
        return self._each(objects, Evidence, self._one_evidence)

    def _one_evidence(self, item: Mapping[str, Any]) -> Mapping[str, Any]:
        source = _word(item.get("source")) or "traces"
        return {
            "source": source if source.endswith("s") else f"{source}s",
            "summary": _text(_first(item, ("summary", "description", "text"))),
            "figures": self._each(item.get("figures"), Figure, _figure),
            **{
                name: tuple(_text(one) for one in _listed(item.get(name)) if isinstance(one, str))
                for name in ("trace_ids", "span_ids", "services", "operations")
            },
        }

    def _mechanism(self, value: Any) -> Mechanism | None:
        word = _word(value)
        if not word:
            return None
        known = {str(one): one for one in Mechanism} | dict(MECHANISMS)
        if word not in known:
            self._leave_out("mechanism", value)
        return known.get(word)

    def _confidence(self, item: Mapping[str, Any], causes: tuple[RootCause, ...] = ()) -> float:
        """Return a probability; percentages are read, words are not."""
        value = item.get("confidence")
        if value is None:
            return causes[0].confidence if causes else 0.0
        percent = isinstance(value, str) and value.strip().endswith("%")
        number = _number(value.strip().rstrip("% ") if isinstance(value, str) else value)
        if number is not None and (percent or 1 < number <= 100):
            number /= 100
        if number is None or not 0 <= number <= 1:
            self._leave_out("confidence", value)
            return 0.0
        return number

    def _paths(self) -> tuple[CriticalPath, ...]:
        given = _first(self._answer, ("critical_paths", "critical_path", "criticalPaths", "criticalPath"))
        items = _listed(given)
        if items and all(isinstance(one, str) and not _ARROW.search(one) for one in items):
            items = [items]
        paths = []
        for number, item in enumerate(items, 1):
            whole = _full_path(item)
            if whole is not None:
                paths.append(whole)
                continue
            names = _names_of(item)
            if names:
                paths.append(_path(f"p{number}", names))
            else:
                self._leave_out("critical path", item)
        return tuple(paths)

    def _query(self) -> DiagnosticQuery | None:
        value = self._answer.get("query")
        if isinstance(value, str):
            value = {"sql": value}
        if (
            not isinstance(value, Mapping)
            or not isinstance(value.get("sql"), str)
            or not value["sql"].strip()
        ):
            return None
        return DiagnosticQuery(sql=value["sql"], description=_text(value.get("description")))

    def _leave_out(self, what: str, value: Any, error: Exception | None = None) -> None:
        shown = " ".join(str(value).split())[:60]
        why = ""
        if isinstance(error, ValidationError):
            first = error.errors(include_url=False, include_context=False)[0]
            why = f" ({'.'.join(map(str, first['loc']))}: {first['msg']})"
        self.remarks.append(f"{what} {shown!r}{why}")


def first_cause(answer: Mapping[str, Any]) -> str | None:
    """Return the name of the first root cause of an answer, None where there is none."""
    for item in _listed(_first(answer, _CAUSES))[:1]:
        return _name(item) if isinstance(item, Mapping) else _text(item) or None
    return None


def _full_path(item: Any) -> CriticalPath | None:
    try:
        return CriticalPath.model_validate(item)
    except ValidationError:
        return None


def _names_of(item: Any) -> tuple[str, ...]:
    if isinstance(item, Mapping):
        item = _first(item, ("services", "path"))
    if isinstance(item, str):
        item = _ARROW.split(item)
    return tuple(_text(one) for one in _listed(item) if isinstance(one, str) and one.strip())


def _path(key: str, names: tuple[str, ...]) -> CriticalPath:
    """Return the path along these services, without figures."""
    return CriticalPath(
        id=key,
        name=" → ".join(names),
        services=names,
        startService=names[0],
        endService=names[-1],
        edges=tuple(PathEdge(source=a, target=b) for a, b in pairwise(names)),
        metrics=_NO_FIGURES,
        priority="high",
        severity=0.0,
    )


def _hypothesis(item: Any) -> Mapping[str, Any] | None:
    if not isinstance(item, Mapping):
        return None
    mechanism = _word(item.get("mechanism"))
    known = {str(one): one for one in Mechanism} | dict(MECHANISMS)
    return {
        "statement": _text(_first(item, ("statement", "hypothesis", "description"))) or None,
        "service": _text(item.get("service")) or None,
        "mechanism": known.get(mechanism),
        "status": _STATUSES.get(_word(item.get("status"))),
        "reason": _text(item.get("reason")),
    }


def _figure(item: Any) -> Mapping[str, Any] | None:
    if not isinstance(item, Mapping):
        return None
    known = {name: item[name] for name in Figure.model_fields if item.get(name) is not None}
    return {**known, "value": _number(item.get("value"))}


def _listed(items: Any) -> list[Any]:
    """Return a list as it is, nothing as none, and a single item as a list of it."""
    if items is None or items == "":
        return []
    if isinstance(items, list | tuple):
        return list(items[:MOST_ITEMS])
    return [items]


def _first(item: Mapping[str, Any], names: Iterable[str]) -> Any:
    return next((item[name] for name in names if item.get(name) is not None), None)


def _name(item: Mapping[str, Any]) -> str | None:
    name = _first(item, _NAMES)
    return _text(name) or None if isinstance(name, str) else None


def _text(value: Any) -> str:
    """Return the beginning of a text; a lone surrogate, which UTF-8 cannot hold, is replaced."""
    return _HALVES.sub("\ufffd", value.strip()[:MOST_CHARACTERS]) if isinstance(value, str) else ""


def _word(value: Any) -> str:
    """Return a word in the form of the taxonomies."""
    return re.sub(r"[\s-]+", "_", _text(value).casefold())


def _truth(value: Any) -> bool | None:
    if isinstance(value, bool):
        return value
    word = _word(value) if isinstance(value, str) else str(value)
    return True if word in _YES else False if word in _NO else None


def _number(value: Any) -> float | None:
    if isinstance(value, bool) or not isinstance(value, int | float | str):
        return None
    try:
        number = float(value)
    except (ValueError, OverflowError):
        return None
    return number if math.isfinite(number) else None
