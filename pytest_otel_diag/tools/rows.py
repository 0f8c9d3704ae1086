"""Tables as a model gets them: the columns and rows that fit, and the number of those left out."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from typing import Any

from pydantic import Field, JsonValue

from pytest_otel_diag.model.base import Model
from pytest_otel_diag.model.telemetry import Table
from pytest_otel_diag.tools.cells import LEAST, json_value, prefix, row_size, shortened, text_size
from pytest_otel_diag.tools.contract import Caps

FRAME = 300
"""Characters of the JSON of :class:`Rows` beside its columns and rows, at most."""

_NOTE = "some rows or columns are left out: narrow the window, filter, aggregate or use LIMIT"


class Rows(Model):
    """A table; where ``truncated``, some rows or columns were left out."""

    columns: tuple[str, ...]
    rows: tuple[tuple[JsonValue, ...], ...] = Field(description="One array a row, in the order of columns.")
    truncated: bool = False
    rows_left_out: int = 0
    columns_left_out: int = 0
    note: str = ""


def fitted(table: Table, caps: Caps) -> Rows:
    """Return the first columns and rows of the table that the caps allow; one row always fits."""
    return _fitted(table.names, table.rows(), len(table), caps, caps.characters)


def listed(columns: Sequence[str], rows: Sequence[Sequence[Any]], caps: Caps, *, share: float = 1.0) -> Rows:
    """Return the first rows within *share* of the caps' characters; a result may hold several tables."""
    return _fitted(columns, rows, len(rows), caps, int(caps.characters * share))


def _fitted(
    names: Sequence[str], rows: Iterable[Sequence[Any]], total: int, caps: Caps, characters: int
) -> Rows:
    room = characters - FRAME
    shown = [shortened(name, caps.cell_characters) for name in names]
    columns = prefix(shown, most=len(shown), characters=room, size=lambda name: text_size(name) + LEAST + 1)
    room -= sum(text_size(name) + 1 for name in columns)
    cell = min(caps.cell_characters, room // max(1, len(columns)) - 2)
    values = (tuple(json_value(value, cell) for value in row[: len(columns)]) for row in rows)
    kept = prefix(values, most=caps.rows, characters=room, size=row_size)
    left, dropped = total - len(kept), len(names) - len(columns)
    return Rows(
        columns=tuple(columns),
        rows=tuple(kept),
        truncated=bool(left or dropped),
        rows_left_out=left,
        columns_left_out=dropped,
        note=_NOTE if left or dropped else "",
    )


def figure(value: float | None) -> float | None:
    """Return the number with four significant digits, None for NaN and infinities."""
    if value is None or not math.isfinite(value):
        return None
    return float(f"{value:.4g}")


def per_minute(count: float, seconds: float) -> float | None:
    """Return a count as a rate per minute."""
    return figure(60 * count / seconds) if seconds else None


def ratio(part: float, whole: float) -> float | None:
    """Return a share, None of nothing."""
    return figure(part / whole) if whole else None
