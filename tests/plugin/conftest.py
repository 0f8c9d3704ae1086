"""Real pytest runs over a tiny recording, with analyzers in the folder of the run."""

import importlib
import pkgutil
from collections.abc import Iterator
from pathlib import Path

import pytest
import yaml  # noqa: F401 - once for all runs inside of this process: pytester forgets half of it

import pytest_otel_diag
from pytest_otel_diag.targets.replay.recording_store import MEMORY_DSN, shared_store
from tests.support import tiny_shop
from tests.support.plugins import NO_HYPOTHESIS

ANALYZERS = '''
import asyncio
import os

from pytest_otel_diag.model.diagnosis import Diagnosis, DiagnosticQuery, RootCause

SLOWER = """
SELECT ServiceName AS service,
       avgIf(Duration, Timestamp >= fromUnixTimestamp64Nano({start:Int64})) AS after,
       avgIf(Duration, Timestamp < fromUnixTimestamp64Nano({start:Int64})) AS before
FROM otel_traces WHERE SpanKind = 'Server' GROUP BY service
"""


async def slower(investigation):
    """Names the service deepest in the calls that became slower."""
    found = await investigation.telemetry.query(SLOWER, {"start": investigation.incident.start_ns})
    slow = [row["service"] for row in found.dicts() if row["after"] > 1.5 * row["before"]]
    order = [name for name in ("back", "middle", "front") if name in slow]
    causes = tuple(RootCause(service=name, confidence=0.9) for name in order)
    query = DiagnosticQuery(sql="SELECT ServiceName, avg(Duration) FROM otel_traces GROUP BY ServiceName")
    return Diagnosis(detected=bool(slow), root_causes=causes, confidence=0.9, query=query)


async def front(investigation):
    """Always blames the entry."""
    return Diagnosis(detected=True, root_causes=(RootCause(service="front", confidence=1.0),))


def crash(investigation):
    raise LookupError("no idea")


def die(investigation):
    os._exit(3)


async def hang(investigation):
    await asyncio.sleep(3600)


async def other(investigation):
    return {"detected": "maybe"}
'''


@pytest.fixture(scope="session")
def recording(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The tiny shop's incidents."""
    return tiny_shop.write(tmp_path_factory.mktemp("recording") / "tiny")


@pytest.fixture(scope="session")
def cache(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A cache that all runs of a test process share."""
    return tmp_path_factory.mktemp("cache")


@pytest.fixture(scope="session")
def warm(cache: Path) -> Iterator[None]:
    """Import everything and open a store: runs inside this process then share both.

    pytester forgets modules that a run inside the process imported; some cannot be imported twice.
    """
    for name in (
        "allure_pytest",
        "chdb",
        "clickhouse_connect",
        "drain3",
        "numpy",
        "pyarrow.parquet",
        "pytest_html",
    ):
        importlib.import_module(name)
    for module in pkgutil.walk_packages(pytest_otel_diag.__path__, "pytest_otel_diag."):
        if not module.name.endswith("__main__") and ".suites." not in module.name:
            importlib.import_module(module.name)
    with shared_store((MEMORY_DSN,), cache):
        yield


@pytest.fixture
def diag(pytester: pytest.Pytester, recording: Path, cache: Path, warm: None):
    """Run pytest against the recording.

    It runs inside this process, which is several times faster. With workers, and with *own*, it runs in a
    separate process: for runs that are killed or interrupted, or that inspect the process itself.
    """
    pytester.makepyfile(my_analyzers=ANALYZERS)
    pytester.makeini("[pytest]\nasyncio_mode = auto\nasyncio_default_fixture_loop_scope = function\n")

    def run(
        *arguments: str, analyzer: str = "my_analyzers:slower", target: str | None = None, own: bool = False
    ) -> pytest.RunResult:
        target = f"replay:{recording}" if target is None else target
        chosen = [f"--otel-diag-target={target}"] if target else []
        options = (*chosen, f"--otel-diag-analyzer={analyzer}", f"--otel-diag-cache={cache}", *arguments)
        if own or "-n" in arguments:
            return pytester.runpytest_subprocess(*options, *NO_HYPOTHESIS)
        pytester.syspathinsert()
        return pytester.runpytest_inprocess(*options)

    return run
