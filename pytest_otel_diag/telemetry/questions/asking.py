"""How a named statement is asked of a session's telemetry."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Protocol

from pytest_otel_diag import statements
from pytest_otel_diag.model.telemetry import QueryLimits, Table, TelemetrySchema
from pytest_otel_diag.model.windows import Window
from pytest_otel_diag.statements import Statement
from pytest_otel_diag.telemetry.questions.relations import named


class Asks(Protocol):
    """What the questions need of a session's telemetry."""

    async def schema(self) -> TelemetrySchema:
        """Return the tables and columns that are there."""
        ...

    async def spans_at_most(self) -> int | None:
        """Return how many spans the store holds altogether, None when only counting would tell."""
        ...

    async def rows_at_most(self, tables: Sequence[str]) -> Mapping[str, int]:
        """Return how many rows tables of the store hold, of those whose engine keeps count."""
        ...

    async def ask(
        self,
        statement: Statement,
        parameters: Mapping[str, Any] | None = None,
        limits: QueryLimits | None = None,
    ) -> Table:
        """Run a statement of this package."""
        ...


async def over_windows(
    telemetry: Asks, name: str, windows: Sequence[Window], parameters: Mapping[str, Any] | None = None
) -> Table:
    """Run the named statement over telemetry of the windows; no answer when all windows are empty."""
    statement = named(name, await telemetry.schema())
    if all(window.empty for window in windows):
        return Table((), ())
    whole = next(statements.key_slices(1))
    return await telemetry.ask(
        statement, {**statements.window_parameters(windows), **whole, **(parameters or {})}
    )
