"""Converts OTLP messages to rows of the tables that the collector's ClickHouse exporter fills.

Every value matches the exporter's, with one exception: the duration of a span that ends before it starts
is 0, where the exporter's unsigned subtraction wraps around.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from pytest_otel_diag.receiver.packages import Signal
from pytest_otel_diag.receiver.rows.logs import log_tables
from pytest_otel_diag.receiver.rows.metrics import metric_tables
from pytest_otel_diag.receiver.rows.traces import trace_tables

if TYPE_CHECKING:
    import pyarrow

_CONVERTERS: Mapping[Signal, Callable[[Sequence[Any]], Mapping[str, pyarrow.Table]]] = {
    "traces": trace_tables,
    "logs": log_tables,
    "metrics": metric_tables,
}


def samples() -> Mapping[str, pyarrow.Table]:
    """Return every table that records can go to, with all columns and without rows."""
    return {name: data for convert in _CONVERTERS.values() for name, data in convert(()).items()}


def tables(signal: Signal, messages: Sequence[Any]) -> Mapping[str, pyarrow.Table]:
    """Return the records of ``Export…ServiceRequest`` messages by table name, without empty tables."""
    return {name: data for name, data in _CONVERTERS[signal](messages).items() if data.num_rows}
