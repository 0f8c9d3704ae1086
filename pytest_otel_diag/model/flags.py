"""Feature flags as flagd knows them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple

from pydantic import Field

from pytest_otel_diag.model.base import Model, Nanos

FlagScalar = bool | int | float | str
FlagValue = FlagScalar | dict[str, Any]


class Flag(Model):
    """A flag: variants (name → value), the default variant, and targeting where there is one.

    ``default_variant`` is empty where the flag has none. A flag that is not ``enabled`` answers what the
    caller brings as its default.
    """

    key: str = Field(min_length=1)
    variants: Mapping[str, FlagValue]
    default_variant: str
    targeting: Mapping[str, Any] | None = None
    enabled: bool = True


class Evaluation(NamedTuple):
    """What an SDK answers a service: ``variant`` is empty where the caller's own default is used.

    ``reason`` is STATIC, TARGETING_MATCH, DEFAULT, DISABLED or ERROR, as OpenFeature names them.
    """

    value: FlagScalar
    variant: str = ""
    reason: str = "STATIC"


class FlagDocument(Model):
    """Everything a flag source holds, exactly, so that it can be put back byte for byte."""

    raw: bytes
    flags: Mapping[str, Flag]


class FlagChange(Model):
    """Set one flag to a variant."""

    key: str
    variant: str


class ServedFlag(Model):
    """What the flag answers when it is really evaluated."""

    key: str
    variant: str
    value: FlagValue
    at_ns: Nanos
