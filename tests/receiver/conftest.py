"""Receivers over one embedded store in memory."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack
from typing import Any

import pytest

from pytest_otel_diag.receiver import Receiver
from pytest_otel_diag.telemetry import Store

Start = Callable[..., Receiver]


@pytest.fixture(scope="session")
def store() -> Iterator[Store]:
    with Store.open("chdb://memory") as opened:
        yield opened


@pytest.fixture
def database(store: Store, request: pytest.FixtureRequest) -> Iterator[str]:
    name = f"rx {request.node.name}"
    store.create_database(name)
    yield name
    store.drop_database(name)


@pytest.fixture
def start(store: Store, database: str) -> Iterator[Start]:
    """Starts receivers on free ports; ``into`` replaces the store."""
    with ExitStack() as running:

        def begin(*, into: Any = None, **options: Any) -> Receiver:
            options = {"http": "127.0.0.1:0", "grpc": None, **options}
            return running.enter_context(Receiver(into or store, database, **options))

        yield begin
