"""``cases.json`` of the importable layout: labelled incidents in one of two shapes."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, Literal, TypeVar

from pydantic import BaseModel, ConfigDict, ValidationError

from pytest_otel_diag.errors import RecordingError
from pytest_otel_diag.model.base import Nanos
from pytest_otel_diag.model.diagnosis import Mechanism, Signal
from pytest_otel_diag.model.scenario import Expectation, ExpectedAnomaly, ExpectedRootCause
from pytest_otel_diag.model.windows import NANOS_PER_SECOND, Window, seconds_to_ns
from pytest_otel_diag.recordings.format.manifest import Incident, QuietPolicy, SignalName, Source

CASES = "cases.json"
"""Name of the file with the labels of the importable layout."""

LABEL_UNCERTAINTY_S = 60.0
"""Labelled instants are accurate to a minute, as the layout states."""

CODE_GUARD_S = 60.0
"""Code faults become visible up to a minute before their label, so that minute is not quiet."""

RESOURCE_GUARD_S = 10.0
"""Resource faults start at a logged instant. Requests last up to 9 s, so a request that starts just before
the fault is still affected."""

_EXACT_RESOURCE_LABELS = frozenset({"OnlineBoutique"})
"""Systems whose resource faults start at their label. Measured in the spans: the extra time between client
and server span of a network delay starts within 10 s of the label in 5 of 5 Online Boutique incidents with
spans before it, and up to a minute early in 2 of 7 TrainTicket incidents."""

SCRAPE_SLACK_S = 5.0
"""Sources cut telemetry into minutes at a scrape; a metric point this close to the cut belongs to it."""

ISSUE_POINT_S = 300
"""Interval of metric points in sources that give incidents as windows of points."""

_CODE_FAULTS = frozenset({"return", "exception"})

# A method that returns a wrong value early is neither slow nor a load, so of the taxonomy only "error"
# (wrong behaviour) fits. An exception is an error by definition.
_MECHANISMS: Mapping[str, Mechanism] = {
    "network_delay": Mechanism.NETWORK,
    "cpu_contention": Mechanism.CPU,
    "cpu_consumed": Mechanism.CPU,
    "exception": Mechanism.ERROR,
    "return": Mechanism.ERROR,
}

# Words in the command that injected the fault; the first match wins.
_COMMAND_WORDS: tuple[tuple[str, Mechanism], ...] = (
    (r"error|inject\s*=", Mechanism.ERROR),
    (r"delay|sleep|latency", Mechanism.LATENCY),
    (r"cpu", Mechanism.CPU),
    (r"memory|leak", Mechanism.MEMORY),
    (r"concurren|config", Mechanism.CONFIGURATION),
    (r"request|traffic|load", Mechanism.TRAFFIC),
)
_METRIC_MECHANISMS: Mapping[str, Mechanism] = {
    "latency": Mechanism.LATENCY,
    "availability": Mechanism.ERROR,
    "error": Mechanism.ERROR,
    "fault": Mechanism.ERROR,
    "requests": Mechanism.TRAFFIC,
}
_METRIC_SIGNALS: Mapping[str, Signal] = {
    "latency": Signal.LATENCY,
    "availability": Signal.ERROR_RATE,
    "requests": Signal.REQUEST_RATE,
}

_NEZHA = Source(title="Nezha data set", citation="Yu et al., ESEC/FSE 2023", licence="MIT")
_SOURCES: Mapping[str, Source] = {
    "OnlineBoutique": _NEZHA,
    "TrainTicket": _NEZHA,
    "PetShop": Source(title="PetShop data set", citation="Hardt et al., 2023", licence="CC-BY-4.0"),
}


class _Case(BaseModel):
    model_config = ConfigDict(extra="ignore", frozen=True)

    id: str
    system: str
    service: str


_CaseT = TypeVar("_CaseT", bound=_Case)


class _Has(BaseModel):
    traces_before: bool = False
    traces_after: bool = False
    logs: bool = False
    metrics: bool = False


class InjectionCase(_Case):
    """A fault injected at a labelled instant; its end is not recorded."""

    inject_time: datetime
    fault_type: str
    pod: str | None = None
    label: str = ""
    has: _Has = _Has()
    traces_from: datetime | None = None
    traces_to: datetime | None = None


class _Symptom(BaseModel):
    node: str
    metric: str
    timestamp: int


class IssueCase(_Case):
    """A window of points with a fault in it, a symptom, and a baseline interval; times in epoch seconds."""

    window: tuple[int, int]
    baseline: tuple[int, int]
    target: _Symptom | None = None
    root_cause_metric: str | None = None
    command: str = ""
    usable: bool = True


@dataclass(frozen=True)
class Cases:
    """Labels converted to the terms of the manifest.

    ``quiet`` are intervals that the source declares fault-free (None: derive them from the telemetry);
    ``hidden_keys`` are attributes that would reveal the answer to an analyzer.
    """

    incidents: tuple[Incident, ...]
    systems: tuple[str, ...]
    source: Source
    policy: QuietPolicy
    quiet: tuple[Window, ...] | None = None
    hidden_keys: frozenset[str] = frozenset()
    notes: tuple[str, ...] = field(default=())


def is_cases_folder(folder: Path) -> bool:
    """Return whether the folder has the importable layout."""
    return (folder / CASES).is_file()


def read_cases(folder: Path, *, scrapes: Sequence[Nanos] = ()) -> Cases:
    """Read the labels of a folder.

    *scrapes* are the sorted times of metric points: an incident lasts until the point that ends its last
    minute. Raises RecordingError that names the case and the field.
    """
    path = folder / CASES
    try:
        raw = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise RecordingError(f"{path} cannot be read as JSON ({error}); copy it again") from error
    if not isinstance(raw, list) or not raw:
        raise RecordingError(f"{path} must be a list of at least one incident")
    shape = _shape(raw, path)
    if shape == "injection":
        return _injections(_parse(raw, InjectionCase, path), scrapes)
    return _issues(_parse(raw, IssueCase, path), path)


def _shape(raw: Sequence[Any], path: Path) -> Literal["injection", "issue"]:
    if all(isinstance(item, dict) and "inject_time" in item for item in raw):
        return "injection"
    if all(isinstance(item, dict) and "window" in item and "baseline" in item for item in raw):
        return "issue"
    raise RecordingError(
        f"{path} has incidents of an unknown shape; each needs inject_time (an instant) or "
        "window and baseline (pairs of epoch seconds)"
    )


def _parse(raw: Sequence[Any], model: type[_CaseT], path: Path) -> list[_CaseT]:
    cases = []
    for index, item in enumerate(raw):
        try:
            cases.append(model.model_validate(item))
        except ValidationError as error:
            first = error.errors()[0]
            where = ".".join(str(part) for part in first["loc"])
            raise RecordingError(f"{path}: incident {index}, field {where}: {first['msg']}") from error
    return cases


def _injections(cases: Sequence[InjectionCase], scrapes: Sequence[Nanos]) -> Cases:
    incidents = tuple(_injection(case, scrapes) for case in cases)
    return Cases(incidents, _systems(cases), _source(cases, "injection"), QuietPolicy())


def _injection(case: InjectionCase, scrapes: Sequence[Nanos]) -> Incident:
    policy = QuietPolicy()
    start = _to_ns(case.inject_time)
    resource = case.fault_type in _MECHANISMS.keys() - _CODE_FAULTS
    guard_s = RESOURCE_GUARD_S if resource else CODE_GUARD_S
    exact = resource and case.system in _EXACT_RESOURCE_LABELS
    first = start - seconds_to_ns(policy.baseline_s) if case.traces_from is None else _to_ns(case.traces_from)
    last = start if case.traces_to is None else _to_ns(case.traces_to)
    if last <= start:  # no spans after the fault: other signals cover its longest duration
        last = start + seconds_to_ns(policy.fault_s)
    mechanism = _MECHANISMS.get(case.fault_type)
    signals: dict[SignalName, bool] = {
        "traces": case.has.traces_before or case.has.traces_after,
        "logs": case.has.logs,
        "metrics": case.has.metrics,
    }
    return Incident(
        id=case.id,
        system=case.system,
        service=case.service,
        instance=case.pod,
        flag=case.fault_type,
        fault_type=case.fault_type,
        label=case.label,
        start_ns=start,
        label_uncertainty_s=guard_s if exact else LABEL_UNCERTAINTY_S,
        guard_s=guard_s,
        telemetry_from_ns=_with_first_scrape(first, scrapes),
        telemetry_to_ns=_with_last_scrape(last, scrapes),
        signals=tuple(signal for signal, there in signals.items() if there),
        tags=(("traces_before", str(case.has.traces_before).lower()),),
        expectation=_expectation(case.service, mechanism),
    )


def _with_first_scrape(first: Nanos, scrapes: Sequence[Nanos]) -> Nanos:
    """Return the start of telemetry: the scrape just before the first span, if any.

    It ends the previous minute and is the only point of it in a source that is cut at a scrape.
    """
    opening = [scrape for scrape in scrapes if first - seconds_to_ns(SCRAPE_SLACK_S) <= scrape <= first]
    return min([first, *opening])


def _with_last_scrape(last: Nanos, scrapes: Sequence[Nanos]) -> Nanos:
    """Return the exclusive end of telemetry: after the given millisecond and after the scrape that closes it.

    Sources cut telemetry into minutes that end at a scrape; the point of the last minute has the time of the
    cut or a slightly later one.
    """
    end = last + NANOS_PER_SECOND // 1000
    closing = [scrape for scrape in scrapes if last <= scrape <= last + seconds_to_ns(SCRAPE_SLACK_S)]
    return max([end, *(scrape + NANOS_PER_SECOND // 1000 for scrape in closing)])


def _issues(cases: Sequence[IssueCase], path: Path) -> Cases:
    usable = [case for case in cases if case.usable]
    if not usable:
        raise RecordingError(f"{path}: no incident is marked usable, so nothing can be replayed")
    # Points are minutes apart: quiet time needs several points, and windows as long as the incidents.
    point_s = ISSUE_POINT_S
    longest_s = max(case.window[1] - case.window[0] for case in usable)
    policy = QuietPolicy(
        settle_s=point_s,
        gap_s=2.5 * point_s,
        min_quiet_s=2 * point_s,
        baseline_s=max(longest_s, point_s),
        reference_span_s=None,
        control_min_s=longest_s + 1,
        control_max_s=longest_s + 1,
    )
    quiet = sorted({case.baseline for case in cases})
    skipped = len(cases) - len(usable)
    return Cases(
        tuple(_issue(case) for case in usable),
        _systems(usable),
        _source(usable, "issue"),
        policy,
        quiet=tuple(Window(start_ns=_epoch(start), end_ns=_epoch(end + 1)) for start, end in quiet),
        hidden_keys=frozenset({"split", "issue", "petshop.scenario"}),
        notes=(f"{skipped} incidents that the source marks unusable were left out",) if skipped else (),
    )


def _issue(case: IssueCase) -> Incident:
    start, end = case.window
    alarm = case.target.timestamp if case.target is not None else start
    mechanism = _issue_mechanism(case)
    return Incident(
        id=case.id,
        system=case.system,
        service=case.service,
        flag=mechanism.value if mechanism else "fault",
        fault_type=mechanism.value if mechanism else "unknown",
        label=case.command,
        start_ns=_epoch(start),
        end_ns=_epoch(end + 1),
        label_uncertainty_s=max(0.0, float(alarm - start)),
        telemetry_from_ns=_epoch(start),
        telemetry_to_ns=_epoch(end + 1),
        signals=("metrics",),
        expectation=_expectation(case.service, mechanism, case.target),
    )


def _issue_mechanism(case: IssueCase) -> Mechanism | None:
    if case.root_cause_metric:
        known = next(
            (m for word, m in _METRIC_MECHANISMS.items() if word in case.root_cause_metric.lower()), None
        )
        if known is not None:
            return known
    return next((m for words, m in _COMMAND_WORDS if re.search(words, case.command.lower())), None)


def _expectation(service: str, mechanism: Mechanism | None, symptom: _Symptom | None = None) -> Expectation:
    anomalies = [ExpectedAnomaly(service=service)]
    if symptom is not None and symptom.node != service:
        anomalies.append(ExpectedAnomaly(service=symptom.node, signal=_METRIC_SIGNALS.get(symptom.metric)))
    mechanisms = () if mechanism is None else (mechanism,)
    return Expectation(
        anomalies=tuple(anomalies), root_causes=(ExpectedRootCause(service=service, mechanisms=mechanisms),)
    )


def _systems(cases: Sequence[_Case]) -> tuple[str, ...]:
    return tuple(sorted({case.system for case in cases}))


def _source(cases: Sequence[_Case], shape: str) -> Source:
    unknown = Source(title=cases[0].system, licence="not stated by the source")
    return _SOURCES.get(cases[0].system, unknown).model_copy(update={"importer": f"cases/{shape}"})


def _epoch(seconds: int) -> Nanos:
    return seconds * NANOS_PER_SECOND


def _to_ns(moment: datetime) -> Nanos:
    aware = moment if moment.tzinfo is not None else moment.replace(tzinfo=UTC)
    microseconds = (aware - datetime.fromtimestamp(0, tz=UTC)) // timedelta(microseconds=1)
    return microseconds * 1000
