"""Loads scenario files into cases: validated, multiplied by their matrix, all mistakes in one error."""

from __future__ import annotations

import itertools
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from pytest_otel_diag.errors import nearest
from pytest_otel_diag.model.base import Model
from pytest_otel_diag.model.fields import known_keys
from pytest_otel_diag.model.scenario import Environment, Expectation, Scenario
from pytest_otel_diag.scenario_files.documents import Document, Place, ScenarioFileError, read_document
from pytest_otel_diag.scenario_files.schema import (
    Check,
    Expect,
    ListDocument,
    Matrix,
    ScenarioEntry,
    SingleDocument,
)

SUFFIXES = (".scenario.yaml", ".scenario.yml")
_QUOTED = re.compile(r"'([^']*)'")
_FAULT_AXES = ("flag", "variant")


@dataclass(frozen=True)
class Case:
    """One thing to run: a scenario of a file with one combination of its matrix applied.

    ``parameters`` are the matrix's values, ``place`` is the scenario's place in its document.
    """

    id: str
    entry: ScenarioEntry
    document: Document
    place: Place
    parameters: tuple[tuple[str, Any], ...] = ()

    @property
    def path(self) -> Path:
        """The file."""
        return self.document.path

    @property
    def line(self) -> int:
        """The line in which the scenario starts."""
        return self.document.line(self.place)

    @property
    def checks(self) -> tuple[Check, ...]:
        """The assertions; ``expected`` when the file has none."""
        return self.entry.assertions or (Check(expected=True),)

    def check_line(self, number: int) -> int:
        """Return the line of the assertion with this index, or of the file's defaults that have it."""
        own = (*self.place, "assert", number)
        return self.document.line(own if own in self.document.lines else ("defaults", "assert", number))

    def at(self, message: str, *place: str | int) -> str:
        """Return a mistake in this case with its file and line."""
        return self.document.at((*self.place, *place), message)

    def scenario(self, base: Scenario) -> Scenario:
        """Return *base* (the scenario of the target or the catalog) with everything that the file says."""
        entry = self.entry
        given = entry.model_fields_set
        update: dict[str, Any] = {"id": self.id, "disturbances": entry.disturbances}
        update["tags"] = tuple({**dict(base.tags), **entry.tags}.items())
        if "ungated" in given:
            update["ungated"] = entry.ungated
        if entry.require_impact is not None:
            update["require_impact"] = entry.require_impact
        if entry.external:
            update["external"] = entry.external
        update["environment"] = _over(base.environment, entry.environment)
        update["timing"] = _over(base.timing, entry.timing)
        if "investigation_path" in given:
            update["investigation_path"] = entry.investigation_path
        return base.expecting(overridden(base.expectation, entry.expect)).model_copy(update=update)


def overridden(expectation: Expectation, expect: Expect) -> Expectation:
    """Return the expectation with the fields that a file gives."""
    given = {name: getattr(expect, name) for name in expect.model_fields_set}
    given = {name: value for name, value in given.items() if value is not None}
    return expectation.model_copy(update=given)


def is_scenario_file(path: Path) -> bool:
    """Return whether the file's name is that of a scenario file."""
    return path.name.endswith(SUFFIXES)


def find_files(paths: Iterable[Path]) -> list[Path]:
    """Return the scenario files under *paths*, each once and in order; raises ScenarioFileError.

    A path to a file is included whatever its name.
    """
    found: dict[Path, None] = {}
    for path in paths:
        if not path.exists():
            raise ScenarioFileError(f"{path}: no such file or folder")
        if path.is_file():
            found[path] = None
        else:
            inside = sorted(inner for inner in path.rglob("*.scenario.y*ml") if is_scenario_file(inner))
            found.update(dict.fromkeys(inside))
    return list(found)


def load_cases(path: Path) -> tuple[Case, ...]:
    """Return the cases of a scenario file; raises ScenarioFileError that lists every mistake."""
    document = read_document(path)
    if not isinstance(document.data, dict):
        raise ScenarioFileError(f"{path}:1: a scenario file is a mapping that starts with schema: 1")
    several = "scenarios" in document.data
    try:
        parsed = (ListDocument if several else SingleDocument).model_validate(document.data)
    except ValidationError as error:
        kind = ListDocument if several else SingleDocument
        wrongs = sorted(error.errors(), key=lambda wrong: document.line(wrong["loc"]))
        document.mistakes += [_sentence(document, kind, wrong) for wrong in wrongs]
        parsed = None
    cases = list(_cases(document, parsed)) if parsed is not None else []
    document.mistakes += list(_twice(cases))
    if document.mistakes:
        raise ScenarioFileError("\n".join(document.mistakes))
    return tuple(cases)


def _cases(document: Document, parsed: SingleDocument | ListDocument) -> Iterator[Case]:
    stem = document.path.name.split(".", 1)[0]
    if isinstance(parsed, SingleDocument):
        yield from _expanded(document, (), parsed, parsed.id or stem)
        return
    for number, entry in enumerate(parsed.scenarios):
        merged = _with_defaults(entry, parsed.defaults)
        yield from _expanded(document, ("scenarios", number), merged, entry.id or f"{stem}-{number + 1}")


def _with_defaults(entry: ScenarioEntry, defaults: Model) -> ScenarioEntry:
    given = {name: getattr(defaults, name) for name in defaults.model_fields_set}
    update = {name: value for name, value in given.items() if name not in entry.model_fields_set}
    if "tags" in given:
        update["tags"] = {**given["tags"], **entry.tags}
    return entry.model_copy(update=update)


def _expanded(document: Document, place: Place, entry: ScenarioEntry, name: str) -> Iterator[Case]:
    axes = [(axis, values) for axis, values in _axes(entry.matrix)]
    for values in itertools.product(*(values for _, values in axes)):
        parameters = tuple(zip((axis for axis, _ in axes), values, strict=True))
        shown = ",".join(f"{axis}={_plain(value)}" for axis, value in parameters)
        yield Case(
            id=f"{name}[{shown}]" if shown else name,
            entry=_applied(entry, dict(parameters)),
            document=document,
            place=place,
            parameters=parameters,
        )


def _axes(matrix: Matrix) -> Iterator[tuple[str, Sequence[Any]]]:
    for axis in type(matrix).model_fields:
        values = getattr(matrix, axis)
        if values is not None:
            yield axis, values


def _plain(value: Any) -> str:
    return str(value).lower() if isinstance(value, bool) else str(value)


def _applied(entry: ScenarioEntry, values: Mapping[str, Any]) -> ScenarioEntry:
    fault = {axis: values[axis] for axis in _FAULT_AXES if axis in values}
    rest = {axis: value for axis, value in values.items() if axis not in fault}
    update: dict[str, Any] = {}
    if fault:
        update["faults"] = (entry.faults[0].model_copy(update=fault),)
    if rest:
        update["environment"] = _over(entry.environment, Environment(**rest))
    return entry.model_copy(update=update)


def _over(base: Model, given: Model) -> Any:
    return base.model_copy(update={name: getattr(given, name) for name in given.model_fields_set})


def _twice(cases: Iterable[Case]) -> Iterator[str]:
    seen: dict[str, Case] = {}
    for case in cases:
        first = seen.setdefault(case.id, case)
        if first is not case:
            yield case.at(f"id {case.id!r} is already used in line {first.line}", "id")


def _sentence(document: Document, kind: type[Model], error: Any) -> str:
    """Return one of pydantic's errors as a sentence with line, value and remedy."""
    place: Place = error["loc"]
    wrong = error["type"]
    if wrong == "extra_forbidden":
        known = known_keys(kind, place[:-1])
        hint = nearest(str(place[-1]), known)
        return document.at(place, f"unknown key{hint}; known: {', '.join(known)}")
    if wrong == "missing":
        return document.at(place[:-1], f"needs the key {place[-1]!r}")
    message = str(error["msg"]).removeprefix("Value error, ")
    if wrong in ("enum", "literal_error"):
        allowed = _QUOTED.findall(str(error["ctx"]["expected"])) or [str(error["ctx"]["expected"])]
        message = f"choose from {', '.join(allowed)}{nearest(str(error['input']), allowed)}"
    if wrong == "dict_type":
        hint = "; names alone belong under marks" if place[-1] == "tags" else ""
        message = f"must be a mapping, such as {{name: value}}{hint}"
    if wrong == "value_error":
        return document.at(place, message)
    return document.at(place, f"{error['input']!r}: {message[0].lower()}{message[1:]}")
