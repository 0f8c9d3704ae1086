"""Telemetry that reveals which flag was on: how to recognise it, and SQL that hides it from a session.

A system that evaluates feature flags shows it in its telemetry: span events and attributes
``feature_flag.*``, spans of flagd and its clients, metrics of evaluations, texts that name the flag.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from pytest_otel_diag.errors import SchemaError
from pytest_otel_diag.telemetry.engine.connection import quote
from pytest_otel_diag.telemetry.schema import NESTED_ATTRIBUTES, EvenedColumns

MASK = "redacted"
"""Replacement for the name of a flag in a text."""

FLAG_SERVICES = ("flagd", "flagd-ui")
FLAG_NAMES = r"(?i)^(flagd\.|grpc\.flagd\.|/?flagd\.|feature_?flag)"
"""Names of spans and metrics that evaluations of flags make."""
FLAG_KEYS = r"(?i)feature_?flag"
"""Keys of attributes and names of events that describe an evaluation."""
TEXTS = ("Body", "StatusMessage", "SpanName", "EventName")
"""Columns of free text."""

_WORDS = (r"feature[ _-]?flags?", r"/feature/api/\S*", r"/flagservice/\S*")
_PROBES = ("feature", "/flagservice/")
_MAPS = ("Map(", "Array(Map(")
_EVENTS = ("Events.Timestamp", "Events.Name", "Events.Attributes")


NOTHING_EVENED = EvenedColumns({}, ())


def flag_texts(flags: Iterable[str]) -> str:
    """Return the regular expression (RE2) of what a text may not contain once *flags* are hidden."""
    return f"(?i)({'|'.join([*_WORDS, *(re.escape(flag) for flag in flags if flag)])})"


@dataclass(frozen=True, slots=True)
class Hidden:
    """What a session does not see although it lies in its windows.

    ``flags`` are the keys of the system's flags that are redacted, None to leave flags as they are; an empty
    tuple hides evaluations in general. ``trace_id`` is the trace of this package's own requests.
    """

    flags: tuple[str, ...] | None = None
    trace_id: str = ""

    def __bool__(self) -> bool:
        return self.flags is not None or bool(self.trace_id)

    def conditions(self, columns: Mapping[str, str]) -> list[str]:
        """Return the SQL conditions of the rows that stay; *columns* are those of ``t`` with their types."""
        kept = []
        if self.trace_id and "TraceId" in columns:
            kept.append(f"t.TraceId != {_text(self.trace_id)}")
        elif self.trace_id and "trace" in columns:
            kept.append(f"t.trace != cityHash64({_text(self.trace_id)})")
        if self.flags is None:
            return kept
        service = "ServiceName" if "ServiceName" in columns else "service"
        kept.append(f"t.{service} NOT IN ({', '.join(map(_text, FLAG_SERVICES))})")
        return kept + [
            f"NOT match(t.{name}, {_text(FLAG_NAMES)})"
            for name in ("SpanName", "operation", "MetricName")
            if name in columns
        ]

    def replacements(
        self, table: str, columns: Mapping[str, str], evened: EvenedColumns = NOTHING_EVENED
    ) -> dict[str, str]:
        """Return the SQL expressions that replace columns of ``t``.

        *evened* is what views make of the columns in any case. Raises SchemaError for attributes of
        a type that cannot be redacted.
        """
        if self.flags is None:
            return {}
        found: dict[str, str] = {}
        for name, kind in columns.items():
            shown = evened.expressions.get(name, f"t.{quote(name)}")
            expression = self._masked(
                name, _MAPS[name in NESTED_ATTRIBUTES] if name in evened.json else kind, shown
            )
            if expression:
                found[name] = expression
            elif "Attributes" in name:
                raise SchemaError(
                    f"column {name} of {table} has the type {kind}, whose flags cannot be redacted; "
                    "run with --otel-diag-leaks=keep"
                )
        return found

    def _masked(self, name: str, kind: str, shown: str) -> str:
        column = shown
        if name in _EVENTS:
            column = f"arrayFilter((e, n) -> NOT match(n, {_text(FLAG_KEYS)}), {shown}, t.`Events.Name`)"
        if kind.startswith("Map("):
            return self._map(column)
        if kind.startswith("Array(Map("):
            return f"arrayMap(m -> {self._map('m')}, {column})"
        if name in {*TEXTS, "operation"}:
            return self._mask(column)
        return column if name in _EVENTS else ""

    def _map(self, attributes: str) -> str:
        others = f"mapFilter((k, v) -> NOT match(k, {_text(FLAG_KEYS)}), {attributes})"
        return f"mapApply((k, v) -> (k, {self._mask('v')}), {others})"

    def _mask(self, text: str) -> str:
        flags = self.flags or ()
        probes = ", ".join(_text(probe) for probe in (*_PROBES, *filter(None, flags)))
        masked = f"replaceRegexpAll({text}, {_text(flag_texts(flags))}, {_text(MASK)})"
        return f"if(multiSearchAnyCaseInsensitive({text}, [{probes}]), {masked}, {text})"


NOTHING_HIDDEN = Hidden()


def _text(value: str) -> str:
    """Return a text as a literal of ClickHouse."""
    escaped = value.replace("\\", "\\\\").replace("'", "\\'")
    return f"'{escaped}'"
