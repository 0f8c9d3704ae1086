"""Whether the diagnostic query returns what the diagnosis says of it, from the rows that the judge kept."""

from __future__ import annotations

import math
import re
from collections.abc import Iterator, Sequence
from itertools import islice

from pytest_otel_diag.model.diagnosis import Diagnosis, Measure
from pytest_otel_diag.model.grounding import Claim
from pytest_otel_diag.model.verdict import QueryVerdict
from pytest_otel_diag.scoring.grounding.checks import claim
from pytest_otel_diag.scoring.grounding.citations import CitedFigure, around
from pytest_otel_diag.scoring.grounding.prose import Amount, read_figures
from pytest_otel_diag.scoring.judged_query import SAMPLE_ROWS, reads_telemetry
from pytest_otel_diag.scoring.names import ServiceNames, mentions
from pytest_otel_diag.scoring.text import count

_ROWS = re.compile(r"\b(?:returns?|gives|yields|shows) (?:exactly )?(\d{1,6}) rows?\b", re.IGNORECASE)
_UNITS: dict[Measure, tuple[float, ...]] = {
    "error_ratio": (1.0, 0.01),
    **dict.fromkeys(("p50_ms", "p95_ms", "p99_ms"), (1.0, 1e3, 1e-3, 1e-6)),
}
_PLACE = "query"
_MOST = 20


def check_query(diagnosis: Diagnosis, verdict: QueryVerdict | None, names: ServiceNames) -> Iterator[Claim]:
    """Yield what is claimed of the query: that it runs, shows the root cause, and its number of rows."""
    query = diagnosis.query
    if query is None or verdict is None:
        return
    if not verdict.executed:
        yield claim("query", _PLACE, "the diagnostic query", "refuted", f"it did not run: {verdict.error}")
        return
    cause = diagnosis.root_causes[0].service if diagnosis.root_causes else ""
    spellings = {cause, names.canonical(cause)} - {""}
    cells = [cell for row in verdict.sample for cell in row]
    if reads_telemetry(query.sql) and any(mentions(cell, name) for cell in cells for name in spellings):
        yield claim("query", _PLACE, "the diagnostic query", "confirmed")
    else:
        found = f"it returned {count(verdict.rows, 'row')}; the first do not name {cause or 'a root cause'}"
        yield claim("query", _PLACE, "the diagnostic query", "unchecked", found)
    for stated in islice(_ROWS.finditer(query.description[:2000]), _MOST):
        if int(stated[1]) == verdict.rows:
            yield claim("query", _PLACE, stated[0], "confirmed")
        else:
            yield claim("query", _PLACE, stated[0], "refuted", f"it returned {count(verdict.rows, 'row')}")


def described(diagnosis: Diagnosis) -> list[CitedFigure]:
    """Return the figures in the description of the query."""
    if diagnosis.query is None:
        return []
    first = diagnosis.root_causes[0] if diagnosis.root_causes else None
    service, operation = (first.service, first.operation) if first else ("", None)
    text = diagnosis.query.description
    return [
        CitedFigure(said, "query.description", service, operation, said.period, text=around(text, said))
        for said in islice(read_figures(text), _MOST)
    ]


def returned(figure: CitedFigure, verdict: QueryVerdict | None) -> bool:
    """Whether the first rows of the query hold every number of the figure."""
    if verdict is None or not verdict.executed:
        return False
    rows = [[number for cell in row if (number := _number(cell)) is not None] for row in verdict.sample]
    return any(all(_holds(row, amount) for amount in figure.said.amounts) for row in rows[:SAMPLE_ROWS])


def _holds(row: Sequence[float], amount: Amount) -> bool:
    units = _UNITS.get(amount.measure, (1.0,))
    return any(amount.written.judged(cell * unit, cell * unit) for cell in row for unit in units)


def _number(cell: str) -> float | None:
    try:
        number = float(cell)
    except ValueError:
        return None
    return number if math.isfinite(number) else None
