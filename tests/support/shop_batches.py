"""Hypothesis strategies for records of the shop, and a small model that makes some."""

from __future__ import annotations

from collections import Counter
from typing import Any

from hypothesis import strategies as st

from pytest_otel_diag.shop.records import (
    Batch,
    EventRecord,
    HistogramValue,
    Instrument,
    LinkRecord,
    LogRecord,
    MetricPoint,
    Resource,
    Scope,
    SpanRecord,
)

SERVICES = ("frontend", "checkout", "payment")
RESOURCES = tuple(Resource(name, {"service.name": name, "host.name": f"{name}-0"}) for name in SERVICES)
SCOPES = (Scope("http", "1.2"), Scope("grpc"))
INSTRUMENTS = (
    Instrument("memory", "gauge", "By", "bytes in use"),
    Instrument("requests", "sum", "{request}"),
    Instrument("in.flight", "sum", monotonic=False),
    Instrument("duration", "histogram", "ms"),
)

instants = st.integers(0, 2**63 - 1)
trace_ids = st.binary(min_size=16, max_size=16).map(bytes.hex)
span_ids = st.binary(min_size=8, max_size=8).map(bytes.hex)
texts = st.text(st.characters(exclude_categories=["Cs"]), max_size=20)
numbers = st.floats(allow_nan=False)
attributes = st.dictionaries(
    texts.filter(bool), texts | st.booleans() | st.integers(-(2**63), 2**63 - 1) | numbers, max_size=4
)
resources = st.sampled_from(RESOURCES)
scopes = st.sampled_from(SCOPES)


@st.composite
def spans(draw: st.DrawFn) -> SpanRecord:
    start_ns = draw(st.integers(0, 2**62))
    status = draw(st.sampled_from(["Unset", "Ok", "Error"]))
    return SpanRecord(
        exported_ns=0,
        start_ns=start_ns,
        duration_ns=draw(st.integers(0, 2**62)),
        trace_id=draw(trace_ids),
        span_id=draw(span_ids),
        parent_id=draw(span_ids | st.just("")),
        name=draw(texts),
        kind=draw(st.sampled_from(["Internal", "Server", "Client", "Producer", "Consumer"])),
        resource=draw(resources),
        scope=draw(scopes),
        attributes=draw(attributes),
        status=status,
        message=draw(texts) if status == "Error" else "",
        events=tuple(draw(st.lists(st.builds(EventRecord, instants, texts, attributes), max_size=2))),
        links=tuple(draw(st.lists(st.builds(LinkRecord, trace_ids, span_ids, attributes), max_size=2))),
    )


@st.composite
def logs(draw: st.DrawFn) -> LogRecord:
    correlated = draw(st.booleans())
    return LogRecord(
        exported_ns=0,
        time_ns=draw(instants),
        resource=draw(resources),
        scope=draw(scopes),
        severity_text=draw(st.sampled_from(["", "INFO", "ERROR"])),
        severity_number=draw(st.integers(0, 24)),
        body=draw(texts),
        attributes=draw(attributes),
        trace_id=draw(trace_ids) if correlated else "",
        span_id=draw(span_ids) if correlated else "",
        event_name=draw(texts),
    )


@st.composite
def histograms(draw: st.DrawFn) -> HistogramValue:
    bounds = sorted(draw(st.sets(st.floats(0, 1e6), max_size=4)))
    counts = draw(st.lists(st.integers(0, 1000), min_size=len(bounds) + 1, max_size=len(bounds) + 1))
    extremes = sorted([draw(numbers), draw(numbers)]) if sum(counts) else [0.0, 0.0]
    return HistogramValue(sum(counts), draw(numbers), tuple(counts), tuple(bounds), *extremes)


@st.composite
def points(draw: st.DrawFn) -> MetricPoint:
    instrument = draw(st.sampled_from(INSTRUMENTS))
    value = draw(
        histograms() if instrument.kind == "histogram" else numbers | st.integers(-(2**63), 2**63 - 1)
    )
    return MetricPoint(
        exported_ns=0,
        time_ns=draw(instants),
        start_ns=draw(instants),
        resource=draw(resources),
        scope=draw(scopes),
        instrument=instrument,
        attributes=draw(attributes),
        value=value,
    )


batches = st.builds(
    Batch,
    st.lists(spans(), max_size=12),
    st.lists(logs(), max_size=12),
    st.lists(points(), max_size=12),
)


def plain(record: Any) -> str:
    """Return the record as text in which resource, scope and instrument are spelt out by value."""

    def value(name: str, item: Any) -> Any:
        if name == "resource":
            return item.service, dict(item.attributes)
        if name == "scope":
            return item.name, item.version
        if name == "instrument":
            return item.name, item.kind, item.unit, item.description, item.monotonic
        return item

    return repr({name: value(name, item) for name, item in record._asdict().items() if name != "exported_ns"})


def bag(batch: Batch) -> Counter[str]:
    """Return the records of a batch without their order."""
    return Counter(plain(record) for record in (*batch.spans, *batch.logs, *batch.metrics))


def span(number: int, *, name: str = "GET /", at_ns: int = 0, error: str = "") -> SpanRecord:
    """Return a server span whose ids say its number."""
    return SpanRecord(
        exported_ns=at_ns,
        start_ns=at_ns,
        duration_ns=1_000_000,
        trace_id=f"{number + 1:032x}",
        span_id=f"{number + 1:016x}",
        parent_id="",
        name=name,
        kind="Server",
        resource=RESOURCES[0],
        scope=SCOPES[0],
        attributes={"http.response.status_code": 500 if error else 200},
        status="Error" if error else "Unset",
        message=error,
    )


class SteadyModel:
    """Emits one span a *gap_ns* of its time; a record is visible *lag_ns* after it happened."""

    def __init__(self, start_ns: int, gap_ns: int, lag_ns: int = 0) -> None:
        self.now_ns = start_ns
        self.advanced: list[int] = []
        self._start_ns = start_ns
        self._gap_ns = gap_ns
        self._lag_ns = lag_ns
        self._made = 0
        self._kept: list[SpanRecord] = []

    def advance(self, until_ns: int) -> None:
        self.advanced.append(until_ns)
        while (at_ns := self._start_ns + self._made * self._gap_ns) < until_ns:
            self._kept.append(span(self._made, at_ns=at_ns)._replace(exported_ns=at_ns + self._lag_ns))
            self._made += 1
        self.now_ns = until_ns

    def take(self, until_ns: int) -> Batch:
        due = [record for record in self._kept if record.exported_ns <= until_ns]
        self._kept = [record for record in self._kept if record.exported_ns > until_ns]
        return Batch(spans=due)

    def flush(self) -> Batch:
        return self.take(2**63)
