"""Brings the files of older releases to the current schema, one version at a time.

A model's current version is the default of its field ``schema_version``. Whoever changes a stored model in
a way that old files do not fit raises that version and adds the step from the one before here.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from pydantic import BaseModel

from pytest_otel_diag.model.session import SessionResult

Raw = dict[str, Any]
"""A document as JSON has it."""


def _session_from_1(raw: Raw) -> Raw:
    """Rename ``cleanup.mend`` to ``cleanup.recovery_command``."""
    cleanup = raw.get("cleanup")
    if isinstance(cleanup, dict) and "mend" in cleanup:
        renamed = {"recovery_command" if key == "mend" else key: value for key, value in cleanup.items()}
        raw = {**raw, "cleanup": renamed}
    return raw


_STEPS: Mapping[type[BaseModel], Mapping[int, Callable[[Raw], Raw]]] = {
    SessionResult: {1: _session_from_1},
}
"""Model → version → what makes the next version of a document of that version."""


def current_version(model: type[BaseModel]) -> int:
    """Return the schema version that this release writes for the model."""
    return int(model.model_fields["schema_version"].default)


def readable_versions(model: type[BaseModel]) -> tuple[int, ...]:
    """Return the schema versions that this release reads for the model, oldest first."""
    return (*sorted(_STEPS.get(model, {})), current_version(model))


def migrated(model: type[BaseModel], raw: Raw) -> Raw:
    """Return a document of any readable version in the current one."""
    for version in range(raw["schema_version"], current_version(model)):
        raw = {**_STEPS[model][version](raw), "schema_version": version + 1}
    return raw
