"""Stores in memory that killed processes left in the temporary folder."""

from __future__ import annotations

import fcntl
import uuid
from pathlib import Path

from pytest_otel_diag.telemetry.engine.leftovers import remove_dead_stores
from tests.undo import hostile


def store(folder: Path, status: str | None = "PID: 1\n") -> Path:
    made = folder / f"clickhouse-embedded-{uuid.uuid4()}"
    (made / "data").mkdir(parents=True)
    (made / "data" / "part").write_bytes(b"x" * 100)
    if status is not None:
        (made / "status").write_text(status)
    return made


def test_only_stores_of_ended_processes_are_removed(tmp_path: Path):
    dead, running, starting, unknown = (
        store(tmp_path),
        store(tmp_path),
        store(tmp_path, ""),
        store(tmp_path, None),
    )
    named = tmp_path / "clickhouse-embedded-mine"
    dead.with_name("elsewhere").mkdir()
    named.symlink_to(dead)
    with (running / "status").open("rb") as status:
        fcntl.flock(status, fcntl.LOCK_EX)
        assert remove_dead_stores(tmp_path) == 1
    assert not dead.exists()
    assert all(path.exists() for path in (running, starting, unknown, dead.with_name("elsewhere")))
    assert named.is_symlink()
    assert remove_dead_stores(tmp_path) == 1 and not running.exists()
    assert remove_dead_stores(tmp_path / "missing") == 0


def test_a_status_that_is_no_file_is_left_alone(tmp_path: Path):
    for state in hostile.STATES:
        if state != "sparse file":
            hostile.put(state, store(tmp_path) / "status")
    assert hostile.in_time(lambda: remove_dead_stores(tmp_path)) == 0
