"""Shapes of the exporter's tables: attributes as JSON, spellings, columns of other releases."""

from __future__ import annotations

import pytest

from pytest_otel_diag.errors import SchemaError
from pytest_otel_diag.model.questions import CallEdges, ServiceHealthOf
from pytest_otel_diag.statements.spellings import KNOWN_STATUSES
from tests.support import exporter_tables
from tests.support.exporter_tables import CALLS, WINDOW

NAME = "shapes"


@pytest.fixture
def made(store):
    """Makes tables and opens their telemetry."""
    opened = []

    def make(*, now=None, **shape):
        exporter_tables.make(store, NAME, **shape)
        opened.append(store.telemetry(NAME, now=now))
        return opened[-1]

    yield make
    for telemetry in opened:
        telemetry.close()
    store.drop_database(NAME)


async def errors(telemetry):
    health = await telemetry.ask(ServiceHealthOf(WINDOW, 60.0))
    return {each.service: (each.requests, each.errors) for each in health}


@pytest.mark.parametrize("bounded", [False, True])
@pytest.mark.parametrize("attributes", ["JSON", "String"])
async def test_attributes_in_json_are_read_as_maps(made, attributes, bounded):
    telemetry = made(attributes=attributes, now=(lambda: WINDOW.end_ns) if bounded else None)
    assert await errors(telemetry) == {"frontend": (CALLS, 0), "payment": (CALLS, CALLS)}
    edges = await telemetry.ask(CallEdges(WINDOW))
    assert [(edge.caller, edge.callee, edge.errors) for edge in edges] == [("frontend", "payment", CALLS)]
    columns = "ResourceAttributes['k8s.pod.name'], SpanAttributes, Events.Attributes"
    table = await telemetry.query(f"SELECT {columns} FROM otel_traces LIMIT 1")
    assert list(table.rows()) == [("p-1", {"k8s.pod.name": "p-1"}, [])]


@pytest.mark.parametrize("bounded", [False, True])
async def test_attributes_of_another_type_are_refused_once_with_the_column(made, bounded):
    with pytest.raises(SchemaError, match=r"ResourceAttributes is Tuple.*json: false"):
        made(attributes="Tuple(a String)", now=(lambda: 0) if bounded else None)


async def test_a_user_who_may_make_no_views_is_referred_to_the_columns(made, monkeypatch):
    def denied(views, connection):
        connection.command("SELECT noSuchFunction(1)")

    monkeypatch.setattr("pytest_otel_diag.telemetry.views.SessionViews.create", denied)
    with pytest.raises(SchemaError, match=r"no maps in otel_logs.ResourceAttributes, .*json: false"):
        made(attributes="JSON")


@pytest.mark.parametrize(
    ("status", "kind"),
    [
        ("Error", "Server"),
        ("STATUS_CODE_ERROR", "SPAN_KIND_SERVER"),
        ("ERROR", "SERVER"),
        ("error", "server"),
        ("2", "2"),
    ],
)
async def test_every_spelling_of_a_status_and_a_kind_means_the_same(made, status, kind):
    assert status.upper() in KNOWN_STATUSES
    telemetry = made(status=status, kind=kind, now=lambda: WINDOW.end_ns)
    assert await errors(telemetry) == {"frontend": (CALLS, 0), "payment": (CALLS, CALLS)}
    table = await telemetry.query("SELECT DISTINCT StatusCode, SpanKind FROM otel_traces ORDER BY StatusCode")
    assert list(table.rows()) == [("Error", "Server"), ("Unset", "Server")]


async def test_spellings_are_evened_out_without_views_too(made):
    telemetry = made(status="ERROR", kind="SERVER")
    assert await errors(telemetry) == {"frontend": (CALLS, 0), "payment": (CALLS, CALLS)}
