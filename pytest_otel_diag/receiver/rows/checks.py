"""Finds the records of a request that the tables cannot hold.

A record is rejected without the rest of its request when its time is beyond the range of ``DateTime``
(which the tables' sorting and TTL use), when its trace or span id has the wrong size, or when it is a span
without these ids. A metric whose data is of no known kind counts as one record and is rejected. All records
of a resource are rejected when repeating the resource in every row would exceed ``Limits.expanded_bytes``.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from pytest_otel_diag.receiver.packages import Signal

_NANOS_MAX = (1 << 32) * 10**9 - 1
_TRACE_ID_BYTES, _SPAN_ID_BYTES = 16, 8
_NO_TRACE, _NO_SPAN = bytes(_TRACE_ID_BYTES), bytes(_SPAN_ID_BYTES)

BAD_TIME = "time beyond the year 2106"
BAD_ID = "trace or span id of a wrong size"
NO_ID = "span without trace id or span id"
NO_DATA = "metric without data of a known kind"
EXPANDED = "resource and scope too large to be repeated in every row"


@dataclass(slots=True)
class Findings:
    """How many ``records`` a request has, how many are ``rejected`` why, and the others' ``weight``.

    The weight is the size in bytes that resources and scopes take when every row repeats them.
    """

    records: int
    weight: int
    rejected: dict[str, int]

    @property
    def accepted(self) -> int:
        """The number of records left in the message."""
        return self.records - sum(self.rejected.values())


def check(signal: Signal, message: Any, expanded_bytes: int) -> Findings:
    """Remove the records that cannot be stored from *message* and return what was found."""
    findings = Findings(0, 0, {})
    if signal == "metrics":
        _check_metrics(findings, message)
    for group_bytes, records in _LISTS[signal](message):
        _check_list(findings, records, group_bytes, (_FAULTS[signal], expanded_bytes))
    return findings


def _check_metrics(findings: Findings, message: Any) -> None:
    for resource_metrics in message.resource_metrics:
        for scope_metrics in resource_metrics.scope_metrics:
            bare = [n for n, metric in enumerate(scope_metrics.metrics) if not metric.WhichOneof("data")]
            findings.records += len(bare)
            _count(findings, NO_DATA, len(bare))
            for number in reversed(bare):
                del scope_metrics.metrics[number]


def _check_list(
    findings: Findings, records: Any, group_bytes: int, rules: tuple[Callable[[Any], str], int]
) -> None:
    fault_of, expanded_bytes = rules
    size = len(records)
    findings.records += size
    if size * group_bytes > expanded_bytes:
        _count(findings, EXPANDED, size)
        del records[:]
        return
    faults = [(number, fault) for number, record in enumerate(records) if (fault := fault_of(record))]
    for number, fault in reversed(faults):
        _count(findings, fault, 1)
        del records[number]
    findings.weight += len(records) * group_bytes


def _count(findings: Findings, reason: str, number: int) -> None:
    if number:
        findings.rejected[reason] = findings.rejected.get(reason, 0) + number


def _spans(message: Any) -> Iterator[tuple[int, Any]]:
    for resource_records in message.resource_spans:
        group = resource_records.resource.ByteSize()
        for scope_records in resource_records.scope_spans:
            yield group + scope_records.scope.ByteSize(), scope_records.spans


def _logs(message: Any) -> Iterator[tuple[int, Any]]:
    for resource_records in message.resource_logs:
        group = resource_records.resource.ByteSize()
        for scope_records in resource_records.scope_logs:
            yield group + scope_records.scope.ByteSize(), scope_records.log_records


def _points(message: Any) -> Iterator[tuple[int, Any]]:
    for resource_records in message.resource_metrics:
        group = resource_records.resource.ByteSize()
        for scope_records in resource_records.scope_metrics:
            both = group + scope_records.scope.ByteSize()
            for metric in scope_records.metrics:
                if kind := metric.WhichOneof("data"):
                    described = len(metric.name) + len(metric.description) + len(metric.unit)
                    yield both + described, getattr(metric, kind).data_points


def _span_fault(span: Any) -> str:
    if span.start_time_unix_nano > _NANOS_MAX or span.end_time_unix_nano > _NANOS_MAX:
        return BAD_TIME
    trace_id, span_id = span.trace_id, span.span_id
    if not trace_id or not span_id or trace_id == _NO_TRACE or span_id == _NO_SPAN:
        return NO_ID
    return _ids_fault(trace_id, span_id) or _ids_fault(trace_id, span.parent_span_id)


def _log_fault(log: Any) -> str:
    if (log.time_unix_nano or log.observed_time_unix_nano) > _NANOS_MAX:
        return BAD_TIME
    return _ids_fault(log.trace_id, log.span_id)


def _ids_fault(trace_id: bytes, span_id: bytes) -> str:
    """Return the fault of ids that may be missing."""
    fits = len(trace_id) in {0, _TRACE_ID_BYTES} and len(span_id) in {0, _SPAN_ID_BYTES}
    return "" if fits else BAD_ID


def _point_fault(point: Any) -> str:
    late = point.time_unix_nano > _NANOS_MAX or point.start_time_unix_nano > _NANOS_MAX
    return BAD_TIME if late else ""


_LISTS: Mapping[Signal, Callable[[Any], Iterator[tuple[int, Any]]]] = {
    "traces": _spans,
    "logs": _logs,
    "metrics": _points,
}
_FAULTS: Mapping[Signal, Callable[[Any], str]] = {
    "traces": _span_fault,
    "logs": _log_fault,
    "metrics": _point_fault,
}
