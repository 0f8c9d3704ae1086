"""``python -m benchmarks.telemetry --spans 1000000 [--json OUT]``: the embedded store on generated spans.

Prints ingest rate, the time of every named question, the built-in analyzer's whole diagnosis, and peak
memory. Times are wall seconds of one run on a warm store; ``cpu`` is the process's CPU seconds.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import multiprocessing
import resource
import sys
import tempfile
import time
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq

from benchmarks.spans import FAULT_AT_S, LENGTH_S, START_NS, chunks
from pytest_otel_diag import telemetry as questions
from pytest_otel_diag.model.session import Budget
from pytest_otel_diag.model.windows import Window, seconds_to_ns
from pytest_otel_diag.ports import Investigation
from pytest_otel_diag.telemetry import Store, StoreTelemetry

DATABASE = "benchmark"
BEFORE = Window(start_ns=START_NS, end_ns=START_NS + seconds_to_ns(FAULT_AT_S))
AFTER = Window(start_ns=BEFORE.end_ns, end_ns=START_NS + seconds_to_ns(LENGTH_S))
WHOLE = Window(start_ns=BEFORE.start_ns, end_ns=AFTER.end_ns)


class FixedClock:
    """A clock that stands at the end of the telemetry."""

    def now(self) -> int:
        """Return the end of the incident."""
        return AFTER.end_ns

    async def sleep(self, seconds: float) -> None:
        """Return at once."""
        await asyncio.sleep(0 * seconds)


def peak_mb() -> float:
    """Return the process's largest resident size so far, in megabytes (Linux counts kilobytes)."""
    unit = 1 if sys.platform == "darwin" else 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit / 1e6


def write_files(spans: int, folder: str) -> None:
    """Write the generated spans as Parquet files of 500,000 spans."""
    for number, table in enumerate(chunks(spans)):
        pq.write_table(table, Path(folder) / f"{number}.parquet")


def ingest(store: Store, spans: int, folder: Path) -> dict[str, float]:
    """Load generated spans; they are made in a process of their own, so that peak memory is the store's."""
    maker = multiprocessing.get_context("spawn").Process(target=write_files, args=(spans, str(folder)))
    maker.start()
    maker.join()
    started, cpu_started = time.perf_counter(), time.process_time()
    rows = sum(store.ingest_parquet(DATABASE, "otel_traces", path) for path in sorted(folder.iterdir()))
    seconds, cpu = time.perf_counter() - started, time.process_time() - cpu_started
    return {"spans": rows, "wall_s": seconds, "cpu_s": cpu, "spans_per_s": rows / seconds}


async def timed(ask: Callable[[], Awaitable[Any]]) -> dict[str, float]:
    """Return wall and CPU seconds of one question, and the peak memory after it."""
    started, cpu_started = time.perf_counter(), time.process_time()
    answer = await ask()
    return {
        "wall_s": time.perf_counter() - started,
        "cpu_s": time.process_time() - cpu_started,
        "rows": len(answer) if isinstance(answer, tuple) else 1,
        "peak_mb": peak_mb(),
    }


def named_questions(telemetry: StoreTelemetry) -> dict[str, Callable[[], Awaitable[Any]]]:
    """Return every question by name."""
    return {
        "latest": telemetry.latest,
        "service_health 5 s": lambda: telemetry.service_health(WHOLE, 5.0),
        "call_edges": lambda: telemetry.call_edges(WHOLE),
        "operation_changes": lambda: questions.operation_changes(telemetry, [BEFORE, AFTER]),
        "edge_changes": lambda: questions.edge_changes(telemetry, [BEFORE, AFTER]),
        "self_time_changes": lambda: questions.self_time_changes(telemetry, [BEFORE, AFTER]),
        "critical_operations": lambda: questions.critical_operations(telemetry, [BEFORE, AFTER]),
        "service_paths": lambda: questions.service_paths(telemetry, [BEFORE, AFTER]),
        "trace_paths 100": lambda: questions.trace_paths(telemetry, [AFTER]),
        "exemplars": lambda: questions.exemplars(telemetry, AFTER),
    }


async def whole_analysis(telemetry: StoreTelemetry) -> dict[str, Any]:
    """Time the built-in analyzer from investigation to diagnosis."""
    from pytest_otel_diag.analyzers.builtin import BuiltinAnalyzer  # noqa: PLC0415 - only when asked for

    investigation = Investigation(
        session_id="benchmark",
        incident=AFTER,
        baseline=BEFORE,
        reference=(),
        telemetry=telemetry,
        clock=FixedClock(),
        budget=Budget(),
    )
    found: list[str] = []

    async def diagnose() -> None:
        diagnosis = await BuiltinAnalyzer().diagnose(investigation)
        found.extend(cause.service for cause in diagnosis.root_causes[:3])

    return {**await timed(diagnose), "root_causes": found}


async def measure(store: Store, *, analysis: bool) -> dict[str, Any]:
    """Run all questions once to warm up and once to time them, then the whole analysis."""
    telemetry = store.telemetry(DATABASE, now=FixedClock().now, visible=[WHOLE])
    results: dict[str, Any] = {}
    for name, ask in named_questions(telemetry).items():
        await ask()
        results[name] = await timed(ask)
        _print(name, results[name])
    if analysis:
        results["whole analysis"] = await whole_analysis(telemetry)
        _print("whole analysis", results["whole analysis"])
    telemetry.close()
    return results


def _print(name: str, figures: dict[str, Any]) -> None:
    rest = f"  {figures['root_causes']}" if "root_causes" in figures else ""
    print(
        f"{name:<22}{figures['wall_s']:>9.2f} s {figures['cpu_s']:>9.2f} cpu-s "
        f"{figures['peak_mb']:>8.0f} MB peak{rest}",
        flush=True,
    )


def main() -> None:
    """Generate, load, measure, print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--spans", type=int, default=1_000_000)
    parser.add_argument("--json", type=Path, help="also write the figures to this file")
    parser.add_argument("--no-analysis", action="store_true", help="leave the built-in analyzer out")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder, Store.open("chdb://memory") as store:
        store.create_database(DATABASE)
        loaded = ingest(store, arguments.spans, Path(folder))
        rate, cpu = loaded["spans_per_s"], loaded["cpu_s"]
        print(f"{loaded['spans']:,.0f} spans, {rate:,.0f} spans/s ingest ({cpu:.1f} cpu-s)")
        print(f"{'after ingest':<22}{'':>28}{peak_mb():>8.0f} MB peak", flush=True)
        results = asyncio.run(measure(store, analysis=not arguments.no_analysis))
    if arguments.json:
        figures = {"ingest": loaded, "questions": results, "peak_mb": peak_mb()}
        arguments.json.write_text(json.dumps(figures, indent=2) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
