"""Finds which keys a model has at a place of its data, for messages about unknown ones."""

from __future__ import annotations

import types
from collections.abc import Sequence
from typing import Annotated, Any, Union, get_args, get_origin

from pytest_otel_diag.model.base import Model


def known_keys(model: type[Model], place: Sequence[str | int]) -> list[str]:
    """Return the keys of the mapping at *place*, a path as in pydantic's errors; empty if it has no model."""
    found = _model_at(model, place)
    fields = found.model_fields if found is not None else {}
    return [info.alias or name for name, info in fields.items()]


def _model_at(model: type[Model], place: Sequence[str | int]) -> type[Model] | None:
    """Return the model that describes the mapping at *place*."""
    current: Any = model
    for part in place:
        if isinstance(part, str):
            fields = {info.alias or name: info.annotation for name, info in current.model_fields.items()}
            current = _inner_model(fields.get(part))
        if current is None:
            return None
    return current if isinstance(current, type) else None


def _inner_model(annotation: Any) -> type[Model] | None:
    """Return the model inside optionals, annotations and tuples, or None."""
    if isinstance(annotation, type) and issubclass(annotation, Model):
        return annotation
    if get_origin(annotation) in (Annotated, Union, types.UnionType, tuple, dict):
        found = (_inner_model(argument) for argument in get_args(annotation))
        return next((model for model in found if model is not None), None)
    return None
