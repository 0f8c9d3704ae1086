"""Answers which rows name a flag, with one statement over the tables that exist."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterator, Mapping

from pytest_otel_diag.model.questions import FlagMentions
from pytest_otel_diag.model.telemetry import FlagMention
from pytest_otel_diag.statements import Statement
from pytest_otel_diag.telemetry.engine.connection import quote
from pytest_otel_diag.telemetry.leaks import FLAG_NAMES, FLAG_SERVICES, TEXTS
from pytest_otel_diag.telemetry.questions.statement_runner import StatementRunner
from pytest_otel_diag.telemetry.schema import signal_of

_TIMES = {"traces": "Timestamp", "logs": "Timestamp", "metrics": "TimeUnix"}
_TABLES = ("otel_traces", "otel_logs", "otel_metrics_sum")
"""The tables that are searched; evaluations of flags are counted as sums."""
_ATTRIBUTES = ("SpanAttributes", "LogAttributes", "Attributes")


async def flag_mentions(telemetry: StatementRunner, question: FlagMentions) -> tuple[FlagMention, ...]:
    """Return the number of rows by kind; a kind without rows is left out."""
    schema = await telemetry.schema()
    parts = [part for table in _TABLES for part in _rows_of(table, schema.tables.get(table, {}))]
    names = [re.escape(flag) for flag in question.flags if flag]
    if not parts or not names or question.window.empty:
        return ()
    window = {"start": question.window.start_ns, "end": question.window.end_ns}
    flags = "|".join(names)
    answer = await telemetry.run(
        Statement("flag_mentions", " UNION ALL ".join(parts)),
        {"flags": flags, "any_case": f"(?i){flags}", **window},
    )
    found: Counter[str] = Counter()
    for kind, rows in answer.rows():
        found[kind] += rows
    return tuple(FlagMention(kind=kind, rows=rows) for kind, rows in sorted(found.items()))


def _rows_of(table: str, columns: Mapping[str, str]) -> Iterator[str]:
    signal = signal_of(table) or ""
    time = _TIMES[signal]
    kinds = list(_kinds(signal, columns)) if time in columns else []
    if not kinds:
        return
    branches = ", ".join(f"{condition}, '{kind}'" for kind, condition in kinds)
    window = f"{time} >= fromUnixTimestamp64Nano({{start:Int64}})"
    window += f" AND {time} < fromUnixTimestamp64Nano({{end:Int64}})"
    yield (
        f"SELECT multiIf({branches}, '') AS kind, count() AS rows FROM {quote(table)} "  # noqa: S608 - the same
        f"WHERE {window} GROUP BY kind HAVING kind != ''"
    )


def _kinds(signal: str, columns: Mapping[str, str]) -> Iterator[tuple[str, str]]:
    """Yield the kinds of rows, the first of which counts, with their conditions."""
    texts = " OR ".join(_named(quote(name)) for name in TEXTS if name in columns)
    attributes = " OR ".join(
        _in_map(name) for name in _ATTRIBUTES if columns.get(name, "").startswith("Map(")
    )
    if signal == "metrics":
        named = " OR ".join(filter(None, (_named("MetricName"), attributes)))
        yield "flag_metrics", named
        return
    if signal == "traces":
        services = ", ".join(f"'{name}'" for name in FLAG_SERVICES)
        of_flagd = f"(ServiceName IN ({services}) OR match(SpanName, '{FLAG_NAMES}'))".replace("\\", "\\\\")
        anywhere = " OR ".join(filter(None, (attributes, texts)))
        yield "flag_service", f"{of_flagd} AND ({anywhere})"
        if columns.get("Events.Attributes", "").startswith("Array(Map("):
            events = f"arrayExists(m -> {_in_map('m')}, `Events.Attributes`)"
            yield "flag_events", f"notEmpty(`Events.Name`) AND {events}"
    if attributes:
        yield "flag_attributes", attributes
    if texts:
        yield "flag_texts", texts


def _named(text: str) -> str:
    return f"match({text}, {{any_case:String}})"


def _in_map(attributes: str) -> str:
    # as the key is spelled: the engine is faster at it, and attributes are most of the text
    return f"arrayExists(v -> match(v, {{flags:String}}), mapValues({attributes}))"
