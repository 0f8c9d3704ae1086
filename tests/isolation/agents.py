"""An analyzer that runs in a process of its own, and does what the seed of the investigation says."""

import asyncio
import gc
import json
import os
import subprocess
import sys
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

from pytest_otel_diag.model.diagnosis import Diagnosis
from pytest_otel_diag.model.questions import CallEdges, Latest, LogKinds, ServiceHealthOf
from pytest_otel_diag.model.telemetry import QueryLimits

WORST = """
    SELECT ServiceName, countIf(StatusCode = 'Error') AS failed FROM otel_traces
    WHERE Timestamp >= fromUnixTimestamp64Nano({start:Int64})
      AND Timestamp < fromUnixTimestamp64Nano({end:Int64})
    GROUP BY ServiceName ORDER BY failed DESC LIMIT 1
"""
ODD_VALUES = """
    SELECT toUInt64(18446744073709551615) AS big, nan AS no_number, -inf AS low,
           toDecimal64(1.25, 2) AS money,
           toDate('2026-01-02') AS day, [1, 2] AS list, (1, 'a') AS pair, map('a', 1) AS named,
           NULL AS nothing, toUUID('00000000-0000-0000-0000-000000000001') AS id, unhex('ff00') AS raw,
           toIPv4('10.0.0.1') AS ip
"""
FAMILIAR = {
    "Scenario",
    "Expectation",
    "SessionEngine",
    "SessionContext",
    "EngineSettings",
    "Session",
    "Config",
}


async def worst(investigation):
    """Name the service with most failed spans."""
    window = {"start": investigation.incident.start_ns, "end": investigation.incident.end_ns}
    table = await investigation.telemetry.query(WORST, window)
    service, failed = next(table.rows(), ("", 0))
    if not failed:
        return {"detected": False}
    return {"detected": True, "root_causes": [{"service": service}], "summary": f"{failed} failed"}


async def everything(investigation):
    """Return what every handle answers, right and wrong calls, as text."""
    telemetry, window = investigation.telemetry, investigation.incident
    calls = [
        lambda: telemetry.query(ODD_VALUES),
        lambda: telemetry.query("SELECT {a:Array(String)}, {n:Nullable(Int8)}", {"a": ["x", "'"], "n": None}),
        lambda: telemetry.query("SELECT number FROM numbers(10)", limits=QueryLimits(result_rows=3)),
        lambda: telemetry.query("SELECT nothing"),
        lambda: telemetry.query("DROP TABLE otel_traces"),
        telemetry.schema,
        lambda: telemetry.ask(Latest()),
        lambda: telemetry.ask(ServiceHealthOf(window, 20.0)),
        lambda: telemetry.ask(CallEdges(window)),
        lambda: telemetry.ask(LogKinds(window, 20.0, ("front",))),
        lambda: telemetry.ask("latest"),
        lambda: investigation.clock.sleep(2.5),
        lambda: investigation.guidance.next({"detected": False}),
        lambda: investigation.transcript.add("note", {"text": "here", "at": datetime(2026, 1, 2)}),
        lambda: investigation.transcript.add("thought", {}),
    ]
    said = []
    for call in calls:
        try:
            answer = await call()
        except Exception as error:
            said.append(f"{type(error).__name__} {getattr(error, 'code', '')}: {error}".replace("0x", ""))
        else:
            columns = getattr(answer, "columns", None)
            said.append(
                repr(answer) if columns is None else f"{answer.names} {[list(one) for one in columns]}"
            )
    said.append(f"{investigation.clock.now()} {investigation.budget} {investigation.session_id}")
    said.append(f"{investigation.incident} {investigation.baseline} {investigation.reference}")
    return Diagnosis(detected=False, summary="\n".join(said))


def sync(investigation):
    """Block, as functions may."""
    print("printed")
    return asyncio.run(worst(investigation))


def snoop(investigation):
    """Return what code in this process can find of the test."""
    files = [name for frame in sys._current_frames().values() for name in _files(frame)]
    found = {
        "environment": dict(os.environ),
        "argv": sys.argv,
        "command line": Path("/proc/self/cmdline").read_text(),
        "open files": sorted(_target(entry) for entry in Path("/proc/self/fd").iterdir()),
        "objects": sorted({type(one).__name__ for one in gc.get_objects()} & FAMILIAR),
        "modules": sorted(
            name for name in sys.modules if name.partition(".")[0] in {"pytest", "_pytest", "tests"}
        ),
        "frames": sorted({name for name in files if "pytest" in Path(name).name}),
        "working directory": sorted(path.name for path in Path.cwd().iterdir()),
        "home": sorted(path.name for path in Path.home().iterdir()),
    }
    return Diagnosis(detected=False, summary=json.dumps(found))


def _files(frame):
    while frame is not None:
        yield frame.f_code.co_filename
        frame = frame.f_back


def _target(entry):
    try:
        return str(entry.readlink()).partition(":")[0]
    except OSError:
        return "gone"


def leave(investigation):
    """End the process as if all were well."""
    os._exit(0)


def crash(investigation):
    """Raise an error of one's own."""
    raise LookupError("no such \x1b[31mservice")


async def spend(investigation):
    """Ask more often than the budget allows."""
    for _ in range(5):
        await worst(investigation)


def hang(investigation):
    """Wait for ever, with children that have left the process group and ignore SIGTERM."""
    script = "trap '' TERM; while true; do sleep 1000; done"
    for new_session in (True, False):
        subprocess.Popen(
            ["sh", "-c", f"echo $$ >> {Path.cwd().parent}/started; {script}"], start_new_session=new_session
        )
    asyncio.run(investigation.telemetry.query("SELECT 'waits'"))
    while True:
        Path.cwd()


def grow(investigation):
    """Use more memory than is allowed."""
    return len(bytearray(5 << 30))


def fake(investigation):
    """Write the result oneself, wrongly."""
    Path("otel-diag-result.json").write_text('{"answer": 3, "kind": "no such kind"}')
    os._exit(0)


ACTS = (worst, everything, sync, snoop, leave, crash, spend, hang, grow, fake)
FIRST_SEED = 1000
"""Seed of the first act; smaller ones are the first act too."""


@dataclass
class Agent:
    """Does what the seed says."""

    async def diagnose(self, investigation):
        act = ACTS[max(0, investigation.seed - FIRST_SEED)]
        if asyncio.iscoroutinefunction(act):
            return await act(investigation)
        return await asyncio.to_thread(act, investigation)

    def describe(self):
        return {"acts": str(len(ACTS)), "pytest": str("pytest" in sys.modules)}

    async def close(self):
        print("closed")
