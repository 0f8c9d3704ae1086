"""Errors of servers and engines in the project's words; threads, deadlines; the stand-in's own parts."""

from __future__ import annotations

import asyncio
import base64
import gzip
import threading
import zlib

import lz4.frame
import pytest
from clickhouse_connect.driver.exceptions import DatabaseError, InterfaceError, ProgrammingError

from pytest_otel_diag.errors import (
    QueryFailed,
    QueryLimitExceeded,
    QueryRejected,
    SchemaError,
    TelemetryUnavailable,
)
from pytest_otel_diag.model.telemetry import TelemetrySchema
from pytest_otel_diag.telemetry import Store
from pytest_otel_diag.telemetry.dsn import EmbeddedAddress
from pytest_otel_diag.telemetry.engine import workers
from pytest_otel_diag.telemetry.engine.clients import locked
from pytest_otel_diag.telemetry.engine.failures import from_engine, translated
from pytest_otel_diag.telemetry.engine.workers import Workers
from pytest_otel_diag.testing.telemetry_contract import MINUTE, START_NS, sample_traces
from tests.support import clickhouse_server as stand_in
from tests.support.deadlines import deadline_s


def engine_error(code, text="something"):
    return DatabaseError(f"Code: {code}. DB::Exception: {text} (version 26.9) (for url http://h)", code=code)


@pytest.mark.parametrize(
    ("code", "kind", "says"),
    [
        (160, QueryLimitExceeded, "30 s"),
        (307, QueryLimitExceeded, "rows read"),
        (516, TelemetryUnavailable, "user or password"),
        (497, QueryRejected, "only reading"),
        (81, SchemaError, "name the database"),
        (60, SchemaError, "something"),
        (47, SchemaError, "something"),
        (182, QueryFailed, "write WHERE"),
        (36, QueryFailed, "the engine refused the statement: something"),
        (243, TelemetryUnavailable, "cannot work now: something"),
        (999, TelemetryUnavailable, "cannot work now: something"),
        (None, TelemetryUnavailable, "did not answer"),
    ],
)
def test_codes_become_errors_that_say_more(code, kind, says):
    error = from_engine(engine_error(code))
    assert type(error) is kind
    assert says in str(error)
    assert "for url" not in str(error)


def test_an_unknown_column_lists_those_of_the_table_it_names():
    schema = TelemetrySchema("d", {"otel_logs": {"Body": "String"}, "otel_traces": {"TraceId": "String"}})
    error = from_engine(engine_error(47, "Unknown identifier `Bod` in otel_logs"), schema=schema)
    assert "did you mean 'Body'" in str(error)
    assert "otel_logs has Body" in str(error)
    assert "TraceId" not in str(error)


def test_wrong_use_of_the_driver_is_a_failed_query():
    for error in (ProgrammingError("closed"), InterfaceError("odd")):
        with pytest.raises(QueryFailed, match=r"closed|odd"), translated():
            raise error


@pytest.mark.parametrize(
    ("reason", "says"),
    [
        ("already initialized with path", "another part of this process"),
        ("Error initializing EmbeddedServer: . (BAD_ARGUMENTS)", "another process"),
        ("disk full", "cannot be opened: disk full"),
    ],
)
def test_a_path_that_cannot_be_opened_says_why(reason, says):
    assert says in locked(EmbeddedAddress("/data"), reason)


@pytest.mark.parametrize(
    ("dsn", "says"),
    [
        (lambda s: s.dsn("viewer", "wrong"), "refused user or password"),
        (lambda s: s.dsn(database="nowhere"), "no database 'nowhere'"),
        (lambda s: f"{s.dsn()}?nonsense=1", "check the DSN's options"),
        (lambda s: "clickhouse://127.0.0.1:1/", "8123 for HTTP"),
    ],
)
def test_servers_that_cannot_be_used_say_the_way_out(server, dsn, says):
    with pytest.raises(TelemetryUnavailable) as caught:
        Store.open(dsn(server))
    assert says in str(caught.value)
    assert "wrong" not in str(caught.value)


async def test_a_user_who_may_only_read_needs_no_ddl(server, server_store):
    server_store.create_database("readable")
    server_store.ingest_arrow("readable", "otel_traces", sample_traces())
    with Store.open(server.dsn("viewer", database="readable")) as viewer:
        telemetry = viewer.telemetry("readable")
        assert len(await telemetry.call_edges(MINUTE)) == 2
        answer = await telemetry.query("SELECT count() AS n FROM otel_traces")
        assert list(answer.column("n")) == [40]
        telemetry.close()
        with pytest.raises(QueryRejected, match="only reading"):
            viewer.telemetry("readable", now=lambda: START_NS)
        with pytest.raises(QueryRejected):
            viewer.create_database("forbidden")
    server_store.drop_database("readable")


async def test_a_call_that_outlives_its_deadline_is_abandoned(monkeypatch):
    monkeypatch.setattr(workers, "GRACE_S", 0.05)
    pool, release = Workers(concurrency=1), threading.Event()
    with pytest.raises(QueryLimitExceeded, match="abandoned"):
        await pool.run(release.wait, time_s=0.05)
    assert await pool.run(lambda: 42, time_s=deadline_s(10)) == 42
    release.set()


async def test_what_a_call_raises_arrives():
    with pytest.raises(SchemaError, match="here"):
        await Workers().run(lambda: (_ for _ in ()).throw(SchemaError("here")), time_s=1)


async def test_a_task_cancelled_before_its_turn_never_runs():
    pool, release, ran = Workers(concurrency=1), threading.Event(), []
    begun = asyncio.Event()
    loop = asyncio.get_running_loop()

    def wait() -> bool:
        loop.call_soon_threadsafe(begun.set)
        return release.wait(deadline_s(10))

    first = asyncio.ensure_future(pool.run(wait, time_s=deadline_s(10)))
    await begun.wait()
    second = asyncio.ensure_future(pool.run(lambda: ran.append(1), time_s=deadline_s(10)))
    for _ in range(5):  # until it waits for its turn
        await asyncio.sleep(0)
    second.cancel()
    with pytest.raises(asyncio.CancelledError):
        await second
    release.set()
    assert await first
    assert ran == []


def ask(parameters, body=b"", readonly=0):
    return stand_in.answer(stand_in.Request(parameters, readonly, body), ":memory:")


def test_the_stand_in_answers_as_its_parameters_say(store):
    assert ask({"query": "SELECT {x:String}", "param_x": "a'b"}) == b"a\\'b\n"
    assert ask({"database": "system", "max_threads": "1"}, b"SELECT currentDatabase()") == b"system\n"
    ask({"query": "CREATE DATABASE `by hand` ENGINE = Atomic"})
    ask({"query": "CREATE TABLE `by hand`.t (n UInt8) ENGINE = Memory"})
    ask({}, b"INSERT INTO `by hand`.t (n) FORMAT TSV\n1\n2\n")
    assert ask({"query": "SELECT sum(n) FROM `by hand`.t"}) == b"3\n"
    store.drop_database("by hand")


@pytest.mark.parametrize(
    ("parameters", "readonly", "code", "status"),
    [
        ({"query": "SELECT * FROM nowhere"}, 0, 60, 404),
        ({"query": "SELEC 1"}, 0, 62, 500),
        ({"query": "SELECT 1", "a b": "1"}, 0, 115, 500),
        ({"query": "CREATE DATABASE x"}, 1, 164, 500),
        ({"query": "SELECT 1", "max_threads": "1"}, 1, 164, 500),
        ({"query": "CREATE DATABASE x", "readonly": "2"}, 0, 164, 500),
    ],
)
def test_the_stand_in_refuses_like_a_server(store, parameters, readonly, code, status):
    with pytest.raises(stand_in.Refused) as caught:
        ask(parameters, readonly=readonly)
    assert (caught.value.code, caught.value.status) == (code, status)
    assert str(caught.value).startswith(f"Code: {code}.")


def test_the_stand_in_unpacks_bodies():
    packed = {
        "": b"x",
        "identity": b"x",
        "gzip": gzip.compress(b"x"),
        "deflate": zlib.compress(b"x"),
        "lz4": lz4.frame.compress(b"x"),
    }
    assert {stand_in.unpack(body, encoding) for encoding, body in packed.items()} == {b"x"}
    with pytest.raises(stand_in.Refused, match="'br'"):
        stand_in.unpack(b"", "br")


def test_the_stand_in_knows_its_users():
    basic = base64.b64encode(b"viewer:secret").decode()
    assert stand_in.profile({"authorization": f"Basic {basic}"}) == 1
    assert stand_in.profile({"x-clickhouse-user": "writer", "x-clickhouse-key": "secret"}) == 0
    assert stand_in.profile({}) == 0
    for headers in (
        {"x-clickhouse-user": "nobody"},
        {"x-clickhouse-user": "viewer", "x-clickhouse-key": "no"},
    ):
        with pytest.raises(stand_in.Refused, match="AUTHENTICATION_FAILED") as caught:
            stand_in.profile(headers)
        assert caught.value.status == 403


async def call(app, method, path, body=b"", query=b"", headers=()):
    """Return status, headers and body of one ASGI call."""
    sent = []
    scope = {
        "type": "http",
        "method": method,
        "path": path,
        "query_string": query,
        "headers": list(headers),
        "http_version": "1.1",
    }

    async def receive():
        return {"type": "http.request", "body": body, "more_body": False}

    async def send(message):
        sent.append(message)

    await app(scope, receive, send)
    content = b"".join(message.get("body", b"") for message in sent)
    return sent[0]["status"], dict(sent[0]["headers"]), content


async def test_the_stand_in_speaks_http(store):
    app = stand_in.application(":memory:")
    assert (await call(app, "GET", "/ping"))[::2] == (200, b"Ok.\n")
    status, headers, body = await call(app, "POST", "/", b"SELECT 1 + 1")
    assert (status, headers[b"x-clickhouse-timezone"], body) == (200, b"UTC", b"2\n")
    status, headers, body = await call(app, "GET", "/", query=b"query=SELECT+1%2B%27x%27")
    assert (status, headers[b"x-clickhouse-exception-code"]) == (500, b"43")
    assert body.startswith(b"Code: 43.")


def test_a_stand_in_that_cannot_start_says_why(tmp_path):
    (tmp_path / "file").write_text("in the way")
    with (
        pytest.raises(RuntimeError, match="did not start"),
        stand_in.clickhouse_server(tmp_path / "file" / "below"),
    ):
        pass
