"""Recognises requests that were sent to the path of another signal, and those with nothing known in them.

The messages of the three signals nest alike, so protobuf reads most requests of one signal as another: as
spans without ids, or as log records without a time.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import Any

from pytest_otel_diag.receiver import packages
from pytest_otel_diag.receiver.packages import SIGNALS, Signal

_TOP: Mapping[Signal, str] = {"traces": "resourceSpans", "logs": "resourceLogs", "metrics": "resourceMetrics"}


def plausible(signal: Signal, message: Any) -> bool:
    """Return whether any record of a message has what all records of its signal have."""
    return any(map(_PLAUSIBLE[signal], _records(message)))


def wrong_signal(signal: Signal, body: bytes) -> str:
    """Return what to tell the sender of a protobuf body that is a request of another signal, else nothing."""
    return next((_advice(signal, other) for other in SIGNALS if other != signal and _fits(other, body)), "")


def wrong_signal_of_json(signal: Signal, unknown: list[str]) -> str:
    """Return the same for a JSON document with these *unknown* fields and no record of *signal*."""
    others = {name: other for other, name in _TOP.items()}
    return next((_advice(signal, others[name]) for name in unknown if name in others), "")


def _advice(signal: Signal, other: Signal) -> str:
    return f"the body is an Export request of {other}, not of {signal}; send it to /v1/{other}"


def _fits(signal: Signal, body: bytes) -> bool:
    try:
        message = packages.services()[signal].request.FromString(body)
    except packages.decode_error():
        return False
    records = list(_records(message))
    return bool(records) and all(map(_PLAUSIBLE[signal], records))


def _records(message: Any) -> Iterator[Any]:
    """Yield spans, log records or metrics."""
    for _, groups in message.ListFields():
        for group in groups:
            for name in ("scope_spans", "scope_logs", "scope_metrics"):
                for scope in getattr(group, name, ()):
                    yield from getattr(scope, _LISTS[name])


_LISTS: Mapping[str, str] = {"scope_spans": "spans", "scope_logs": "log_records", "scope_metrics": "metrics"}
_PLAUSIBLE: Mapping[Signal, Callable[[Any], bool]] = {
    "traces": lambda span: len(span.trace_id) == 16 and len(span.span_id) == 8,
    "logs": lambda log: bool(log.time_unix_nano or log.observed_time_unix_nano),
    "metrics": lambda metric: bool(metric.name and metric.WhichOneof("data")),
}
