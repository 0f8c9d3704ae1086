"""Small telemetry, a model behind real HTTP, and an investigation whose transcript is kept."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Mapping
from typing import Any

import pytest

from pytest_otel_diag.analyzers.investigator.loop.investigator import Investigator, InvestigatorSettings
from pytest_otel_diag.analyzers.investigator.loop.limits import Limits
from pytest_otel_diag.analyzers.investigator.model_options import ModelOptions, Price
from pytest_otel_diag.analyzers.investigator.openai_http import OpenAiModel
from pytest_otel_diag.analyzers.investigator.retries import RetryPolicy
from pytest_otel_diag.model.diagnosis import Diagnosis
from pytest_otel_diag.model.session import Budget
from pytest_otel_diag.ports import Guidance, NoGuidance
from pytest_otel_diag.telemetry import Store
from pytest_otel_diag.telemetry.session import StoreTelemetry
from pytest_otel_diag.testing.analyzer_contract import incident_traces
from tests.support.deadlines import deadline_s
from tests.support.investigations import investigation_over
from tests.support.scripted_model import Policy, ScriptedModel, Served, served

QUICK = RetryPolicy(attempts=4, first_wait_s=0.001, longest_wait_s=5.0)
PRICE = Price(1.0, 4.0)


@pytest.fixture
def quick() -> RetryPolicy:
    """Retries whose waits take no time."""
    return QUICK


@pytest.fixture(scope="session")
def telemetry() -> Iterator[StoreTelemetry]:
    with Store.open("chdb://memory") as store:
        store.create_database("investigator")
        store.ingest_arrow("investigator", "otel_traces", incident_traces())
        yield store.telemetry("investigator")


class Kept:
    """A transcript in memory."""

    def __init__(self) -> None:
        self.entries: list[tuple[str, Mapping[str, Any]]] = []

    async def add(self, kind: str, content: Mapping[str, Any]) -> None:
        self.entries.append((kind, content))

    def of(self, kind: str) -> list[Mapping[str, Any]]:
        return [content for each, content in self.entries if each == kind]

    def notes(self) -> str:
        return "\n".join(content["text"] for content in self.of("note"))


@dataclasses.dataclass
class Bench:
    """Runs an investigator against a scripted model."""

    telemetry: StoreTelemetry
    transcript: Kept = dataclasses.field(default_factory=Kept)
    guidance: Guidance = dataclasses.field(default_factory=NoGuidance)
    server: Served | None = None
    investigation: Any = None

    def prepare(self, budget: Budget | None = None) -> None:
        self.investigation = dataclasses.replace(
            investigation_over(self.telemetry, budget=budget or Budget(time_s=deadline_s(60))),
            transcript=self.transcript,
            guidance=self.guidance,
        )

    async def diagnose(
        self,
        model: Policy | ScriptedModel,
        *,
        budget: Budget | None = None,
        limits: Limits | None = None,
        monotonic: Any = None,
        **options: Any,
    ) -> Diagnosis:
        self.prepare(budget)
        chosen = ModelOptions(**{"price": PRICE, "max_output_tokens": 1000, **options})
        settings = InvestigatorSettings(options=chosen, limits=limits or Limits(), policy=QUICK)
        clock = {} if monotonic is None else {"monotonic": monotonic}
        with served(model) as self.server:
            analyzer = Investigator(OpenAiModel("tiny", self.server.url, options=chosen), settings, **clock)
            return await analyzer.diagnose(self.investigation)

    @property
    def requests(self) -> list[dict[str, Any]]:
        assert self.server is not None
        return self.server.model.requests

    @property
    def queries(self) -> tuple[Any, ...]:
        """The queries that the session has counted."""
        return self.investigation.telemetry.records


@pytest.fixture
def bench(telemetry: StoreTelemetry) -> Bench:
    return Bench(telemetry)
