"""The comparison of a diagnosis with the expectation, field by field."""

from __future__ import annotations

from collections.abc import Mapping

from pydantic import Field

from pytest_otel_diag.model.base import Finite, Model
from pytest_otel_diag.model.grounding import Grounding, PathCoverage


class Match(Model):
    """An expected finding, and the finding of the diagnosis that matched it (None: missed)."""

    expected: str
    found: str | None = None


class QueryVerdict(Model):
    """The diagnostic query, as the judge executed it.

    ``sample`` holds the first rows as text, one cell for each of ``columns``, long cells cut.
    """

    executed: bool
    rows: int = 0
    shows_culprit: bool = False
    elapsed_s: Finite = 0.0
    error: str | None = None
    columns: tuple[str, ...] = ()
    sample: tuple[tuple[str, ...], ...] = ()


class Verdict(Model):
    """How right a diagnosis is. Ranks count from 1; None means not named.

    ``fault_present`` False marks a control; ``detected`` is then a false positive. ``known_services`` are the
    services that the judge knew, ``candidates`` their number: what a guess chooses from. ``parts`` are names
    in the diagnosis that telemetry gives to parts of services (pods, instances, hosts), with the services.
    ``grounding`` is None where nothing was checked, ``path`` for scenarios without an investigation path.
    """

    fault_present: bool
    detected: bool
    anomalies: tuple[Match, ...] = ()
    spurious_anomalies: int = 0
    paths: tuple[Match, ...] = ()
    candidates: int = 0
    service_rank: int | None = None
    operation_rank: int | None = None
    mechanism_rank: int | None = None
    expected_mechanism: bool = False
    expected_operation: bool = False
    causes_expected: int = 0
    causes_named: int = 0
    named_flag: bool = False
    named_red_herring: str | None = None
    unknown_services: tuple[str, ...] = ()
    query: QueryVerdict | None = None
    first_hypothesis_right: bool | None = None
    confidence: Finite = 0.0
    data_sources: tuple[str, ...] = ()
    queries_total: int = 0
    queries_irrelevant: int = 0
    human_prompts: int = 0
    time_to_impact_s: Finite | None = None
    time_to_diagnosis_s: Finite | None = None
    known_services: tuple[str, ...] = ()
    parts: Mapping[str, tuple[str, ...]] = Field(default_factory=dict)
    grounding: Grounding | None = None
    path: PathCoverage | None = None

    @property
    def top1(self) -> bool:
        """Whether the first root cause names the right service."""
        return self.service_rank == 1

    @property
    def solved(self) -> bool:
        """Whether the answer is right: a fault detected and its cause ranked first, or a quiet control.

        Where the root cause is unknown, detecting the fault is enough.
        """
        if not self.fault_present:
            return not self.detected
        return self.detected and (self.top1 or self.causes_expected == 0)

    def within(self, k: int) -> bool:
        """Whether the right service is among the first *k* root causes."""
        return self.service_rank is not None and self.service_rank <= k
