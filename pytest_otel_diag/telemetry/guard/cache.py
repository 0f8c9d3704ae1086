"""Keeps parsed statements of analyzers: a store parses each text once for all its sessions."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager
from typing import Any

from pytest_otel_diag.statements import Statement
from pytest_otel_diag.telemetry.engine.connection import Connection
from pytest_otel_diag.telemetry.guard.check import Parsed, parse

_MOST = 512


class Parses:
    """Caches the engine's parse of statements, which depends on their text only.

    Values of parameters appear in the tree as literals, which no rule reads; their names count, since a
    missing one is an error. Each session checks for itself whether it may run a statement.
    """

    def __init__(self) -> None:
        self._kept: dict[tuple[str, tuple[str, ...]], Parsed] = {}

    def parsed(
        self,
        lend: Callable[[], AbstractContextManager[Connection]],
        sql: str,
        parameters: Mapping[str, Any],
    ) -> Parsed:
        """Return the parsed statement; raises QueryRejected, and driver errors for bad syntax."""
        asked = (sql, tuple(sorted(parameters)))
        found = self._kept.get(asked)
        if found is None:
            with lend() as connection:
                found = parse(connection, sql, used(sql, parameters))
            if len(self._kept) >= _MOST:
                self._kept.clear()
            self._kept[asked] = found
        return found


def used(sql: str, parameters: Mapping[str, Any]) -> dict[str, Any]:
    """Return the parameters that the statement names: the driver would format the text with others."""
    names = Statement("query", sql).parameters
    return {name: value for name, value in parameters.items() if name in names}
