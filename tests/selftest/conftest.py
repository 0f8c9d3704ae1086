"""One embedded store for all proofs."""

from collections.abc import Iterator

import pytest

from pytest_otel_diag.telemetry import Store
from tests.selftest.pond import PondTarget


@pytest.fixture(scope="session")
def store() -> Iterator[Store]:
    with Store.open("chdb://memory") as opened:
        yield opened


@pytest.fixture
def pond(store: Store) -> PondTarget:
    return PondTarget(store)
