"""Loaded telemetry outlives the process: loaded once, redone after a kill, apart for each worker."""

import json
import sqlite3
import subprocess
import sys

import pytest

from pytest_otel_diag.model.flags import FlagChange
from pytest_otel_diag.targets.replay.recording_store import database_name
from pytest_otel_diag.targets.replay.target import ReplayTarget
from tests.recordings.sample_cases import write_sample_cases
from tests.support.clickhouse_server import clickhouse_server
from tests.support.deadlines import deadline_s

RUN = """
import asyncio, json, os, signal, sys
from pathlib import Path
from pytest_otel_diag.targets.replay.target import ReplayTarget
from pytest_otel_diag.telemetry.store import Store

loads = []
ingest = Store.ingest_parquet
def counted(self, database, table, path):
    loads.append(table)
    if len(loads) == die_at:
        os.kill(os.getpid(), signal.SIGKILL)
    return ingest(self, database, table, path)
Store.ingest_parquet = counted
source, cache, worker = sys.argv[1:4]
die_at = int(sys.argv[4])
target = ReplayTarget([Path(source)], store_dsn="", cache_dir=Path(cache), worker=worker)

async def main():
    async with target.open(target.scenarios()[0], "s") as session:
        await session.clock.sleep(3600)
        rows = (await session.telemetry.query("SELECT count() FROM otel_traces")).columns[0][0]
    print(json.dumps({"loads": len(loads), "rows": rows, "dsn": target._store.store.dsn,
                      "databases": list(target._store.store.databases())}), flush=True)
    HOOK

asyncio.run(main())
target.close()
"""


def start(source, cache, worker="", *, hook="pass", die_at=0):
    script = RUN.replace("HOOK", hook)
    return subprocess.Popen(
        [sys.executable, "-c", script, str(source), str(cache), worker, str(die_at)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )


def run(source, cache, worker=""):
    process = start(source, cache, worker)
    out, _ = process.communicate(timeout=deadline_s(60))
    assert process.returncode == 0
    return json.loads(out)


@pytest.fixture(scope="module")
def source(tmp_path_factory):
    return write_sample_cases(tmp_path_factory.mktemp("source"))


def test_the_second_start_finds_everything_loaded_and_a_lost_entry_is_redone(source, tmp_path):
    first = run(source, tmp_path)
    assert first["loads"] == 3
    assert first["dsn"] == f"chdb://{tmp_path}/stores/main"
    second = run(source, tmp_path)
    assert second == {**first, "loads": 0}
    # What a load that was killed leaves: rows, but no entry in the ledger.
    (ledger,) = (tmp_path / "stores").glob("*.sqlite")
    with sqlite3.connect(ledger) as connection:
        connection.execute("DELETE FROM loaded")
    connection.close()
    assert run(source, tmp_path) == first


def test_a_load_that_was_killed_is_done_again_and_sessions_left_behind_are_swept(source, tmp_path):
    killed = start(source, tmp_path, die_at=3, hook="pass")
    killed.communicate(timeout=deadline_s(60))
    assert killed.returncode == -9
    after_kill = start(
        source, tmp_path, hook="target._store.store.create_database('session_left'); os._exit(0)"
    )
    again = json.loads(after_kill.communicate(timeout=deadline_s(60))[0])
    assert again["loads"] == 3
    third = run(source, tmp_path)
    assert (third["loads"], third["rows"]) == (0, again["rows"])
    assert not [name for name in third["databases"] if name == "session_left"]


@pytest.mark.parametrize("table", ["largest", "otel_traces_slim"])
def test_a_store_that_lost_rows_is_loaded_again(source, tmp_path, table):
    first = run(source, tmp_path)
    parts = sorted((tmp_path / "stores" / "main").rglob("data.bin"), key=lambda path: path.stat().st_size)
    if table == "otel_traces_slim":
        columns = [(part, (part.parent / "columns.txt").read_text()) for part in parts]
        parts = [part for part, text in columns if "start_ns" in text]
    damaged = parts[-1]
    damaged.write_bytes(damaged.read_bytes()[: damaged.stat().st_size // 2])
    assert run(source, tmp_path) == first
    assert run(source, tmp_path) == {**first, "loads": 0}


def test_parallel_workers_have_a_store_each(source, tmp_path):
    running = [start(source, tmp_path, worker) for worker in ("gw0", "gw1")]
    answers = [json.loads(process.communicate(timeout=deadline_s(60))[0]) for process in running]
    assert {answer["dsn"] for answer in answers} == {f"chdb://{tmp_path}/stores/{w}" for w in ("gw0", "gw1")}
    assert {answer["loads"] for answer in answers} == {3}
    assert len({answer["rows"] for answer in answers}) == 1


def test_while_another_process_holds_the_store_memory_is_used(source, tmp_path):
    holder = start(source, tmp_path, hook="sys.stdin.read()")
    first = json.loads(holder.stdout.readline())
    second = run(source, tmp_path)
    assert second["dsn"] == "chdb://memory"
    assert second["rows"] == first["rows"]
    holder.communicate(timeout=deadline_s(30))
    assert holder.returncode == 0
    assert list((tmp_path / "stores" / "main").iterdir())


def loaded(database, store):
    with store._engine.connection(database) as connection:
        return connection.rows("SELECT count() FROM otel_traces")[0][0]


async def test_a_server_is_loaded_once_for_all_processes(source, tmp_path):
    with clickhouse_server() as server:
        seen = []
        for _ in range(2):
            target = ReplayTarget([source], store_dsn=server.dsn(), cache_dir=tmp_path)
            item = target.scenarios()[0]
            async with target.open(item, "s") as session:
                await session.clock.sleep(item.timing.baseline_s)
                await session.flags.apply(FlagChange(key=item.id, variant="on"))
                await session.clock.sleep(item.timing.observe_s)
                health = await session.telemetry.service_health(session.reference[0], 60.0)
                seen.append(sorted((row.service, row.requests) for row in health))
            assert loaded(database_name(target.recordings[0]), target._store.store) == 5 * 340 + 4 * 120
            target.close()
        assert seen[0] == seen[1] != []
