"""What a request holds, and which of its records the tables cannot take.

A record is rejected, the others of its request are taken: one whose time lies beyond the seconds of a
``DateTime`` (the tables' order and what they forget are computed in those), one whose trace or span id has
another size than the protocol says, and all records of a resource that would grow beyond
``Limits.expanded_bytes`` when it is repeated in every row.
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
    """``records`` that came, those ``rejected`` of them by reason, and the ``weight`` of the rest as rows."""

    records: int
    weight: int
    rejected: dict[str, int]

    @property
    def accepted(self) -> int:
        """Records that are left in the message."""
        return self.records - sum(self.rejected.values())


def check(signal: Signal, message: Any, expanded_bytes: int) -> Findings:
    """Take records that cannot be stored out of *message* and say what was found."""
    findings = Findings(0, 0, {})
    for shared_bytes, records in _LISTS[signal](message):
        _check_list(findings, records, shared_bytes, (_FAULTS[signal], expanded_bytes))
    return findings


def _check_list(
    findings: Findings, records: Any, shared_bytes: int, rules: tuple[Callable[[Any], str], int]
) -> None:
    fault_of, expanded_bytes = rules
    size = len(records)
    findings.records += size
    if size * shared_bytes > expanded_bytes:
        _count(findings, EXPANDED, size)
        del records[:]
        return
    faults = [(number, fault) for number, record in enumerate(records) if (fault := fault_of(record))]
    for number, fault in reversed(faults):
        _count(findings, fault, 1)
        del records[number]
    findings.weight += len(records) * shared_bytes


def _count(findings: Findings, reason: str, number: int) -> None:
    findings.rejected[reason] = findings.rejected.get(reason, 0) + number


def _spans(message: Any) -> Iterator[tuple[int, Any]]:
    for of_resource in message.resource_spans:
        shared = of_resource.resource.ByteSize()
        for of_scope in of_resource.scope_spans:
            yield shared + of_scope.scope.ByteSize(), of_scope.spans


def _logs(message: Any) -> Iterator[tuple[int, Any]]:
    for of_resource in message.resource_logs:
        shared = of_resource.resource.ByteSize()
        for of_scope in of_resource.scope_logs:
            yield shared + of_scope.scope.ByteSize(), of_scope.log_records


def _points(message: Any) -> Iterator[tuple[int, Any]]:
    for of_resource in message.resource_metrics:
        shared = of_resource.resource.ByteSize()
        for of_scope in of_resource.scope_metrics:
            of_both = shared + of_scope.scope.ByteSize()
            for metric in of_scope.metrics:
                if kind := metric.WhichOneof("data"):
                    described = len(metric.name) + len(metric.description) + len(metric.unit)
                    yield of_both + described, getattr(metric, kind).data_points


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
