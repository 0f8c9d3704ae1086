"""Statements of analyzers parsed once a store, whatever session asks them."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager
from typing import Any

from pytest_otel_diag.statements import Statement
from pytest_otel_diag.telemetry.engine.connection import Connection
from pytest_otel_diag.telemetry.guard import check as guard
from pytest_otel_diag.telemetry.guard.check import Node

_MOST = 512


class Parses:
    """What the engine's parser says of a statement: it depends on the text and nothing else.

    Values of parameters stand in the tree as literals, which no rule looks at; their names count, since
    one that is missing is an error. Whether a session may run the statement is for each session to check.
    """

    def __init__(self) -> None:
        self._kept: dict[tuple[str, tuple[str, ...]], tuple[str, tuple[Node, ...]]] = {}

    def parsed(
        self,
        lend: Callable[[], AbstractContextManager[Connection]],
        sql: str,
        parameters: Mapping[str, Any],
    ) -> tuple[str, tuple[Node, ...]]:
        """Return canonical text and tree; raises QueryRejected, and driver errors for bad syntax."""
        asked = (sql, tuple(sorted(parameters)))
        found = self._kept.get(asked)
        if found is None:
            with lend() as connection:
                text = guard.canonical(connection, sql)
                found = text, guard.tree(connection, text, used(text, parameters))
            if len(self._kept) >= _MOST:
                self._kept.clear()
            self._kept[asked] = found
        return found


def used(sql: str, parameters: Mapping[str, Any]) -> dict[str, Any]:
    """Return the parameters that the statement names: the driver would format the text with others."""
    names = Statement("query", sql).parameters
    return {name: value for name, value in parameters.items() if name in names}
