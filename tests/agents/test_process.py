"""Agents that attack the supervisor leave no process behind."""

import asyncio
import signal
import sys
from contextlib import suppress
from pathlib import Path

import pytest

from pytest_otel_diag.analyzers.agents.process import AgentProcess, Limits, workplace

ATTACK = """
import os, pathlib, subprocess, sys, time
child = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(600)"], start_new_session=True)
pathlib.Path("new").write_text(f"{os.getpid()} {child.pid}")
os.kill(os.getppid(), int(sys.argv[1]))
os.rename("new", "done")
time.sleep(600)
"""


@pytest.mark.skipif(not Path("/proc/self/stat").exists(), reason="processes are found in /proc")
@pytest.mark.parametrize("number", ["SIGKILL", "SIGSTOP"])
async def test_an_agent_that_ends_or_stops_its_supervisor_does_not_outlive_the_run(number):
    with workplace() as place:
        command = [sys.executable, "-c", ATTACK, str(int(signal.Signals[number]))]
        run = asyncio.ensure_future(AgentProcess(command, place, limits=Limits(grace_s=0.1)).run())
        while not ((place.work / "done").exists() or run.done()):  # noqa: ASYNC110 - a process, no task, makes the file
            await asyncio.sleep(0.02)
        started = next(one for one in (place.work / "done", place.work / "new") if one.exists())
        processes = started.read_text().split()
        run.cancel()
        with suppress(asyncio.CancelledError):
            await run

    assert processes
    assert not [one for one in processes if _runs(one)]


def _runs(process: str) -> bool:
    try:
        state = Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()[0]
    except OSError:
        return False
    return state not in "ZX"
