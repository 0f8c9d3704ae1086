"""Whether telemetry confirms what a diagnosis cites."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from pytest_otel_diag.model.base import Model, Ratio

ClaimKind = Literal["trace", "span", "service", "operation", "figure", "query"]
Outcome = Literal["confirmed", "refuted", "unchecked"]


class Claim(Model):
    """Something that the diagnosis says, and what telemetry says of it.

    ``place`` is the field of the diagnosis, such as ``root_causes.0.evidence.1``. ``cited`` is the claim in
    words, ``found`` what telemetry has instead of a refuted claim, or why the claim could not be checked.
    """

    kind: ClaimKind
    place: str
    cited: str
    outcome: Outcome
    found: str = ""


class Grounding(Model):
    """How much of what a diagnosis cites is real.

    ``confirmed``, ``refuted`` and ``unchecked`` count the claims of the evidence: traces, spans, figures,
    what its query returns, and the services and operations that evidence names. ``entities`` are the services
    and operations named anywhere in the diagnosis, ``entities_known`` those that telemetry has. ``claims``
    holds the refuted claims, then those not checked, of a limited number. ``left_out`` counts what the
    diagnosis cites beyond the number of claims that are checked.
    """

    confirmed: int = Field(default=0, ge=0)
    refuted: int = Field(default=0, ge=0)
    unchecked: int = Field(default=0, ge=0)
    left_out: int = Field(default=0, ge=0)
    entities: int = Field(default=0, ge=0)
    entities_known: int = Field(default=0, ge=0)
    claims: tuple[Claim, ...] = ()

    @property
    def cites_nothing(self) -> bool:
        """Whether the diagnosis cites nothing that could be checked."""
        return not (self.confirmed or self.refuted or self.unchecked or self.left_out)

    @property
    def grounded(self) -> bool:
        """Whether telemetry confirms something that is cited, and refutes nothing."""
        return self.confirmed > 0 and not self.refuted

    @property
    def share(self) -> Ratio | None:
        """The share of confirmed claims among those that telemetry confirms or refutes, None without any."""
        checked = self.confirmed + self.refuted
        return self.confirmed / checked if checked else None

    @property
    def described(self) -> str:
        """How many claims telemetry confirms, refutes and leaves open, in words."""
        if self.cites_nothing:
            return "cites nothing that could be checked"
        left_out = f", {self.left_out} left out" if self.left_out else ""
        return f"{self.confirmed} confirmed, {self.refuted} refuted, {self.unchecked} open{left_out}"


class PathCoverage(Model):
    """How an analyzer's queries followed the investigation path of the scenario.

    ``covered`` of the ``steps`` have a query that read the step's signal about one of its services;
    ``in_order`` is the length of the longest subsequence of the steps that the queries cover in order.
    """

    steps: int = Field(gt=0)
    covered: int = Field(ge=0)
    in_order: int = Field(ge=0)
