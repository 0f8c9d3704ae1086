"""A run is killed while its guardian is obstructed: files are missing or shadowed, or it is stopped."""

from __future__ import annotations

import os
import shutil
import signal
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.undo.cells import FLAG, VARIANT, Cell, cell, until


def shadow(place: Cell) -> None:
    """Add modules to the tests folder that shadow the standard library."""
    for name in ("queue", "calendar"):
        (place.folder / "tests" / f"{name}.py").write_text("class Basket: pass\n")


def nothing(place: Cell) -> None:
    """Change nothing."""


def delete(place: Cell) -> None:
    """Delete the open entry."""
    (entry,) = place.entries
    entry.unlink()


def cut(place: Cell) -> None:
    """Truncate the open entry."""
    (entry,) = place.entries
    entry.write_bytes(entry.read_bytes()[:200])


def remove(place: Cell) -> None:
    """Delete the state folder, with the journal and the lease."""
    shutil.rmtree(place.state)


@pytest.mark.parametrize(
    ("before", "during", "said"),
    [
        (shadow, nothing, ""),
        (nothing, delete, "own copy"),
        (nothing, cut, "own copy"),
        (nothing, remove, "own copy"),
    ],
    ids=["shadow", "delete", "cut", "remove"],
)
def test_the_guardian_restores_the_flags(
    tmp_path: Path, before: Callable[[Cell], None], during: Callable[[Cell], None], said: str
):
    with cell(tmp_path / "cell") as place:
        before(place)
        process = place.start(point="analysis")
        place.reached(process)
        assert place.served()[FLAG] == VARIANT
        during(place)
        os.kill(process.pid, signal.SIGKILL)
        process.wait()
        assert until(place.as_before, 30), (place.state / "guardian.log").read_text()
        log = place.state / "guardian.log"
        assert until(lambda: "restored" in log.read_text(), 5) and said in log.read_text()


def test_heal_wakes_a_guardian_that_was_stopped(tmp_path: Path):
    with cell(tmp_path / "cell") as place:
        process = place.start(point="analysis")
        guardian = place.reached(process)["guardian"]
        os.kill(guardian, signal.SIGSTOP)
        os.kill(process.pid, signal.SIGKILL)
        process.wait()
        healed = place.command("heal")
        assert healed.returncode == 0 and "RESTORED" in healed.stdout, healed.stdout + healed.stderr
        assert until(place.as_before, 10)
