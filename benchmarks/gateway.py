"""``python -m benchmarks.gateway [--starts 10] [--queries 200] [--accesses 1000]``.

Measures the gateway: the first access of a fresh process, a query through each door beside the same query in
process, and accesses whose agent stalls. Direct and remote queries take turns, so that other load of the
machine meets both; the difference is that of the medians. The client is in the same process and shares its
interpreter with the server, which a real agent does not.
"""

from __future__ import annotations

import argparse
import asyncio
import gc
import json
import socket
import statistics
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import httpx

from pytest_otel_diag.gateway import Access, Gateway
from pytest_otel_diag.model.session import Budget
from pytest_otel_diag.model.windows import Window
from pytest_otel_diag.ports import Investigation
from pytest_otel_diag.telemetry import Store
from pytest_otel_diag.telemetry.session import StoreTelemetry
from pytest_otel_diag.testing.analyzer_contract import BASELINE, INCIDENT, StandingClock, incident_traces

SQL = "SELECT ServiceName, count() FROM otel_traces GROUP BY ServiceName"
START = """
import sys, time, urllib.request
import pytest_otel_diag.analyzers, pytest_otel_diag.sessions, pytest_otel_diag.tools
begun = time.perf_counter(), time.process_time()
from pytest_otel_diag.gateway import shared_gateway
from pytest_otel_diag.model.windows import Window
from pytest_otel_diag.ports import Investigation
window = Window(start_ns=0, end_ns=1)
given = Investigation("x", window, None, (), None, None)
with shared_gateway().access(given) as access:
    header = {"Authorization": f"Bearer {access.token.reveal()}"}
    urllib.request.urlopen(urllib.request.Request(f"{access.url}/v1/question", headers=header)).read()
    print(time.perf_counter() - begun[0], time.process_time() - begun[1])
"""


@contextmanager
def telemetry() -> Iterator[StoreTelemetry]:
    """Yield a small telemetry in the embedded store."""
    with Store.open("chdb://memory") as store:
        store.create_database("gateway")
        store.ingest_arrow("gateway", "otel_traces", incident_traces())
        yield store.telemetry("gateway")


def given(over: StoreTelemetry) -> Investigation:
    """Return an investigation without a session."""
    incident: Window = INCIDENT
    budget = Budget(queries=1_000_000)
    return Investigation("0123456789abcdef", incident, BASELINE, (), over, StandingClock(), budget)


def starts(count: int) -> None:
    """Print wall and CPU milliseconds from the import of the gateway to its first answer."""
    found = []
    for _ in range(count):
        done = subprocess.run([sys.executable, "-c", START], capture_output=True, text=True, check=True)
        found.append([1e3 * float(word) for word in done.stdout.split()])
    wall, cpu = ([one[index] for one in found] for index in (0, 1))
    print(
        f"first access, n={count}: wall median {statistics.median(wall):.0f} ms, worst {max(wall):.0f} ms; ",
        end="",
    )
    print(f"CPU median {statistics.median(cpu):.0f} ms")


async def queries(access: Access, over: StoreTelemetry, count: int) -> None:
    """Print the median milliseconds of a query in process and through each door."""
    taken: dict[str, list[float]] = {"in process": [], "/v1/query": [], "/v1/table": [], "/mcp": []}
    call = {
        "jsonrpc": "2.0",
        "id": 1,
        "method": "tools/call",
        "params": {"name": "query", "arguments": {"sql": SQL}},
    }
    headers = {
        "authorization": f"Bearer {access.token.reveal()}",
        "accept": "application/json, text/event-stream",
    }
    async with httpx.AsyncClient(base_url=access.url, headers=headers, timeout=60) as client:
        for _ in range(count + 1):
            for door, times in taken.items():
                begun = time.perf_counter()
                if door == "in process":
                    await over.query(SQL)
                else:
                    body = call if door == "/mcp" else {"sql": SQL}
                    (await client.post(door, json=body)).raise_for_status()
                times.append(1e3 * (time.perf_counter() - begun))
    direct = statistics.median(taken["in process"][1:])
    for door, times in taken.items():
        median = statistics.median(times[1:])
        print(f"query, {door:<10} n={count}: median {median:6.2f} ms, {median - direct:+.2f} ms")


class Stalling:
    """Telemetry whose queries wait until they are cancelled."""

    def __init__(self) -> None:
        self.begun = threading.Event()

    async def query(self, *_: object) -> None:
        """Wait."""
        self.begun.set()
        await asyncio.Event().wait()


def accesses(count: int) -> None:
    """Print what accesses leave behind whose agent calls, never reads, and keeps its connection."""
    gateway, stalling, clients = Gateway(), Stalling(), []
    investigation = Investigation("x", INCIDENT, None, (), stalling, StandingClock())  # type: ignore[arg-type]  # no more is asked
    with gateway.access(investigation):
        pass
    before = state()
    begun = time.perf_counter()
    for _ in range(count):
        with gateway.access(investigation) as access:
            clients.append(stall(access))
            stalling.begun.wait()
            stalling.begun.clear()
    per_access = 1e3 * (time.perf_counter() - begun) / count
    for client in clients:
        client.close()
    running = gateway._running
    assert running is not None
    while running.server.connections:
        time.sleep(0.1)
    tasks = asyncio.run_coroutine_threadsafe(count_tasks(), running.server.loop).result()
    after = state()
    gateway.close()
    print(
        f"stalling agents, n={count}: {per_access:.1f} ms an access; threads {before[0]} → {after[0]}, "
        f"files {before[1]} → {after[1]}, tokens {len(running.leases)}, tasks of the server {tasks - 1}"
    )


def stall(access: Access) -> socket.socket:
    """Begin a call and leave it."""
    body = json.dumps({"sql": SQL})
    url = httpx.URL(access.url)
    client = socket.create_connection((url.host, url.port or 0))
    client.sendall(
        f"POST /v1/query HTTP/1.1\r\nHost: {url.netloc.decode()}\r\nContent-Length: {len(body)}\r\n"
        f"Authorization: Bearer {access.token.reveal()}\r\n\r\n{body}".encode()
    )
    return client


def state() -> tuple[int, int]:
    """Return the number of threads and of open files."""
    gc.collect()
    return threading.active_count(), len(list(Path("/proc/self/fd").iterdir()))


async def count_tasks() -> int:
    """Return the number of tasks of the running loop, this one included."""
    return len(asyncio.all_tasks())


def main() -> None:
    """Print the figures."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--starts", type=int, default=10)
    parser.add_argument("--queries", type=int, default=200)
    parser.add_argument("--accesses", type=int, default=1000)
    arguments = parser.parse_args()
    starts(arguments.starts)
    with telemetry() as over:
        gateway = Gateway()
        with gateway.access(given(over)) as access:
            asyncio.run(queries(access, over, arguments.queries))
        gateway.close()
    accesses(arguments.accesses)


if __name__ == "__main__":
    main()
