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

    ``default_variant`` is empty where the flag has none. For a flag that is not ``enabled`` services use
    their own default.
    """

    key: str = Field(min_length=1)
    variants: Mapping[str, FlagValue]
    default_variant: str
    targeting: Mapping[str, Any] | None = None
    enabled: bool = True


class Evaluation(NamedTuple):
    """What an SDK returns to a service; ``variant`` is empty where the service uses its own default.

    ``reason`` is STATIC, TARGETING_MATCH, DEFAULT, DISABLED or ERROR, as OpenFeature names them.
    """

    value: FlagScalar
    variant: str = ""
    reason: str = "STATIC"


class FlagDocument(Model):
    """All flags of a source, with the exact bytes that restore them.

    ``unusable`` maps flags that the source has but that cannot be set to the reason.
    """

    raw: bytes
    flags: Mapping[str, Flag]
    unusable: Mapping[str, str] = Field(default_factory=dict)


class FlagChange(Model):
    """Set one flag to a variant, in such a way that ``context`` gets it where a rule decides the flag.

    Without a context (None) the first choice of the rule is set.
    """

    key: str
    variant: str
    context: Mapping[str, FlagValue] | None = None


class ServedFlag(Model):
    """What services get for a flag, as evaluated at ``at_ns``."""

    key: str
    variant: str
    value: FlagValue
    at_ns: Nanos
