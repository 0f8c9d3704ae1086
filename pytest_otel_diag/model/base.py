"""The base of all models: frozen, closed, finite numbers only."""

from __future__ import annotations

import json
from typing import Annotated, TypeAlias, TypeVar

from pydantic import BaseModel, ConfigDict, Field
from pydantic_core import PydanticSerializationError

from pytest_otel_diag.secret import cleaned

T = TypeVar("T", bound=BaseModel)

Nanos: TypeAlias = int
"""Nanoseconds since the Unix epoch, UTC."""

Ratio: TypeAlias = Annotated[float, Field(ge=0.0, le=1.0, allow_inf_nan=False)]
"""A share between 0 and 1."""

Finite: TypeAlias = Annotated[float, Field(allow_inf_nan=False)]
"""A number that is neither infinite nor NaN."""


class Model(BaseModel):
    """Immutable value: unknown fields are refused, so a misspelt one cannot pass silently."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)


def to_json(value: BaseModel) -> str:
    """Return one line of JSON, without credentials that an option of this process holds.

    Lone surrogates (broken text in telemetry) are kept as escapes. Read it back with
    ``Model.model_validate(json.loads(text))``: pydantic's own JSON parser refuses such escapes.
    """
    return cleaned(_json(value))


def without_credentials(value: T) -> T:
    """Return the value without credentials that an option of this process holds, in any of its texts."""
    text = _json(value)
    shown = cleaned(text)
    return value if shown == text else type(value).model_validate(json.loads(shown))


def _json(value: BaseModel) -> str:
    try:
        return value.model_dump_json()
    except PydanticSerializationError:
        return json.dumps(value.model_dump(mode="python"))
