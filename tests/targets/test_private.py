"""Databases that sessions make for themselves: none is left, whoever is cancelled and whatever fails."""

from __future__ import annotations

import asyncio
import logging
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from pytest_otel_diag.errors import TelemetryError, TelemetryUnavailable
from pytest_otel_diag.targets.private import PrivateDatabases, held
from pytest_otel_diag.targets.replay.recording_store import MEMORY_DSN, RecordingStore
from tests.support.deadlines import deadline_s

BOUND_S = deadline_s(10)


class Engine:
    """An engine that drops databases, unless it is down, and remembers what it was asked."""

    def __init__(self) -> None:
        self.down: set[str] = set()
        self.dropped: list[str] = []

    def drop(self, name: str) -> None:
        if name in self.down:
            raise TelemetryUnavailable(f"{name}: not now")
        self.dropped.append(name)


@pytest.fixture
def engine() -> Engine:
    return Engine()


@pytest.fixture
def databases(engine: Engine) -> PrivateDatabases:
    return PrivateDatabases(engine.drop)


def test_what_cannot_be_dropped_is_told_and_dropped_with_the_next(
    engine: Engine, databases: PrivateDatabases
) -> None:
    for name in ("first", "second", "running"):
        assert databases.add(name) == name
    engine.down = {"first"}
    with pytest.raises(TelemetryError, match="not now"):
        databases.drop("first")
    databases.drop("second")
    assert engine.dropped == ["second"], "a failure is reported once"
    engine.down = set()
    databases.drop(databases.add("third"))
    assert engine.dropped == ["second", "third", "first"]
    assert databases.drop_all() == ()
    assert engine.dropped[3:] == ["running"], "a session that never ended leaves its database to the end"


def test_a_name_is_dropped_once_and_a_strange_one_never(engine: Engine, databases: PrivateDatabases) -> None:
    databases.drop("telemetry_of_another_client")
    databases.add("own")
    databases.drop("own")
    databases.drop("own")
    assert engine.dropped == ["own"]
    assert databases.drop_all() == ()


def test_the_end_does_not_wait_for_ever_and_says_what_is_left(
    engine: Engine, databases: PrivateDatabases
) -> None:
    databases.add("down")
    databases.add("good")
    engine.down = {"down"}
    assert databases.drop_all() == ("down",)
    goes_on = threading.Event()
    busy = PrivateDatabases(lambda name: goes_on.wait(BOUND_S) and None)
    busy.add("busy")
    assert busy.drop_all(timeout_s=0.05) == ("busy",)
    goes_on.set()


class Making:
    """Something whose making and release can be stopped half-way."""

    def __init__(self) -> None:
        self.begun, self.go, self.over = threading.Event(), threading.Event(), threading.Event()
        self.released: list[str | None] = []

    def make(self) -> str:
        self.begun.set()
        assert self.go.wait(BOUND_S)
        return "it"

    def fail(self) -> str:
        raise TelemetryUnavailable("cannot be made")

    def release(self, made: str | None) -> None:
        self.released.append(made)
        self.over.set()


@pytest.fixture
def making() -> Iterator[Making]:
    made = Making()
    yield made
    made.go.set()


async def _hold(making: Making) -> None:
    async with held(making.make, making.release):
        await asyncio.sleep(BOUND_S)


async def test_cancelled_while_it_is_made_it_is_released_once_made(making: Making) -> None:
    task = asyncio.create_task(_hold(making))
    await asyncio.to_thread(making.begun.wait, BOUND_S)
    task.cancel()
    done, _ = await asyncio.wait([task], timeout=0.05)
    assert not done, "the cancellation waits for what was begun"
    assert making.released == []
    making.go.set()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert making.released == ["it"]


async def test_cancelled_twice_it_is_released_all_the_same(making: Making) -> None:
    task = asyncio.create_task(_hold(making))
    await asyncio.to_thread(making.begun.wait, BOUND_S)
    task.cancel()
    await asyncio.sleep(0.01)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    making.go.set()
    await asyncio.to_thread(making.over.wait, BOUND_S)
    assert making.released == ["it"]


async def test_what_cannot_be_made_is_released_as_nothing(making: Making) -> None:
    with pytest.raises(TelemetryError, match="cannot be made"):
        async with held(making.fail, making.release):
            raise AssertionError("there is nothing to hold")
    assert making.released == [None]


def test_a_store_drops_what_its_sessions_made(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    loaded = RecordingStore(MEMORY_DSN, tmp_path)
    other = RecordingStore(MEMORY_DSN, tmp_path)
    try:
        names = [loaded.private_name(unique) for unique in ("private_a", "private_b")]
        for name in names:
            loaded.store.create_database(name)
        loaded.discard(names[0])
        assert [name for name in names if name in other.store.databases()] == names[1:]
        loaded.close()
        assert [name for name in names if name in other.store.databases()] == []
        with pytest.raises(TelemetryError, match="is closed"):
            loaded.discard(loaded.private_name("private_c"))
        with caplog.at_level(logging.WARNING):
            loaded.close()
            assert not caplog.records, "an embedded store is swept at its next start"
            monkeypatch.setattr(type(loaded.store), "embedded", False)
            loaded.close()
        assert "session_private_c" in caplog.text
    finally:
        monkeypatch.undo()
        other.close()
