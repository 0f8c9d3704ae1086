"""Validates scenarios: once, before anything of a session exists."""

from __future__ import annotations

from typing import NewType

from pytest_otel_diag.errors import ScenarioRejected
from pytest_otel_diag.model.scenario import Scenario, scenario_mistakes
from pytest_otel_diag.ports import Target

ValidScenario = NewType("ValidScenario", Scenario)
"""A scenario that its target accepted; only :func:`validated` makes one."""


def validated(scenario: Scenario, target: Target) -> ValidScenario:
    """Return the scenario as one that sessions of the target can run.

    Raises ScenarioRejected with every mistake. Names of flags and variants are checked in the preflight of
    the session, against the flags of the open target.
    """
    mistakes = (*scenario_mistakes(scenario), *target.validate(scenario))
    if mistakes:
        raise ScenarioRejected(dict.fromkeys(mistakes))
    return ValidScenario(scenario)
