"""``python -m benchmarks.shop [--seconds 600] [--users 5 25 100] [--profile] [--sessions N]``.

Tells how fast the shop runs.

For each number of users, one simulation of so many virtual seconds: events, spans and virtual seconds per
CPU second of this process, without the store and with it (telemetry taken every 20 virtual seconds, turned
into Arrow tables and written to the embedded engine every 120). One browser user runs beside the others.
``--profile`` prints where the time goes, without the store. ``--sessions 20`` runs whole sessions instead, of
one fault with the seeds 0, 1, ... in two processes, after one more in this process by itself.
"""

from __future__ import annotations

import argparse
import asyncio
import cProfile
import multiprocessing
import pstats
import sys
import time
import uuid
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass

import pyarrow as pa

from pytest_otel_diag import catalog
from pytest_otel_diag.config.settings import Settings
from pytest_otel_diag.flags.document import FlagdDocument
from pytest_otel_diag.model.scenario import Fault
from pytest_otel_diag.model.windows import seconds_to_ns
from pytest_otel_diag.runs.runner import Runner
from pytest_otel_diag.shop.emission import rows
from pytest_otel_diag.shop.records import Batch
from pytest_otel_diag.shop.simulation import Shop, Variation
from pytest_otel_diag.telemetry import Layout, Store

START_NS = 1_772_438_400_000_000_000
STEP_S = 20.0
WRITE_EVERY = 6
FAULT = Fault(flag="paymentFailure", variant="50%")
WORKERS = 2


@dataclass(frozen=True)
class Measured:
    """One run: counts, and CPU and wall seconds."""

    users: int
    stored: bool
    virtual_s: float
    cpu_s: float
    wall_s: float
    spans: int
    records: int
    events: int

    def line(self) -> str:
        """Return the run as a line of the table."""
        where = "with store" if self.stored else "model only"
        return (
            f"{self.users:>6}  {where}  {self.virtual_s / self.cpu_s:>9,.0f}"
            f"  {self.virtual_s / self.wall_s:>9,.0f}"
            f"  {self.events / self.cpu_s:>10,.0f}  {self.spans / self.cpu_s:>9,.0f}"
            f"  {self.records / self.cpu_s:>10,.0f}  {self.spans / self.virtual_s:>8.1f}"
        )


def _shop(users: int) -> Shop:
    document = FlagdDocument(catalog.demo_document())
    return Shop(Variation(users=users, browser_users=1, seed=1), document, START_NS)


def measure(users: int, seconds: float, store: Store | None) -> Measured:
    """Run a shop for *seconds* of virtual time and return what that cost."""
    shop = _shop(users)
    database = f"bench_{uuid.uuid4().hex[:8]}"
    if store is not None:
        store.create_database(database, layout=Layout(in_memory=True))
    records = 0
    waiting: list[Batch] = []
    cpu, wall = time.process_time(), time.perf_counter()
    for step in range(1, round(seconds / STEP_S) + 1):
        shop.advance(START_NS + seconds_to_ns(step * STEP_S))
        batch = shop.take(shop.now_ns)
        records += len(batch.spans) + len(batch.logs) + len(batch.metrics)
        if store is not None:
            waiting.append(batch)
            if step % WRITE_EVERY == 0 or step * STEP_S >= seconds:
                _write(store, database, waiting)
                waiting = []
    cpu, wall = time.process_time() - cpu, time.perf_counter() - wall
    if store is not None:
        store.drop_database(database)
    counters = shop.counters
    return Measured(
        users, store is not None, seconds, cpu, wall, counters.spans, records, shop.world.events
    )  # fmt: skip


def _write(store: Store, database: str, batches: list[Batch]) -> None:
    whole = Batch()
    for batch in batches:
        whole.spans += batch.spans
        whole.logs += batch.logs
        whole.metrics += batch.metrics
    for name, table in rows.tables(whole).items():
        store.ingest_arrow(database, name, table)


def profile(users: int, seconds: float) -> None:
    """Print the functions that take most time of the model alone."""
    shop = _shop(users)
    profiler = cProfile.Profile()
    profiler.enable()
    shop.advance(START_NS + seconds_to_ns(seconds))
    profiler.disable()
    pstats.Stats(profiler).sort_stats("tottime").print_stats(20)


def session(seed: int) -> tuple[float, float]:
    """Run one whole session with 5 users and 1 browser user; return its CPU and wall seconds."""
    settings = Settings(target="shop:users=5,browser_users=1", seed=seed)
    runner = Runner(settings)
    known = runner.target.scenario_for([FAULT])
    assert known is not None
    usual = known.environment.model_copy(update={"users": None, "browser_users": None})
    prepared = runner.prepare(known.model_copy(update={"environment": usual}))
    runner.analyzer(settings.analyzer.reveal())
    cpu, wall = time.process_time(), time.perf_counter()
    asyncio.run(runner.run(prepared))
    return time.process_time() - cpu, time.perf_counter() - wall


def sessions(count: int) -> None:
    """Print what a warm session costs, and so many of them in two processes."""
    session(0)
    cpu, wall = session(1)
    print(f"one session: {cpu:.1f} s CPU, {wall:.1f} s wall")
    started = time.perf_counter()
    with ProcessPoolExecutor(WORKERS, mp_context=multiprocessing.get_context("spawn")) as pool:
        cpus = [cpu for cpu, _ in pool.map(session, range(count))]
    wall = time.perf_counter() - started
    print(f"{count} sessions, {WORKERS} processes: {sum(cpus):.0f} s CPU, {wall:.0f} s wall, start included")


def main() -> int:
    """Run and print."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--seconds", type=float, default=600.0)
    parser.add_argument("--users", type=int, nargs="+", default=[5, 25, 100])
    parser.add_argument("--profile", action="store_true")
    parser.add_argument("--sessions", type=int, default=0)
    options = parser.parse_args()
    if options.sessions:
        sessions(options.sessions)
        return 0
    if options.profile:
        profile(options.users[0], options.seconds)
        return 0
    measure(1, 40.0, None)  # modules, tables of random numbers, the flag evaluator
    print(f"Python {sys.version.split()[0]}, pyarrow {pa.__version__}, {options.seconds:g} virtual seconds")
    print(" users  what          x (cpu)   x (wall)    events/s    spans/s   records/s  spans/virtual s")
    with Store.open() as store:
        measure(1, 40.0, store)
        for users in options.users:
            print(measure(users, options.seconds, None).line(), flush=True)
            print(measure(users, options.seconds, store).line(), flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
