"""Accesses begin and end: tokens, running calls, connections, threads; many at once, and after a fork."""

from __future__ import annotations

import asyncio
import gc
import json
import os
import select
import signal
import socket
import subprocess
import sys
import threading
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from pathlib import Path

import httpx
import pytest

from pytest_otel_diag.errors import ConfigurationError
from pytest_otel_diag.gateway import Gateway, application, environment, exchange, server, shared_gateway
from pytest_otel_diag.secret import cleaned, new_token
from tests.gateway.conftest import client_of
from tests.gateway.hanging import Hanging
from tests.support.deadlines import deadline_s, eventually
from tests.support.investigations import investigation_over

ENDING = """
import asyncio, sys, threading, urllib.request
from pytest_otel_diag.gateway import shared_gateway
from pytest_otel_diag.model.windows import Window
from pytest_otel_diag.ports import Investigation

begun = threading.Event()

class Hanging:
    async def schema(self):
        begun.set()
        await asyncio.Event().wait()

def call():
    request = urllib.request.Request(f"{access.url}/v1/schema")
    request.add_header("Authorization", f"Bearer {access.token.reveal()}")
    try:
        urllib.request.urlopen(request)
    except OSError:
        pass

given = Investigation("x", Window(start_ns=0, end_ns=1), None, (), Hanging(), None)
opened = shared_gateway().access(given)
access = opened.__enter__()
threading.Thread(target=call, daemon=True).start()
begun.wait()
sys.exit(7)
"""
"""A program that ends inside of an access."""


@pytest.fixture
def hanging(telemetry) -> Hanging:
    return Hanging(telemetry)


def server_of(gateway: Gateway):
    assert gateway._running is not None
    return gateway._running.server


def test_a_token_is_of_no_use_after_its_block(gateway, investigation):
    with gateway.access(investigation) as access, client_of(access) as client:
        assert client.get("/v1/clock").status_code == 200
    late = client_of(access).get("/v1/clock")
    assert late.status_code == 401
    assert "the investigation is over" in late.json()["error"]["message"]


def test_tokens_open_their_own_investigation_only(gateway, telemetry):
    with ExitStack() as stack:
        accesses = [stack.enter_context(gateway.access(investigation_over(telemetry))) for _ in range(3)]
        for number, access in enumerate(accesses):
            with client_of(access) as client:
                client.post("/v1/diagnosis", json={"summary": str(number)})
        assert [access.toolbox.submitted for access in accesses] == [{"summary": str(n)} for n in range(3)]


def test_a_call_that_hangs_ends_with_its_access(gateway, hanging):
    with ThreadPoolExecutor(1) as pool:
        with gateway.access(investigation_over(hanging)) as access:
            client = client_of(access)
            call = pool.submit(client.post, "/v1/query", json={"sql": "SELECT 1"})
            assert hanging.begun.wait(deadline_s(10))
        answer = call.result(deadline_s(10))
        client.close()
    assert hanging.cancelled.is_set()
    assert answer.status_code == 401
    assert "the investigation is over" in answer.json()["error"]["message"]


def test_a_query_is_cancelled_when_its_client_leaves(gateway, hanging):
    with gateway.access(investigation_over(hanging)) as access:
        leaver = _begin_call(access)
        assert hanging.begun.wait(deadline_s(10))
        leaver.close()
        assert hanging.cancelled.wait(deadline_s(10))


@pytest.mark.parametrize("path", ["/v1/query", "/mcp"])
def test_a_client_that_leaves_within_its_body_is_no_event(access, path, caplog):
    with caplog.at_level("INFO"):
        for _ in range(3):
            with socket.create_connection(("127.0.0.1", _port(access))) as leaver:
                leaver.sendall(f"{_head(access, path=path)}\r\n{{".encode())
        with client_of(access) as client:
            assert client.get("/v1/clock").status_code == 200
    assert [record for record in caplog.records if record.name != "httpx"] == []


def _begin_call(access) -> socket.socket:
    body = json.dumps({"sql": "SELECT 1"})
    connection = socket.create_connection(("127.0.0.1", _port(access)))
    connection.sendall(f"{_head(access)}\r\n{body}".encode())
    return connection


def _port(access) -> int:
    port = httpx.URL(access.url).port
    assert port is not None
    return port


def _head(access, *more: str, path: str = "/v1/query", size: int = 19, token: bool = True) -> str:
    """Return the head of a request with a body of *size* bytes."""
    lines = [
        f"POST {path} HTTP/1.1",
        f"Host: 127.0.0.1:{_port(access)}",
        f"Content-Length: {size}",
        *([f"Authorization: Bearer {access.token.reveal()}"] if token else []),
        *more,
    ]
    return "".join(f"{line}\r\n" for line in lines)


def test_many_accesses_with_stalling_clients_leave_nothing(hanging):
    gateway = Gateway()
    with gateway.access(investigation_over(hanging)):
        pass  # starts the server
    threads, files = threading.active_count(), _open_files()
    stalled = []
    for _ in range(30):
        with gateway.access(investigation_over(hanging)) as access:
            stalled.append(_begin_call(access))  # never reads, never closes
            assert hanging.begun.wait(deadline_s(10))
            hanging.begun.clear()
    running = server_of(gateway)
    assert eventually(lambda: running.connections == 0)
    assert threading.active_count() == threads
    for client in stalled:
        client.close()
    assert eventually(lambda: _open_files() <= files)
    assert len(gateway._running.leases) == 0
    tasks = asyncio.run_coroutine_threadsafe(_tasks(), running.loop).result(deadline_s(5))
    assert tasks == 2  # the server, and the one that counts
    gateway.close()
    assert eventually(lambda: threading.active_count() < threads)


def test_a_client_that_does_not_read_its_answer_ends_with_the_access(gateway, investigation):
    before = server_of(gateway).connections
    with gateway.access(investigation) as access:
        body = json.dumps({"sql": "SELECT repeat('x', 100) FROM numbers(100000)"})
        head = _head(access, path="/v1/table", size=len(body))
        with socket.socket() as stalled:
            stalled.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
            stalled.connect(("127.0.0.1", _port(access)))
            stalled.sendall(f"{head}\r\n{body}".encode())
            assert stalled.recv(12) == b"HTTP/1.1 200"
            assert not eventually(lambda: server_of(gateway).connections <= before, seconds=0)
            lease = next(iter(gateway._running.leases.all()))
            gateway._running.end(lease, "the investigation is over")
            assert eventually(lambda: server_of(gateway).connections <= before)


async def _tasks() -> int:
    return len(asyncio.all_tasks())


def _open_files() -> int:
    gc.collect()
    return len(list(Path("/proc/self/fd").iterdir()))


def test_a_closed_gateway_frees_its_port_and_starts_again(investigation):
    gateway = Gateway()
    with gateway.access(investigation) as access:
        gateway.close()
        with pytest.raises(httpx.ConnectError):
            client_of(access).get("/v1/clock")
    with gateway.access(investigation) as access:
        assert client_of(access).get("/v1/clock").status_code == 200
    gateway.close()
    gateway.close()


def test_a_chosen_port_and_token_serve_one_access_after_another(investigation):
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        with (
            pytest.raises(ConfigurationError, match=f"port {port} of 127.0.0.1"),
            Gateway(port).access(investigation),
        ):
            pass
    gateway, token = Gateway(port), new_token()
    for _ in range(2):
        with gateway.access(investigation, token=token) as access, client_of(access) as client:
            assert access.url == f"http://127.0.0.1:{port}"
            assert client.get("/v1/clock").status_code == 200
    with httpx.Client(base_url=access.url, headers={"authorization": f"Bearer {token.reveal()}"}) as late:
        assert late.get("/v1/clock").status_code == 401
    gateway.close()


def test_parallel_accesses_from_threads_share_one_server(telemetry):
    gateway = Gateway()

    def session(number: int) -> str:
        with gateway.access(investigation_over(telemetry)) as access, client_of(access) as client:
            found = client.post("/v1/query", json={"sql": f"SELECT {number}"}).json()
            assert found["rows"] == [[number]]
            return access.url

    with ThreadPoolExecutor(8) as pool:
        assert len(set(pool.map(session, range(24)))) == 1
    gateway.close()


def test_a_forked_child_starts_its_own_server(investigation):
    gateway = shared_gateway()
    with gateway.access(investigation) as access:
        reading, writing = os.pipe()
        child = os.fork()
        if child == 0:
            with gateway.access(investigation) as other:
                answer = client_of(other).get("/v1/clock").status_code
                os.write(writing, f"{answer} {other.url != access.url}".encode())
            os._exit(0)
        os.close(writing)
        ready, _, _ = select.select([reading], [], [], deadline_s(20))
        if not ready:
            os.kill(child, signal.SIGKILL)
        assert os.read(reading, 100) == b"200 True"
        os.waitpid(child, 0)
        os.close(reading)
        assert client_of(access).get("/v1/clock").status_code == 200


def test_a_process_ends_while_a_call_hangs():
    done = subprocess.run(
        [sys.executable, "-c", ENDING], capture_output=True, text=True, check=False, timeout=deadline_s(30)
    )
    assert (done.returncode, done.stdout, done.stderr) == (7, "", "")


def test_missing_packages_are_named_with_their_extra(investigation, monkeypatch):
    gateway = Gateway()
    monkeypatch.setitem(sys.modules, "uvicorn", None)
    with (
        pytest.raises(ConfigurationError, match=r"agent needs uvicorn.*pytest-otel-diag\[agents\]"),
        gateway.access(investigation),
    ):
        pass
    monkeypatch.undo()
    monkeypatch.setitem(sys.modules, "mcp", None)
    with gateway.access(investigation) as access, client_of(access) as client:
        answer = client.post("/mcp", json={})
        assert (answer.status_code, answer.json()["error"]["kind"]) == (501, "not_installed")
        assert "use the JSON API" in answer.json()["error"]["message"]
    gateway.close()


def test_the_token_is_masked_wherever_it_is_shown(access):
    token = access.token.reveal()
    assert token not in f"{access} {access!r} {access.token}"
    assert environment(access)["OTEL_DIAG_TOKEN"] == token
    assert cleaned(f"argv: --token={token}!") == "argv: --token=***!"


def test_only_the_loopback_of_ipv4_listens(access):
    port = f":{_port(access):04X}"
    tables = [Path("/proc/net", name).read_text() for name in ("tcp", "tcp6")]
    lines = [line.split() for table in tables for line in table.splitlines()]
    assert [line[1] for line in lines if line[3] == "0A" and line[1].endswith(port)] == [f"0100007F{port}"]


def test_an_agent_holds_few_connections(gateway, investigation, monkeypatch):
    monkeypatch.setattr(application, "_MOST_CONNECTIONS", 2)
    with gateway.access(investigation) as access:
        clients = [client_of(access) for _ in range(3)]
        assert [client.get("/v1/clock").status_code for client in clients] == [200, 200, 503]
        clients.pop(0).close()
        assert eventually(lambda: clients[-1].get("/v1/clock").status_code == 200)
        for client in clients:
            client.close()


def test_responses_do_not_wait_for_acknowledgements(gateway, client):
    client.get("/v1/clock")
    (connection,) = server_of(gateway)._state.connections
    accepted = connection.transport.get_extra_info("socket")
    assert accepted.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY)


def test_strangers_hold_few_connections(gateway, investigation):
    with gateway.access(investigation) as access:
        strangers = [socket.create_connection(("127.0.0.1", _port(access))) for _ in range(140)]
        assert eventually(lambda: server_of(gateway).connections <= 128)
        assert client_of(access).get("/v1/clock").status_code == 200
        for stranger in strangers:
            stranger.close()


def test_strangers_and_slow_bodies_are_not_waited_for(gateway, investigation, monkeypatch):
    monkeypatch.setattr(server, "_UNKNOWN_S", 0.2)
    monkeypatch.setattr(exchange, "_BODY_S", 0.2)
    monkeypatch.setattr(exchange, "_DISCARD_S", 0.1)
    with gateway.access(investigation) as access:
        assert _raw(access, b"POST /v1/query HTTP/1.1\r\nHost:") == b""
        assert b"did not arrive within 0.2 s" in _raw(access, f"{_head(access)}\r\n{{".encode())


@pytest.mark.parametrize(
    "sent",
    [
        b"NONSENSE\r\n\r\n",
        b"GET / HTTP/1.1\r\nHost: x\r\nX: " + b"a" * 20_000 + b"\r\n\r\n",
        b"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
        b"POST / HTTP/1.1\r\nContent-Length: x\r\n\r\n",
    ],
)
def test_what_is_no_http_is_refused_in_json(access, sent):
    answer = _raw(access, sent)
    assert answer.startswith((b"HTTP/1.1 400", b"HTTP/1.1 421"))
    assert b'{"error":' in answer.replace(b" ", b"")


def test_100_continue_is_sent_for_callers_with_a_token_only(access):
    expect = "Expect: 100-continue"
    with socket.create_connection(("127.0.0.1", _port(access))) as connection:
        connection.settimeout(deadline_s(10))
        connection.sendall(f"{_head(access, expect, 'Connection: close')}\r\n".encode())
        assert connection.recv(1000).startswith(b"HTTP/1.1 100")
        connection.sendall(b'{"sql": "SELECT 1"}')
        assert b'"rows":[[1]]' in _rest(connection)
    assert _raw(access, f"{_head(access, expect, token=False)}\r\n".encode()).startswith(b"HTTP/1.1 401")


def _raw(access, sent: bytes) -> bytes:
    """Return everything that the server answers until it closes the connection."""
    with socket.create_connection(("127.0.0.1", _port(access))) as connection:
        connection.settimeout(deadline_s(10))
        connection.sendall(sent)
        return _rest(connection)


def _rest(connection: socket.socket) -> bytes:
    pieces = []
    while piece := connection.recv(10_000):
        pieces.append(piece)
    return b"".join(pieces)
