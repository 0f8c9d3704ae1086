"""The base of all models: frozen, closed, finite numbers only."""

from __future__ import annotations

from typing import Annotated, TypeAlias

from pydantic import BaseModel, ConfigDict, Field

Nanos: TypeAlias = int
"""Nanoseconds since the Unix epoch, UTC."""

Ratio: TypeAlias = Annotated[float, Field(ge=0.0, le=1.0, allow_inf_nan=False)]
"""A share between 0 and 1."""

Finite: TypeAlias = Annotated[float, Field(allow_inf_nan=False)]
"""A number that is neither infinite nor NaN."""


class Model(BaseModel):
    """Immutable value: unknown fields are refused, so a misspelt one cannot pass silently."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)
