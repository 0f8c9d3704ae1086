"""One embedded store for all proofs."""

from collections.abc import Iterator

import pytest

from pytest_otel_diag.telemetry import Store
from tests.selftest.small_system import SmallSystemTarget


@pytest.fixture(scope="session")
def store() -> Iterator[Store]:
    with Store.open("chdb://memory") as opened:
        yield opened


@pytest.fixture
def small_system(store: Store) -> SmallSystemTarget:
    return SmallSystemTarget(store)
