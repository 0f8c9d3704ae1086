"""One embedded store, a database a test, and the analyzer over it."""

from __future__ import annotations

import uuid
from collections.abc import Awaitable, Callable, Iterator, Sequence

import pytest

from pytest_otel_diag.analyzers.builtin import BuiltinAnalyzer
from pytest_otel_diag.model.diagnosis import Diagnosis
from pytest_otel_diag.model.windows import Window
from pytest_otel_diag.ports import Investigation, Telemetry
from pytest_otel_diag.telemetry import Store
from tests.analysis.worlds import BASELINE, INCIDENT, World

Diagnose = Callable[..., Awaitable[Diagnosis]]


class StillClock:
    """A clock that stands."""

    def now(self) -> int:
        return INCIDENT.end_ns

    async def sleep(self, seconds: float) -> None:
        return None


@pytest.fixture(scope="session")
def store() -> Iterator[Store]:
    with Store.open("chdb://memory") as opened:
        yield opened


@pytest.fixture
def database(store: Store) -> Iterator[str]:
    name = f"analysis_{uuid.uuid4().hex[:8]}"
    store.create_database(name)
    yield name
    store.drop_database(name)


@pytest.fixture
def telemetry(store: Store, database: str) -> Telemetry:
    return store.telemetry(database)


def investigation(
    telemetry: Telemetry,
    *,
    incident: Window = INCIDENT,
    baseline: Window | None = BASELINE,
    reference: Sequence[Window] = (),
) -> Investigation:
    return Investigation("s", incident, baseline, tuple(reference), telemetry, StillClock())


@pytest.fixture
def diagnose(store: Store, database: str, telemetry: Telemetry) -> Diagnose:
    """Load a world and diagnose it."""

    async def run(world: World, **windows: object) -> Diagnosis:
        world.load(store, database)
        asked = investigation(telemetry, **windows)  # type: ignore[arg-type]
        return await BuiltinAnalyzer().diagnose(asked)

    return run
