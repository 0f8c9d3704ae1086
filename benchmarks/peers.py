"""``python -m benchmarks.peers RECORDING``: RCAEval's methods beside ours, on the same incidents.

BARO (FSE 2024) and TraceRCA (IWQoS 2021), as RCAEval ships them, get the same quiet and incident windows as
the built-in analyzer, one after the other on this machine. They live in an environment of their own,
``.venv/peers``, which is made when it is missing. Timed is the method alone for the peers (their data is in
memory already) and the whole diagnosis, queries included, for ours. BARO sees metrics, TraceRCA spans, ours
everything.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import subprocess
import sys
import tempfile
import time
import venv
from collections.abc import Sequence
from pathlib import Path
from statistics import mean, median
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from pytest_otel_diag.analyzers.builtin import BuiltinAnalyzer
from pytest_otel_diag.config.settings import Settings
from pytest_otel_diag.model.session import Budget
from pytest_otel_diag.model.windows import Window
from pytest_otel_diag.ports import Investigation
from pytest_otel_diag.recordings.format.reader import Recording
from pytest_otel_diag.secret import SecretText
from pytest_otel_diag.targets.replay.target import ReplayTarget
from pytest_otel_diag.targets.replay.timeline import replay_of_incident, scenario_of

PEERS = "rcaeval==1.8.1"
PEERS_NEED = ("pandas", "pyarrow", "scikit-learn", "tqdm", "python-dateutil")
WORKER = Path(__file__).with_name("peer_worker.py")
Line = dict[str, Any]


async def ours(target: ReplayTarget, recording: Recording, limit: int) -> tuple[list[Line], list[Line]]:
    """Diagnose the incidents; return our lines and, for the peers, the windows that were used."""
    lines, tasks = [], []
    for incident in recording.manifest.incidents[:limit]:
        replay = replay_of_incident(recording, incident)
        scenario = scenario_of(replay)
        own = replay.session(scenario.timing)
        window = Window(start_ns=replay.start_ns, end_ns=own.end_ns)
        before = Window(start_ns=own.start_ns, end_ns=replay.onset_ns)
        async with target.open(scenario, "benchmark") as session:
            await session.clock.sleep((own.end_ns - session.clock.now()) / 1e9)
            health = await session.telemetry.service_health(before, max(before.duration_s, 1.0))
            investigation = Investigation(
                session_id="benchmark",
                incident=window,
                baseline=before if health else None,
                reference=session.reference,
                telemetry=session.telemetry,
                clock=session.clock,
                budget=Budget(),
            )
            started = time.perf_counter()
            diagnosis = await BuiltinAnalyzer().diagnose(investigation)
            seconds = time.perf_counter() - started
        quiet = [*([before] if health else []), *session.reference]
        lines.append(
            {"id": scenario.id, "method": "ours", "seconds": seconds}
            | {"ranks": [cause.service for cause in diagnosis.root_causes]}
        )
        tasks.append(
            {"id": scenario.id, "incident": [window.start_ns, window.end_ns]}
            | {"quiet": [[w.start_ns, w.end_ns] for w in quiet]}
        )
    return lines, tasks


def write_spans(files: Sequence[Path], path: Path) -> None:
    """Write spans in RCAEval's columns, times in microseconds."""
    wanted = ["Timestamp", "ServiceName", "SpanName", "Duration"]
    table = pa.concat_tables([pq.read_table(file, columns=wanted) for file in files])
    pq.write_table(
        pa.table(
            {
                "start_ns": pc.cast(table["Timestamp"], pa.int64()),
                "serviceName": table["ServiceName"],
                "methodName": table["SpanName"],
                "operationName": table["SpanName"],
                "duration": pc.divide(pc.cast(table["Duration"], pa.int64()), 1000),
            }
        ),
        path,
    )


def write_metrics(files: Sequence[Path], path: Path) -> None:
    """Write one row a point in time and one column a service and metric (mean over its pods)."""
    wanted = ["TimeUnix", "ServiceName", "MetricName", "Value"]
    table = pa.concat_tables([pq.read_table(file, columns=wanted) for file in files])
    times = pc.cast(table["TimeUnix"], pa.int64()).to_numpy()
    names = pc.binary_join_element_wise(table["ServiceName"], table["MetricName"], "_")
    columns, column_of = np.unique(names.to_numpy(zero_copy_only=False).astype(str), return_inverse=True)
    instants, row_of = np.unique(times, return_inverse=True)
    flat = row_of * len(columns) + column_of
    counts = np.bincount(flat, minlength=len(instants) * len(columns))
    sums = np.bincount(flat, weights=table["Value"].to_numpy(), minlength=len(counts))
    with np.errstate(invalid="ignore"):
        means = (sums / counts).reshape(len(instants), len(columns))
    data = {"time": instants} | {name: means[:, index] for index, name in enumerate(columns)}
    pq.write_table(pa.table(data), path)


def environment(folder: Path) -> str:
    """Return the interpreter of the peers' environment, which is made when it is missing.

    RCAEval comes without its dependencies, which pin old versions for methods that are not run here.
    """
    python = folder / ("Scripts" if sys.platform == "win32" else "bin") / "python"
    if not (folder / "ready").exists():
        venv.create(folder, with_pip=True, clear=True)
        install = [str(python), "-m", "pip", "install", "--quiet"]
        subprocess.run([*install, "--no-deps", PEERS], check=True)
        subprocess.run([*install, *PEERS_NEED], check=True)
        (folder / "ready").touch()
    return str(python)


def peers(python: str, recording: Recording, tasks: list[Line]) -> list[Line]:
    """Run the worker in its environment and return its lines."""
    by_table: dict[str, list[Path]] = {}
    for file in recording.manifest.files:
        by_table.setdefault(file.table, []).append(recording.path(file))
    with tempfile.TemporaryDirectory() as folder:
        spans, metrics, job = (
            Path(folder) / name for name in ("spans.parquet", "metrics.parquet", "job.json")
        )
        write_spans(by_table["otel_traces"], spans)
        write_metrics(by_table["otel_metrics_gauge"], metrics)
        job.write_text(
            json.dumps({"spans": str(spans), "metrics": str(metrics), "tasks": tasks}), encoding="utf-8"
        )
        done = subprocess.run([python, str(WORKER), str(job)], capture_output=True, text=True, check=False)
    if done.returncode:
        raise SystemExit(f"{python} cannot run the peers:\n{done.stderr[-2000:]}")
    return [json.loads(line) for line in done.stdout.splitlines()]


def summary(lines: list[Line], truth: dict[str, set[str]]) -> str:
    """Return one row a method: incidents, failures, seconds, share of right first answers."""
    rows = [f"{'method':<10}{'n':>4}{'failed':>8}{'median s':>10}{'mean s':>9}{'top-1':>8}{'top-3':>8}"]
    for name in dict.fromkeys(line["method"] for line in lines):
        own = [line for line in lines if line["method"] == name]
        ran = [line for line in own if "error" not in line]
        right = [sum(bool(truth[r["id"]] & set(r["ranks"][:k])) for r in ran) / len(own) for k in (1, 3)]
        seconds = [r["seconds"] for r in ran] or [float("nan")]
        rows.append(
            f"{name:<10}{len(own):>4}{len(own) - len(ran):>8}{median(seconds):>10.3f}{mean(seconds):>9.3f}"
            f"{right[0]:>8.2f}{right[1]:>8.2f}"
        )
    return "\n".join(rows)


def main() -> None:
    """Time everything on one recording, print the summary and every failure."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("recording", help="a recording, or a folder that can be imported as one")
    parser.add_argument("--python", help="interpreter of an environment that has RCAEval (default: make one)")
    parser.add_argument("--incidents", type=int, default=10_000, help="only the first N incidents")
    parser.add_argument("--json", type=Path, help="also write every line to this file")
    arguments = parser.parse_args()
    every: dict[str, list[Line]] = {}
    python = arguments.python or environment(Path(".venv", "peers"))
    with tempfile.TemporaryDirectory() as cache:
        settings = Settings(store=SecretText("chdb://memory"), cache=cache)
        target = ReplayTarget.from_settings(arguments.recording, settings=settings, worker="")
        target.load()
        for recording in target.recordings:
            mine, tasks = asyncio.run(ours(target, recording, arguments.incidents))
            lines = mine + peers(python, recording, tasks)
            truth = {
                incident.id: {cause.service for cause in incident.expectation.root_causes}
                for incident in recording.manifest.incidents
            }
            print(f"{recording.manifest.id}\n{summary(lines, truth)}", flush=True)
            for line in lines:
                if "error" in line:
                    print(f"{line['method']} failed on {line['id']}: {line['error']}")
            every[recording.manifest.id] = lines
        target.close()
    if arguments.json:
        arguments.json.write_text(json.dumps(every, indent=2) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
