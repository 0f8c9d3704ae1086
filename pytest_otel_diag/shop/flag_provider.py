"""The flag provider that simulated services evaluate their feature flags with."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Protocol

from pytest_otel_diag.model.flags import Evaluation, FlagScalar

__all__ = ["Evaluation", "FlagProvider", "FlagScalar", "NoFlags"]


class FlagProvider(Protocol):
    """Evaluates flags as an OpenFeature provider does; it never raises."""

    def evaluate(self, key: str, default: FlagScalar, context: Mapping[str, FlagScalar]) -> Evaluation:
        """Evaluate a flag in this context.

        Returns *default* with reason ERROR for an unknown flag and for a flag of another type.
        """
        ...


class NoFlags:
    """A provider without a flag source: every evaluation returns the default with reason ERROR."""

    def evaluate(self, key: str, default: FlagScalar, context: Mapping[str, FlagScalar]) -> Evaluation:  # noqa: ARG002 - the protocol
        """Return *default* with reason ERROR."""
        return Evaluation(default, "", "ERROR")
