"""The tool ``get_trace``: one request as a tree of spans, with own times, attributes and log lines."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from pydantic import Field

from pytest_otel_diag.model.base import Model, Nanos
from pytest_otel_diag.model.windows import Window, iso, seconds_to_ns
from pytest_otel_diag.statements import Statement
from pytest_otel_diag.statements.relations import require
from pytest_otel_diag.stats.critical_path import TraceSpan, TraceTree
from pytest_otel_diag.tools.cells import row_size, shortened
from pytest_otel_diag.tools.contract import Caps, Tool, ToolContext, ToolError
from pytest_otel_diag.tools.functions.asking import own, run, unknown_service
from pytest_otel_diag.tools.functions.attributes import chosen
from pytest_otel_diag.tools.rows import Rows, listed
from pytest_otel_diag.tools.windows import WINDOW_TEXT, WindowArgument, session_bounds, windows_of

SPANS_READ = 3_000
SLACK_S = 300.0
"""Seconds beyond the session's windows for which a trace is read, as far as the session may see it."""

_MS = 1e6
_SPANS_SHARE, _LINES_SHARE = 0.65, 0.25
_TEXT_CHARACTERS = 300
_COLUMNS = (
    "depth",
    "service",
    "operation",
    "kind",
    "start_ms",
    "duration_ms",
    "own_ms",
    "failed",
    "on_critical_path",
    "span_id",
    "attributes",
    "events",
)
_LINES = ("at_ms", "service", "severity", "body", "span_id", "attributes")


class TraceArguments(Model):
    """Arguments of ``get_trace``."""

    trace_id: str = Field(default="", description="Id of the trace; without it one is picked.")
    service: str = Field(default="", description="Pick a trace with a span of this service.")
    operation: str = Field(default="", description="Pick a trace with a span of this name.")
    pick: Literal["slowest", "failed"] = Field(
        default="slowest",
        description='The trace with the slowest such span, or with the slowest "failed" one.',
    )
    window: WindowArgument = Field(default="incident", description=f"Where to pick from. {WINDOW_TEXT}")


class Trace(Model):
    """A trace. Rows of ``spans`` are in the order of the tree: a span follows its parent."""

    trace_id: str
    start_ns: Nanos
    start_utc: str
    duration_ms: float
    span_count: int
    failed_count: int
    spans: Rows = Field(
        description="own_ms: without what its children cover; start_ms: after the start of the trace."
    )
    log_lines: Rows


@dataclass(frozen=True)
class _Span:
    """A span as it was read; ``texts`` are its attributes."""

    at_ns: Nanos
    took_ns: int
    service: str
    operation: str
    kind: str
    span_id: str
    parent_id: str
    failed: bool
    attributes: Mapping[str, str]
    events: Sequence[str]


async def get_trace(context: ToolContext, arguments: TraceArguments) -> Trace:
    """Return the trace; raises ToolError where there is none."""
    telemetry = context.investigation.telemetry
    require(await telemetry.schema(), "otel_traces")
    trace_id = arguments.trace_id.strip() or await _picked(context, arguments)
    spans, lines = await _read(context, trace_id)
    if not spans:
        raise ToolError(
            f"no span of the trace {trace_id!r} is visible in this session; take a TraceId from query or "
            'log_templates, or let a trace be picked, as in {"service": "…", "pick": "failed"}'
        )
    start_ns = min(span.at_ns for span in spans)
    end_ns = max(span.at_ns + span.took_ns for span in spans)
    return Trace(
        trace_id=shortened(trace_id, 100),
        start_ns=start_ns,
        start_utc=iso(start_ns),
        duration_ms=_ms(end_ns - start_ns),
        span_count=len(spans),
        failed_count=sum(span.failed for span in spans),
        spans=_tree(spans, start_ns, context.caps),
        log_lines=listed(
            _LINES, [(_ms(line[0] - start_ns), *line[1:]) for line in lines], context.caps, share=_LINES_SHARE
        ),
    )


async def _picked(context: ToolContext, arguments: TraceArguments) -> str:
    windows = windows_of(context.investigation, arguments.window)
    wanted = {
        "service": arguments.service,
        "operation": arguments.operation,
        "failed_only": int(arguments.pick == "failed"),
    }
    found = await run(context, own("trace_pick"), windows, wanted)
    if len(found):
        return str(found.column("trace_id")[0])
    if arguments.service and not arguments.operation and arguments.pick == "slowest":
        raise await unknown_service(context, arguments.service, windows)
    what = " ".join(
        filter(None, ("failed" if arguments.pick == "failed" else "", "span", arguments.operation))
    )
    of = f" of {arguments.service}" if arguments.service else ""
    raise ToolError(
        f"there is no {what}{of} in this window; leave out pick or operation, or see list_services"
    )


async def _read(context: ToolContext, trace_id: str) -> tuple[list[_Span], list[tuple[Any, ...]]]:
    bounds, slack_ns = session_bounds(context.investigation), seconds_to_ns(SLACK_S)
    around = Window(start_ns=bounds.start_ns - slack_ns, end_ns=bounds.end_ns + slack_ns)
    schema = await context.investigation.telemetry.schema()
    parts = ["trace_spans", *(["trace_logs"] if schema.has("otel_logs", "LogAttributes") else [])]
    union = "\nUNION ALL\n".join(own(name).sql for name in parts)
    sql = f"SELECT * FROM ({union}) ORDER BY what DESC, at_ns, span_id LIMIT {{rows:UInt64}}"  # noqa: S608
    table = await run(context, Statement("trace", sql), [around], {"trace_id": trace_id, "rows": SPANS_READ})
    spans: list[_Span] = []
    lines: list[tuple[Any, ...]] = []
    for row in table.dicts():
        attributes = chosen(row["keys"], row["texts"])
        if row["what"] == "span":
            spans.append(_span(row, attributes))
        else:
            body = shortened(row["text"], _TEXT_CHARACTERS)
            lines.append(
                (row["at_ns"], row["service_name"], row["kind_or_severity"], body, row["span_id"], attributes)
            )
    return spans, lines


def _span(row: Mapping[str, Any], attributes: dict[str, str]) -> _Span:
    if row["message"]:
        attributes = {"status_message": shortened(row["message"], _TEXT_CHARACTERS), **attributes}
    events = [
        shortened(f"{name} {exception.strip()}".strip(), _TEXT_CHARACTERS)
        for name, exception in zip(row["events"], row["exceptions"], strict=True)
    ]
    return _Span(
        at_ns=row["at_ns"],
        took_ns=row["took_ns"],
        service=row["service_name"],
        operation=row["text"],
        kind=row["kind_or_severity"],
        span_id=row["span_id"],
        parent_id=row["parent_id"],
        failed=bool(row["failed"]),
        attributes=attributes,
        events=events[:5],
    )


def _tree(spans: Sequence[_Span], start_ns: Nanos, caps: Caps) -> Rows:
    """Return the spans that fit, depth first; failed ones matter most, then critical paths, then long."""
    first: dict[str, int] = {}
    for index, span in enumerate(spans):
        first.setdefault(span.span_id, index)
    parents = [_parent(span, index, first) for index, span in enumerate(spans)]
    own_ns, on_path = _measured(spans, parents)
    rows = {
        index: (
            depth,
            span.service,
            span.operation,
            span.kind,
            _ms(span.at_ns - start_ns),
            _ms(span.took_ns),
            _ms(own_ns[index]),
            span.failed,
            index in on_path,
            span.span_id,
            span.attributes,
            span.events,
        )
        for index, depth in _depth_first(parents)
        for span in (spans[index],)
    }
    importance = sorted(rows, key=lambda i: (not spans[i].failed, i not in on_path, -spans[i].took_ns, i))
    kept = _kept(importance, rows, parents, caps)
    shown = listed(_COLUMNS, [row for index, row in rows.items() if index in kept], caps, share=_SPANS_SHARE)
    left = len(spans) - len(shown.rows)
    return shown.model_copy(
        update={
            "truncated": left > 0,
            "rows_left_out": left,
            "note": "the least telling spans are left out; query otel_traces for all" if left else "",
        }
    )


def _parent(span: _Span, index: int, first: Mapping[str, int]) -> int | None:
    above = first.get(span.parent_id) if span.parent_id else None
    return None if above == index else above


def _measured(spans: Sequence[_Span], parents: Sequence[int | None]) -> tuple[dict[int, int], frozenset[int]]:
    """Return the own time of every span, and the spans on the critical paths."""
    numbered = [
        TraceSpan(
            span=index + 1,
            parent=0 if parents[index] is None else (parents[index] or 0) + 1,
            start_ns=span.at_ns,
            end_ns=span.at_ns + span.took_ns,
            service=span.service,
            operation=span.operation,
            kind=span.kind,
            error=span.failed,
        )
        for index, span in enumerate(spans)
    ]
    tree = TraceTree(numbered)
    places = [span.span - 1 for span in tree.spans]
    own_ns = {places[at]: max(0, tree.self_ns(at)) for at in range(len(places))}
    roots = (at for at, parent in enumerate(tree.parents) if parent is None)
    return own_ns, frozenset(places[at] for root in roots for at in tree.critical_path(root))


def _depth_first(parents: Sequence[int | None]) -> Iterator[tuple[int, int]]:
    """Yield every span once, with its depth: those below a root, then those on cycles of parents."""
    below: dict[int | None, list[int]] = {}
    for index, parent in enumerate(parents):
        below.setdefault(parent, []).append(index)
    seen: set[int] = set()
    for start in (*below.get(None, []), *range(len(parents))):
        todo = [(start, 0)]
        while todo:
            index, depth = todo.pop()
            if index not in seen:
                seen.add(index)
                yield index, depth
                todo.extend((child, depth + 1) for child in reversed(below.get(index, [])))


def _kept(
    importance: Sequence[int],
    rows: Mapping[int, Sequence[Any]],
    parents: Sequence[int | None],
    caps: Caps,
) -> set[int]:
    """Return the most important spans with their ancestors, as many as about fit."""
    room = int(caps.characters * _SPANS_SHARE) - 400
    kept: set[int] = set()
    for index in importance:
        chain, above = [], index
        while above not in kept and above not in chain:
            chain.append(above)
            parent = parents[above]
            if parent is None:
                break
            above = parent
        size = sum(row_size(rows[one]) + 1 for one in chain)
        if size > room or len(kept) + len(chain) > caps.rows:
            break
        kept.update(chain)
        room -= size
    return kept or set(importance[:1])


def _ms(value_ns: float) -> float:
    return round(value_ns / _MS, 3)


GET_TRACE = Tool(
    name="get_trace",
    description=(
        "Show one trace as a tree of spans (depth) with start_ms, duration_ms, own_ms (without children), "
        "failed, attributes and events, and its log lines. Name a trace_id, or let the slowest or a failed "
        'one of a service be picked. Example: {"service": "service-a", "pick": "failed"}'
    ),
    arguments=TraceArguments,
    result=Trace,
    run=get_trace,
    signals=("traces", "logs"),
)
