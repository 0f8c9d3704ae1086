"""The format of ``*.scenario.yaml``, version 1, as models from which the JSON schema is generated.

A document contains one scenario, or several under ``scenarios:`` with shared values under ``defaults:``. The
catalog completes a scenario's expectation. Short forms (``- detected``, ``not_blamed: payment``) are expanded
before validation.
"""

from __future__ import annotations

import math
from typing import Annotated, Any, Literal, Self

from pydantic import BeforeValidator, Field, GetJsonSchemaHandler, TypeAdapter, model_validator
from pydantic.json_schema import JsonSchemaValue
from pydantic_core import CoreSchema

from pytest_otel_diag.model.base import Model
from pytest_otel_diag.model.diagnosis import Direction, Mechanism, Signal
from pytest_otel_diag.model.scenario import (
    Disturbance,
    Environment,
    ExpectedAnomaly,
    ExpectedRootCause,
    Fault,
    InvestigationStep,
    Timing,
)

VERSION = 1

MOST_RUNS = 500
"""Most runs of one scenario by its matrix; more is likely a mistake."""

NAME = r"^[A-Za-z0-9][A-Za-z0-9_.-]*$"
"""Pattern of ids, tags and marks, which become names of tests and markers."""

Name = Annotated[str, Field(pattern=NAME)]
Service = Annotated[str, Field(min_length=1)]


class AnomalyCheck(Model):
    """An anomaly of the service was found; omitted fields match anything."""

    service: Service
    signal: Signal | None = None
    operation: str | None = None
    direction: Direction | None = None


class RootCauseCheck(Model):
    """The service (operation, mechanism) is among the first ``top`` named as root cause."""

    service: Service
    operation: str | None = None
    mechanism: Mechanism | None = None
    top: int = Field(default=1, ge=1)


class NotBlamedCheck(Model):
    """The service is not among the first ``top`` named as root cause."""

    service: Service
    top: int = Field(default=1, ge=1)


def _service_alone(value: Any) -> Any:
    return {"service": value} if isinstance(value, str) else value


class _OrShort:
    """Adds a short form to the JSON schema."""

    def __init__(self, **short: Any) -> None:
        self._short = short

    def __get_pydantic_json_schema__(
        self, core_schema: CoreSchema, handler: GetJsonSchemaHandler
    ) -> JsonSchemaValue:
        return {"anyOf": [self._short, handler(core_schema)]}


_NAMED = _OrShort(type="string", minLength=1)


class Check(Model):
    """One assertion: exactly one of the fields.

    The fields are the assertions of a diagnosed session without ``assert_``.
    """

    detected: Literal[True] | None = None
    healthy: Literal[True] | None = None
    expected: Literal[True] | None = None
    grounded: Literal[True] | None = None
    anomaly: AnomalyCheck | None = None
    path: Annotated[tuple[Service, ...], Field(min_length=1)] | None = None
    root_cause: Annotated[RootCauseCheck, BeforeValidator(_service_alone), _NAMED] | None = None
    not_blamed: Annotated[NotBlamedCheck, BeforeValidator(_service_alone), _NAMED] | None = None
    query_shows: Annotated[str, Field(min_length=1)] | None = None

    @model_validator(mode="after")
    def _exactly_one(self) -> Self:
        if len(self.model_fields_set) != 1:
            given = ", ".join(sorted(self.model_fields_set)) or "nothing"
            raise ValueError(
                f"an assertion has exactly one name, this one has {given}; write one list entry per assertion"
            )
        return self

    @property
    def name(self) -> str:
        """The assertion's name."""
        return next(iter(self.model_fields_set))

    def __str__(self) -> str:
        value = getattr(self, self.name)
        if value is True:
            return self.name
        if isinstance(value, Model):
            parts = value.model_dump(mode="json", exclude_defaults=True)
            return f"{self.name}: {', '.join(f'{key}={part}' for key, part in parts.items())}"
        return f"{self.name}: {value if isinstance(value, str) else ' → '.join(value)}"


_BARE = ("detected", "healthy", "expected", "grounded")


def _bare(value: Any) -> Any:
    return {value: True} if isinstance(value, str) else value


Assertion = Annotated[Check, BeforeValidator(_bare), _OrShort(enum=list(_BARE))]


class Expect(Model):
    """The right answer; each field that is given replaces the catalog's."""

    healthy: bool | None = None
    anomalies: tuple[ExpectedAnomaly, ...] | None = None
    paths: tuple[Annotated[tuple[Service, ...], Field(min_length=1)], ...] | None = None
    root_causes: tuple[ExpectedRootCause, ...] | None = None
    red_herrings: tuple[Service, ...] | None = None


class Matrix(Model):
    """Runs the scenario once for every combination of these values.

    ``flag`` and ``variant`` change the scenario's only fault, the others its environment.
    """

    flag: tuple[str, ...] | None = Field(default=None, min_length=1)
    variant: tuple[str, ...] | None = Field(default=None, min_length=1)
    demo: tuple[str, ...] | None = Field(default=None, min_length=1)
    users: tuple[Annotated[int, Field(ge=1, le=500)], ...] | None = Field(default=None, min_length=1)
    browser_users: tuple[Annotated[int, Field(ge=0, le=50)], ...] | None = Field(default=None, min_length=1)
    seed: tuple[Annotated[int, Field(ge=0)], ...] | None = Field(default=None, min_length=1)
    jitter: tuple[bool, ...] | None = Field(default=None, min_length=1)


class ScenarioEntry(Model):
    """One scenario of a file.

    Exactly one of ``faults``, ``control: true``, ``external`` (a fault that no flag makes, in words;
    ``expect`` is its truth) and ``scenario`` (an id that the target knows, for example a recorded incident)
    says what runs. ``assert`` lists the assertions; without it the expected detection and
    root causes must hold. ``targets`` are the kinds of target for which the scenario is made (empty: any);
    ``marks`` and the values of ``tags`` are markers for ``-m``.
    """

    id: Name | None = None
    description: str = ""
    faults: tuple[Fault, ...] = ()
    control: Literal[True] | None = None
    external: str = ""
    scenario: str | None = None
    disturbances: tuple[Disturbance, ...] = ()
    environment: Environment = Environment()
    timing: Timing = Timing()
    require_impact: bool | None = None
    expect: Expect = Expect()
    investigation_path: tuple[InvestigationStep, ...] = ()
    assertions: tuple[Assertion, ...] = Field(default=(), alias="assert")
    matrix: Matrix = Matrix()
    tags: dict[Name, Name] = Field(default_factory=dict)
    marks: tuple[Name, ...] = ()
    targets: tuple[str, ...] = ()
    ungated: str = ""

    @model_validator(mode="after")
    def _one_kind(self) -> Self:
        kinds = [
            name
            for name, given in (
                ("faults", bool(self.faults)),
                ("control", self.control is not None),
                ("external", bool(self.external)),
                ("scenario", self.scenario is not None),
            )
            if given
        ]
        if len(kinds) != 1:
            found = " and ".join(kinds) or "none of them"
            raise ValueError(
                f"needs exactly one of faults, control: true, external and scenario; this one has {found}"
            )
        runs = math.prod(
            len(values) for name in Matrix.model_fields if (values := getattr(self.matrix, name)) is not None
        )
        if runs > MOST_RUNS:
            raise ValueError(f"the matrix makes {runs:,} runs of one scenario; the limit is {MOST_RUNS}")
        varied = [name for name in ("flag", "variant") if getattr(self.matrix, name) is not None]
        if varied and len(self.faults) != 1:
            raise ValueError(
                f"matrix.{varied[0]} changes the scenario's only fault; this one has {len(self.faults)}"
            )
        return self


class Defaults(Model):
    """Values that the scenarios of a file share; a key of a scenario replaces the default."""

    disturbances: tuple[Disturbance, ...] = ()
    environment: Environment = Environment()
    timing: Timing = Timing()
    require_impact: bool | None = None
    assertions: tuple[Assertion, ...] = Field(default=(), alias="assert")
    tags: dict[Name, Name] = Field(default_factory=dict)
    marks: tuple[Name, ...] = ()
    targets: tuple[str, ...] = ()
    ungated: str = ""


class SingleDocument(ScenarioEntry):
    """A file with one scenario. Its id defaults to the file's name."""

    schema_version: Literal[1] = Field(alias="schema")


class ListDocument(Model):
    """A file with several scenarios."""

    schema_version: Literal[1] = Field(alias="schema")
    description: str = ""
    defaults: Defaults = Defaults()
    scenarios: tuple[ScenarioEntry, ...] = Field(min_length=1)


TEXT_KEYS = frozenset(
    {
        *("demo", "variant", "flag", "ungated", "description", "id", "scenario", "external"),
        *("service", "operation", "fault", "path", "paths", "red_herrings", "not_blamed", "query_shows"),
        *("services", "hint", "accuses", "root_cause", "tags", "marks", "targets"),
    }
)
"""Keys under which values are always text: YAML would read 3.10 as a number and lose the zero."""


def json_schema() -> dict[str, Any]:
    """Return the JSON schema (draft 2020-12) of ``*.scenario.yaml``."""
    schema = TypeAdapter(SingleDocument | ListDocument).json_schema(by_alias=True)
    definitions = schema["$defs"]
    definitions["Fault"]["properties"]["context"] = {
        "type": "object",
        "additionalProperties": {"type": ["string", "boolean", "number"]},
    }
    _accept_numbers_as_text(definitions)
    several, single = ({"$ref": f"#/$defs/{kind.__name__}"} for kind in (ListDocument, SingleDocument))
    return {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "title": "Scenarios of pytest-otel-diag (*.scenario.yaml)",
        "if": {"type": "object", "required": ["scenarios"]},
        "then": several,
        "else": single,
        "$defs": definitions,
    }


def _accept_numbers_as_text(node: Any) -> None:
    """Let editors accept ``demo: 3.0`` unquoted, as the loader does."""
    if isinstance(node, dict):
        for name, part in node.get("properties", {}).items():
            if name in TEXT_KEYS:
                _widen(part)
        for part in node.values():
            _accept_numbers_as_text(part)
    elif isinstance(node, list):
        for part in node:
            _accept_numbers_as_text(part)


def _widen(part: dict[str, Any]) -> None:
    for choice in (part, *part.get("anyOf", ())):
        if choice.get("type") == "string":
            choice["type"] = ["string", "number"]
        elif choice.get("type") == "array" and choice.get("items", {}).get("type") == "string":
            choice["items"]["type"] = ["string", "number"]
