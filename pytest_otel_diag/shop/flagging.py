"""How simulated services ask for feature flags."""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple, Protocol, TypeAlias

FlagScalar: TypeAlias = str | bool | int | float


class Evaluation(NamedTuple):
    """An answer of a flag provider.

    ``variant`` is empty where the default of the caller was used; ``reason`` is one of OpenFeature's
    (STATIC, TARGETING_MATCH, SPLIT, DEFAULT, CACHED, DISABLED, ERROR).
    """

    value: FlagScalar
    variant: str = ""
    reason: str = "STATIC"


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
