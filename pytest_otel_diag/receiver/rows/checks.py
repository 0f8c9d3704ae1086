"""Finds the records of a request that the tables cannot hold.

A record is rejected without the rest of its request when its time is beyond the range of ``DateTime``
(which the tables' sorting and TTL use) or when its trace or span id has the wrong size. All records of a
resource are rejected when repeating the resource in every row would exceed ``Limits.expanded_bytes``.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from pytest_otel_diag.receiver.packages import Signal

_NANOS_MAX = (1 << 32) * 10**9 - 1
_TRACE_ID_BYTES = frozenset({0, 16})
_SPAN_ID_BYTES = frozenset({0, 8})

BAD_TIME = "time beyond the year 2106"
BAD_ID = "trace or span id of a wrong size"
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
    for group_bytes, records in _LISTS[signal](message):
        _check_list(findings, records, group_bytes, (_FAULTS[signal], expanded_bytes))
    return findings


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
    sizes_fit = (
        len(span.trace_id) in _TRACE_ID_BYTES
        and len(span.span_id) in _SPAN_ID_BYTES
        and len(span.parent_span_id) in _SPAN_ID_BYTES
    )
    return "" if sizes_fit else BAD_ID


def _log_fault(log: Any) -> str:
    if (log.time_unix_nano or log.observed_time_unix_nano) > _NANOS_MAX:
        return BAD_TIME
    sizes_fit = len(log.trace_id) in _TRACE_ID_BYTES and len(log.span_id) in _SPAN_ID_BYTES
    return "" if sizes_fit else BAD_ID


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
