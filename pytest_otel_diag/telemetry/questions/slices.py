"""Bounded memory for questions that hold whole traces: equal slices of the trace key, merged.

Hashes of trace ids are uniform, so a slice is a random sample of whole traces: counts and sums add
up exactly, and a latency quantile is the mean of the slices' quantiles weighted by their counts.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

from pytest_otel_diag import statements
from pytest_otel_diag.model.telemetry import Table
from pytest_otel_diag.model.windows import Window
from pytest_otel_diag.telemetry.questions.statement_runner import StatementRunner, over_windows

SPANS_PER_SLICE = 2_000_000
Row = dict[str, Any]


async def sliced(
    telemetry: StatementRunner, name: str, windows: Sequence[Window], parameters: Mapping[str, Any]
) -> list[Table]:
    """Run the named statement over as many slices as the spans of the windows need."""
    return [
        await over_windows(telemetry, name, windows, {**parameters, **keys})
        for keys in statements.key_slices(await _slices(telemetry, windows))
    ]


async def _slices(telemetry: StatementRunner, windows: Sequence[Window]) -> int:
    """Return how many slices are needed; a store with few spans altogether needs no count of the windows'."""
    most = await telemetry.spans_at_most()
    if most is not None and most <= SPANS_PER_SLICE:
        return 1
    counted = await over_windows(telemetry, "span_count", windows)
    spans = int(counted.column("spans")[0]) if counted.names else 0
    return max(1, math.ceil(spans / SPANS_PER_SLICE))


def merge(
    tables: Sequence[Table],
    keys: Sequence[str],
    *,
    quantiles: Mapping[str, str] | None = None,
    means: Mapping[str, str] | None = None,
) -> list[Row]:
    """Return rows with equal *keys* as one: numbers added, *quantiles* and *means* weighted.

    Both map a column to the column with its count. NaN of a slice without values counts nothing.
    """
    weights = {**(quantiles or {}), **(means or {})}
    merged: dict[tuple[Any, ...], Row] = {}
    for table in tables:
        for row in table.dicts():
            key = tuple(tuple(row[k]) if isinstance(row[k], list) else row[k] for k in keys)
            known = merged.get(key)
            merged[key] = row if known is None else _joined(known, row, keys, weights)
    return list(merged.values())


def _joined(one: Row, two: Row, keys: Sequence[str], weights: Mapping[str, str]) -> Row:
    result: Row = {}
    for name, value in one.items():
        if name in keys:
            result[name] = value
        elif name in weights:
            result[name] = _weighted(value, two[name], one[weights[name]], two[weights[name]])
        elif isinstance(value, str):
            result[name] = value or two[name]
        else:
            result[name] = value + two[name]
    return result


def _weighted(one: Any, two: Any, count_one: float, count_two: float) -> Any:
    if isinstance(one, list):
        return [_weighted(a, b, count_one, count_two) for a, b in zip(one, two, strict=True)]
    if not count_one or not count_two:
        return one if count_one else two
    return (one * count_one + two * count_two) / (count_one + count_two)
