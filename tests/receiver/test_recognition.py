"""What the export service keeps, rejects and refuses, without servers and store."""

from __future__ import annotations

import copy
import json
from collections.abc import Iterator
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest

from pytest_otel_diag.receiver import Limits
from pytest_otel_diag.receiver.backlog import Backlog
from pytest_otel_diag.receiver.counts import Tally
from pytest_otel_diag.receiver.export_service import ExportService, Malformed
from pytest_otel_diag.receiver.packages import SIGNALS, Signal, services
from tests.support import otlp

AT = str(otlp.T0_NS)


class Desk:
    """An export service whose backlog nobody empties."""

    def __init__(self) -> None:
        limits = Limits()
        self.tally = Tally()
        self.backlog = Backlog(limits, lambda: 0.0)
        self.service = ExportService(self.backlog, self.tally, limits)

    def send(self, signal: Signal, document: Any) -> tuple[str, Any]:
        """Return the message of the response or refusal, and the queued request."""
        as_json = not isinstance(document, bytes)
        body = json.dumps(document).encode() if as_json else document
        try:
            response = self.service.export(signal, body, as_json=as_json)
        except Malformed as error:
            return str(error), None
        queued = self.backlog.abandon()
        request = services()[signal].request
        message = request.FromString(queued[0].body) if queued else request()
        return response.partial_success.error_message, message


def span(number: int, **fields: Any) -> dict[str, Any]:
    ids = {"traceId": f"{number:032x}", "spanId": f"{number:016x}"}
    return {**ids, "name": f"span {number}", "startTimeUnixNano": AT, "endTimeUnixNano": AT, **fields}


def traces(*spans: Any, **group: Any) -> dict[str, Any]:
    return {"resourceSpans": [{"scopeSpans": [{"spans": list(spans)}], **group}]}


def attribute(value: Any) -> dict[str, Any]:
    return {"attributes": [{"key": "order", "value": value}]}


def named(message: Any) -> list[str]:
    return [
        each.name for group in message.resource_spans for scope in group.scope_spans for each in scope.spans
    ]


ODD = {
    "a text for a value": (attribute("A-17"), "attributes[0].value: the text"),
    "a list for a value": (attribute(["a"]), "attributes[0].value: a list where an object"),
    "a number for a text": (attribute({"stringValue": 5}), "value.stringValue: the number 5"),
    "a value of no known kind": (
        attribute({"StringValue": "5"}),
        "value: no known kind of value: StringValue",
    ),
    "two values": (attribute({"stringValue": "5", "intValue": 5}), "both stringValue and intValue"),
    "a fraction for an integer": (attribute({"intValue": 1.5}), "intValue: the number 1.5 where a whole"),
    "an integer too large": (attribute({"intValue": 2**63}), "beyond the range"),
    "bytes that are no base64": (attribute({"bytesValue": "!!"}), "is not base64"),
    "an object for attributes": ({"attributes": {"a": 1}}, "attributes: an object where a list"),
    "a text for the status": ({"status": "ERROR"}, "status: the text"),
    "a status of no enumeration": ({"status": {"code": "ERROR"}}, "status.code: the text"),
    "an id in base64": ({"traceId": "W47/95gDgQPSabYzgT/GDA=="}, "traceId: the text"),
    "a truth for a kind": ({"kind": True}, "kind: the value true"),
    "a time before 1970": ({"startTimeUnixNano": -1}, "startTimeUnixNano: the number -1"),
    "an array too deep": (attribute(json.loads('{"arrayValue":{"values":[' * 60 + "]}}" * 60)), "too deeply"),
}


@pytest.mark.parametrize(("fields", "complaint"), ODD.values(), ids=ODD)
def test_an_odd_value_costs_its_record_and_names_its_field(fields: dict[str, Any], complaint: str) -> None:
    desk = Desk()
    message, request = desk.send("traces", traces(span(1), span(2, **fields), span(3)))
    assert "resourceSpans[0].scopeSpans[0].spans[1]." in message
    assert complaint in message
    assert named(request) == ["span 1", "span 3"]
    message, request = desk.send("traces", traces(span(2, **fields)))
    assert (request, complaint in message) == (None, True)
    counts = desk.tally.snapshot().traces
    assert (counts.received, counts.waiting, sum(counts.rejected.values())) == (3, 2, 1)
    assert counts.refused == {"malformed": 1}


def test_odd_resources_and_data_points_cost_the_records_that_they_describe() -> None:
    desk = Desk()
    both = {"resourceSpans": [*traces(span(1), span(2), resource="checkout")["resourceSpans"],
                              *traces(span(3))["resourceSpans"]]}  # fmt: skip
    message, request = desk.send("traces", both)
    assert "2: value that its field cannot hold; resourceSpans[0].resource: the text" in message
    assert named(request) == ["span 3"]
    points = [{"timeUnixNano": AT, "asDouble": value} for value in ("NaN", "much", 2)]
    metric = {"name": "m", "gauge": {"dataPoints": points}}
    message, request = desk.send("metrics", {"resourceMetrics": [{"scopeMetrics": [{"metrics": [metric]}]}]})
    assert "resourceMetrics[0].scopeMetrics[0].metrics[0].gauge.dataPoints[1].asDouble" in message
    assert len(request.resource_metrics[0].scope_metrics[0].metrics[0].gauge.data_points) == 2


def test_values_that_only_look_odd_are_kept() -> None:
    nothing = attribute({"arrayValue": {"values": [None, {"stringValue": "stop"}]}})
    half = attribute({"stringValue": "half \ud83d"})
    other = {"kind": "SPAN_KIND_SERVER", "startTimeUnixNano": float(AT), "status": None, "trace_state": "a=1"}
    extra = {"vendor": {"traceId": "req-123"}}
    desk = Desk()
    message, request = desk.send(
        "traces", {**traces(span(1, **nothing), span(2, **half), span(3, **other, **extra)), **extra}
    )
    assert message == ""
    spans = request.resource_spans[0].scope_spans[0].spans
    assert [each.WhichOneof("value") for each in spans[0].attributes[0].value.array_value.values] == [
        None,
        "string_value",
    ]
    assert spans[1].attributes[0].value.string_value == "half �"
    assert (spans[2].kind, spans[2].start_time_unix_nano, spans[2].trace_state) == (2, otlp.T0_NS, "a=1")


JUNK = "JUNK"
INNER = {"kvlistValue": {"values": [{"key": "k", "value": {"arrayValue": {"values": [{"intValue": "5"}]}}}]}}
EVENT = {"timeUnixNano": AT, "name": "e", **attribute({"boolValue": True})}
LINK = {"traceId": f"{3:032x}", "spanId": f"{3:016x}"}
VALID = traces(
    span(1, kind=2, status={"code": 2, "message": "m"}, **attribute(INNER)),
    span(2, parentSpanId=f"{1:016x}", events=[EVENT], links=[LINK]),
    resource=attribute({"stringValue": "checkout"}),
)


def places(node: Any, path: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    items = node.items() if isinstance(node, dict) else enumerate(node) if isinstance(node, list) else ()
    for key, value in items:
        yield (*path, key)
        yield from places(value, (*path, key))


@settings(max_examples=200)
@given(
    st.sampled_from(list(places(VALID))),
    st.sampled_from([JUNK, [JUNK], {JUNK: JUNK}, {"stringValue": JUNK}, [{"stringValue": JUNK}]]),
)
def test_no_text_is_lost_without_a_word_and_the_counts_add_up(place: tuple[Any, ...], junk: Any) -> None:
    document = copy.deepcopy(VALID)
    node: Any = document
    for key in place[:-1]:
        node = node[key]
    node[place[-1]] = junk
    desk = Desk()
    message, request = desk.send("traces", document)
    counts = desk.tally.snapshot().traces
    kept = request is not None and JUNK in str(request)
    may_be_unknown = isinstance(junk, dict) or isinstance(junk[0], dict)  # a field that OTLP says to ignore
    assert kept or message or may_be_unknown
    if request is not None:
        assert counts.received == counts.waiting + sum(counts.rejected.values())
        assert len(named(request)) == counts.waiting
    else:
        assert (counts.received, counts.refused) == (0, {"malformed": 1})


@pytest.mark.parametrize("sent", SIGNALS)
@pytest.mark.parametrize("path", SIGNALS)
@pytest.mark.parametrize("as_json", [True, False])
def test_a_request_of_another_signal_is_refused_with_its_path(
    sent: Signal, path: Signal, as_json: bool
) -> None:
    requests = {"traces": otlp.spans(2), "logs": otlp.logs(2), "metrics": otlp.points(2)}
    body = requests[sent].SerializeToString()
    document = {f"resource{'Spans' if sent == 'traces' else sent.title()}": [{}]}
    desk = Desk()
    message, _ = desk.send(path, document if as_json else body)
    if sent == path:
        assert message == ""
    else:
        assert message == f"the body is an Export request of {sent}, not of {path}; send it to /v1/{sent}"
        assert desk.tally.snapshot().of(path).refused == {"malformed": 1}


@pytest.mark.parametrize(
    ("signal", "document", "field"),
    [
        ("traces", {"resourceSpans": [{"instrumentationLibrarySpans": [{"spans": [span(1)]}]}]},
         "instrumentationLibrarySpans"),
        ("traces", {"spans": [span(1)]}, "spans"),
        ("metrics", {"resourceMetrics": [{"scopeMetrics": [{"metrics": [{"name": "m", "intGauge": {}}]}]}]},
         "intGauge"),
    ],
)  # fmt: skip
def test_a_request_in_which_nothing_is_recognised_is_answered_with_its_fields(
    signal: Signal, document: Any, field: str
) -> None:
    desk = Desk()
    message, _ = desk.send(signal, document)
    assert field in message
    counts = desk.tally.snapshot().of(signal)
    assert counts.waiting == 0
    assert counts.refused or counts.rejected


@pytest.mark.parametrize("body", [b"", b'{"resourceSpans": [{"scopeSpans": []}]}', b"{}"])
def test_an_empty_request_is_no_mistake(body: bytes) -> None:
    desk = Desk()
    assert desk.send("traces", body if not body else json.loads(body))[0] == ""
    assert desk.tally.snapshot().traces.refused == {}


@pytest.mark.parametrize(
    "ids", [{"trace_id": b""}, {"span_id": b""}, {"trace_id": bytes(16)}, {"span_id": bytes(8)}]
)
def test_spans_without_ids_are_rejected(ids: dict[str, bytes]) -> None:
    request = otlp.spans(2)
    spans = request.resource_spans[0].scope_spans[0].spans
    for name, value in ids.items():
        setattr(spans[1], name, value)
    message, kept = Desk().send("traces", request.SerializeToString())
    assert message == "records that cannot be stored: 1: span without trace id or span id"
    assert named(kept) == ["span 0"]
    assert isinstance(kept, ExportTraceServiceRequest)


@pytest.mark.parametrize("place", ["name", "attribute", "resource", "trace_state"])
def test_a_text_that_is_not_utf_8_costs_no_span(place: str) -> None:
    request = otlp.spans(2)
    group = request.resource_spans[0]
    span_ = group.scope_spans[0].spans[1]
    if place in {"name", "trace_state"}:
        setattr(span_, place, "half ~~")
    else:
        owner = span_ if place == "attribute" else group.resource
        owner.attributes.add(key="k").value.string_value = "half ~~"
    message, kept = Desk().send("traces", request.SerializeToString().replace(b"~~", b"\xe2\x82"))
    assert message == ""
    assert len(named(kept)) == 2
    assert "half \ufffd" in kept.SerializeToString().decode("utf-8", "ignore")


@given(st.binary(max_size=60), st.integers(0, 200))
def test_bodies_that_are_no_protobuf_are_refused_after_the_repair_too(junk: bytes, at: int) -> None:
    body = otlp.spans(1, service="caf\u00e9").SerializeToString()
    desk = Desk()
    desk.send("traces", body[:at] + b"\xff\xfe" + junk + body[at:])
    counts = desk.tally.snapshot().traces
    assert counts.received == counts.waiting + sum(counts.rejected.values())
    assert counts.refused or counts.requests


def test_half_a_character_in_the_name_of_a_field_is_answered_with_a_question_mark() -> None:
    desk, half = Desk(), "\ud83d"
    refusals = (
        {half: 1},
        {half: [{}], "resourceSpans": [{"scopeSpans": [{half: 1}]}]},
        {"resourceSpans": {half: 1}},
        [half],
    )
    for document in refusals:
        complaint, _ = desk.send("traces", document)
        assert complaint == complaint.encode().decode()
    complaint, kept = desk.send("traces", traces(span(1), span(2, attributes=half), span(3, **{half: 1})))
    assert "ignored fields: " in complaint and "?" in complaint
    assert [one.name for one in kept.resource_spans[0].scope_spans[0].spans] == ["span 1", "span 3"]
