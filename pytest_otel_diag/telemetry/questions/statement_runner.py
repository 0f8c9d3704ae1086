"""Runs named statements over the telemetry of a session."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Protocol

from pytest_otel_diag import statements
from pytest_otel_diag.errors import QueryRejected
from pytest_otel_diag.model.base import Nanos
from pytest_otel_diag.model.telemetry import QueryLimits, Table, TelemetrySchema
from pytest_otel_diag.model.windows import Window, seconds_to_ns
from pytest_otel_diag.statements import Statement
from pytest_otel_diag.telemetry.questions.relations import named


class StatementRunner(Protocol):
    """The telemetry of a session, as the questions use it."""

    def now(self) -> Nanos | None:
        """Return the session's time, None where telemetry is not bound to a clock."""
        ...

    async def schema(self) -> TelemetrySchema:
        """Return the tables and columns of the database."""
        ...

    async def spans_at_most(self) -> int | None:
        """Return how many spans the store holds altogether, None where its engine keeps no count."""
        ...

    async def rows_at_most(self, tables: Sequence[str]) -> Mapping[str, int]:
        """Return how many rows tables of the store hold; tables whose engine keeps no count are left out."""
        ...

    async def run(
        self,
        statement: Statement,
        parameters: Mapping[str, Any] | None = None,
        limits: QueryLimits | None = None,
    ) -> Table:
        """Run a statement of this package."""
        ...


async def over_windows(
    telemetry: StatementRunner,
    name: str,
    windows: Sequence[Window],
    parameters: Mapping[str, Any] | None = None,
) -> Table:
    """Run the named statement over telemetry of the windows; no answer when all windows are empty."""
    statement = named(name, await telemetry.schema())
    if all(window.empty for window in windows):
        return Table((), ())
    whole = next(statements.key_slices(1))
    return await telemetry.run(
        statement, {**statements.window_parameters(windows), **whole, **(parameters or {})}
    )


def bucket_ns_of(bucket_s: float) -> int:
    """Return the bucket in nanoseconds; raises QueryRejected for one that is not positive."""
    bucket_ns = seconds_to_ns(bucket_s)
    if bucket_ns <= 0:
        raise QueryRejected(f"a bucket of {bucket_s} s cannot be counted; use a positive number of seconds")
    return bucket_ns
