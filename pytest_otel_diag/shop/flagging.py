"""How simulated services ask for feature flags."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Protocol

from pytest_otel_diag.model.flags import Evaluation, FlagScalar

__all__ = ["Evaluation", "FlagReader", "FlagScalar", "NoFlags"]


class FlagReader(Protocol):
    """What a provider offers to a service; never raises, as an SDK does not."""

    def evaluate(self, key: str, default: FlagScalar, context: Mapping[str, FlagScalar]) -> Evaluation:
        """Return the flag's answer in this context.

        An unknown flag, or one of another type, answers *default* with reason ERROR.
        """
        ...


class NoFlags:
    """A provider whose flag source is away: every answer is the caller's default."""

    def evaluate(self, key: str, default: FlagScalar, context: Mapping[str, FlagScalar]) -> Evaluation:  # noqa: ARG002 - the protocol
        """Return the default with reason ERROR."""
        return Evaluation(default, "", "ERROR")
