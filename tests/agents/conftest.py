"""Small telemetry behind the gateway, and an investigation whose transcript is kept."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Mapping
from typing import Any

import pytest

from pytest_otel_diag.ports import Investigation
from pytest_otel_diag.telemetry import Store
from pytest_otel_diag.telemetry.session import StoreTelemetry
from pytest_otel_diag.testing.analyzer_contract import incident_traces
from tests.support.investigations import investigation_over


@pytest.fixture(scope="session")
def telemetry() -> Iterator[StoreTelemetry]:
    with Store.open("chdb://memory") as store:
        store.create_database("agents")
        store.ingest_arrow("agents", "otel_traces", incident_traces())
        yield store.telemetry("agents")


class Kept:
    """A transcript in memory."""

    def __init__(self) -> None:
        self.entries: list[tuple[str, Mapping[str, Any]]] = []

    async def add(self, kind: str, content: Mapping[str, Any]) -> None:
        self.entries.append((kind, content))

    def of(self, kind: str) -> str:
        return "\n".join(content.get("text", "") for each, content in self.entries if each == kind)


@pytest.fixture
def transcript() -> Kept:
    return Kept()


@pytest.fixture
def investigation(telemetry: StoreTelemetry, transcript: Kept) -> Investigation:
    return dataclasses.replace(investigation_over(telemetry), transcript=transcript)
