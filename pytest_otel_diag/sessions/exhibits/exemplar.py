"""One request of the incident that shows the fault, with its critical path."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from pytest_otel_diag.model.exhibits import MAX_SPANS, NAME_CHARS, ExemplarTrace, ExhibitSpan
from pytest_otel_diag.model.telemetry import TelemetrySchema
from pytest_otel_diag.model.windows import NANOS_PER_SECOND, Window
from pytest_otel_diag.ports import Telemetry
from pytest_otel_diag.statements import KEY_MAX, load, over_spans, window_parameters
from pytest_otel_diag.stats.critical_path import Interval, TraceSpan, TraceTree

SPANS_READ = 5_000
SLACK_S = 300.0
"""Seconds beyond the incident for which a trace is read: its root may begin before, consumers end after."""

_MS = 1e6

Path = Mapping[int, Sequence[Interval]]


async def exemplar(
    telemetry: Telemetry, incident: Window, services: Sequence[str], *, failed_first: bool
) -> ExemplarTrace | None:
    """Return the request that shows the fault best, None without any span of the services.

    The first of *services* that has spans in the incident decides; of its spans the slowest is taken,
    or with *failed_first* the slowest failed one. Raises TelemetryError.
    """
    schema = await telemetry.schema()
    wanted = {
        **window_parameters([incident]),
        "key_from": 0,
        "key_to": KEY_MAX,
        "services": list(services),
        "failed_first": int(failed_first),
    }
    chosen = await telemetry.query(over_spans(load(__package__, "exemplar"), schema).sql, wanted)
    if not len(chosen):
        return None
    trace, focus, service, operation, duration_ns, failed = next(chosen.rows())
    slack_ns = round(SLACK_S * NANOS_PER_SECOND)
    around = Window(start_ns=incident.start_ns - slack_ns, end_ns=incident.end_ns + slack_ns)
    spans = await _spans(telemetry, schema, int(trace), around)
    if not spans:
        return None
    how = "failed" if failed else "slowest"
    return _shown(
        spans,
        focus=int(focus),
        trace_id=await _trace_id(telemetry, schema, int(trace), around),
        choice=f"{how} {_cut(str(operation))} of {_cut(str(service))}, {int(duration_ns) / _MS:.1f} ms",
    )


async def _spans(
    telemetry: Telemetry, schema: TelemetrySchema, trace: int, around: Window
) -> list[TraceSpan]:
    wanted = {**window_parameters([around]), "key_from": trace, "key_to": trace, "rows": SPANS_READ}
    table = await telemetry.query(over_spans(load(__package__, "exemplar_spans"), schema).sql, wanted)
    return [
        TraceSpan(
            span=int(span),
            parent=int(parent),
            start_ns=int(start),
            end_ns=int(end),
            service=str(service),
            operation=str(operation),
            kind=str(kind),
            error=bool(error),
        )
        for span, parent, start, end, service, operation, kind, error in table.rows()
    ]


async def _trace_id(telemetry: Telemetry, schema: TelemetrySchema, trace: int, around: Window) -> str:
    if not schema.has("otel_traces", "TraceId"):
        return f"hash {trace:016x}"
    wanted = {"trace": trace, "start_ns": around.start_ns, "end_ns": around.end_ns}
    table = await telemetry.query(load(__package__, "exemplar_id").sql, wanted)
    return _cut(str(table.column("trace_id")[0]))


def _shown(spans: Sequence[TraceSpan], *, focus: int, trace_id: str, choice: str) -> ExemplarTrace:
    tree = TraceTree(spans)
    index = next((i for i, span in enumerate(tree.spans) if span.span == focus), 0)
    root = tree.root_of(index)
    path = {} if root is None else tree.critical_path(root)
    kept = keep(tree, path, index, MAX_SPANS)
    places = {old: new for new, old in enumerate(kept)}
    start_ns = min(tree.spans[i].start_ns for i in kept)
    return ExemplarTrace(
        trace_id=trace_id,
        start_ns=start_ns,
        choice=choice,
        spans_total=len(tree.spans),
        spans=tuple(_exhibit(tree, old, places, path, start_ns) for old in kept),
    )


def keep(tree: TraceTree, path: Path, focus: int, most: int) -> list[int]:
    """Return at most *most* spans in order of time, with all of their ancestors.

    The chosen span comes first, then the path by its own time, then failed spans, then the longest.
    """

    def importance(index: int) -> tuple[bool, int, bool, int, int]:
        span = tree.spans[index]
        own = sum(end - start for start, end in path.get(index, ()))
        return index != focus, -own, not span.error, span.start_ns - span.end_ns, index

    kept: set[int] = set()
    for index in sorted(range(len(tree.spans)), key=importance):
        chain: list[int] = []
        above: int | None = index
        while above is not None and above not in kept and above not in chain and len(chain) <= most:
            chain.append(above)
            above = tree.parents[above]
        if len(kept) + len(chain) <= most:
            kept.update(chain)
        if len(kept) == most:
            break
    # A chain longer than all there is room for: its lower end is better than nothing.
    return sorted(kept) if kept else [focus]


def _exhibit(tree: TraceTree, index: int, places: Mapping[int, int], path: Path, zero_ns: int) -> ExhibitSpan:
    span, parent = tree.spans[index], tree.parents[index]
    return ExhibitSpan(
        parent=None if parent is None else places.get(parent),
        service=_cut(span.service),
        operation=_cut(span.operation),
        kind=span.kind,
        start_ms=_ms(span.start_ns - zero_ns),
        duration_ms=_ms(max(0, span.end_ns - span.start_ns)),
        self_ms=_ms(max(0, tree.self_ns(index))),
        error=span.error,
        on_path=index in path,
        critical=tuple((_ms(start - zero_ns), _ms(end - zero_ns)) for start, end in path.get(index, ())),
    )


def _ms(value_ns: int) -> float:
    return round(value_ns / _MS, 3)


def _cut(text: str) -> str:
    return text if len(text) <= NAME_CHARS else f"{text[: NAME_CHARS - 1]}…"
