"""Checks an analyzer's answer, and its attempts before that, and says what is wrong with them."""

from __future__ import annotations

from collections.abc import Mapping
from itertools import islice
from typing import Any

from pydantic import ValidationError
from pydantic_core import ErrorDetails, PydanticSerializationError

from pytest_otel_diag.errors import AnalyzerError, nearest
from pytest_otel_diag.model.diagnosis import Diagnosis
from pytest_otel_diag.model.fields import known_keys
from pytest_otel_diag.sessions.ending import describe

_SHOWN_ERRORS = 5
_FIELDS_READ = 1000

MOST_BYTES = 4_000_000
"""Size limit of a diagnosis as JSON: it travels with the test report and is one line of the run."""


def written(text: str) -> Diagnosis:
    """Return the diagnosis that an analyzer's thread wrote down; raises AnalyzerError for an invalid one."""
    try:
        return Diagnosis.model_validate_json(text)
    except ValidationError as error:
        raise AnalyzerError(f"the analyzer's answer is not a valid Diagnosis: {_readable(error)}") from error


def as_diagnosis(answer: object) -> Diagnosis:
    """Return *answer* as a valid diagnosis; raises AnalyzerError saying what is wrong with it.

    Dictionaries are validated. Diagnoses are validated again, since ``model_construct`` and ``model_copy``
    skip the checks, and an invalid one could not be written to the record.
    """
    if not isinstance(answer, Diagnosis | Mapping):
        hint = "; is a return missing?" if answer is None else ""
        raise AnalyzerError(
            f"the analyzer returned {_short(answer)} ({type(answer).__name__}), not a Diagnosis{hint}"
        )
    try:
        raw = answer.model_dump(warnings=False) if isinstance(answer, Diagnosis) else _fields(answer)
        diagnosis = Diagnosis.model_validate(raw)
        size = len(diagnosis.model_dump_json())
    except ValidationError as error:
        raise AnalyzerError(f"the analyzer's answer is not a valid Diagnosis: {_readable(error)}") from error
    except (PydanticSerializationError, UnicodeError, AttributeError, TypeError, ValueError) as error:
        raise AnalyzerError(f"the analyzer's answer cannot be written down: {describe(error)}") from error
    if size > MOST_BYTES:
        raise AnalyzerError(
            f"the analyzer's answer is {size / 1e6:.1f} MB long, at most {MOST_BYTES / 1e6:g} MB are kept; "
            "leave rows of telemetry out of evidence, explanations and hypotheses"
        )
    return diagnosis


def _fields(answer: Mapping[str, Any]) -> dict[str, Any]:
    """Return the fields of a mapping, so many that what is left out cannot make it valid."""
    return {key: answer[key] for key in islice(answer, _FIELDS_READ)}


def _readable(error: ValidationError) -> str:
    found = error.errors(include_url=False, include_context=False)
    lines = [
        f"{'.'.join(map(str, item['loc'])) or 'answer'}: {_problem(item)}" for item in found[:_SHOWN_ERRORS]
    ]
    more = f"; and {len(found) - _SHOWN_ERRORS} more" if len(found) > _SHOWN_ERRORS else ""
    return "; ".join(lines) + more


def _problem(error: ErrorDetails) -> str:
    if error["type"] != "extra_forbidden":
        return error["msg"]
    *place, name = error["loc"]
    known = known_keys(Diagnosis, place)
    hint = nearest(str(name), known) or f"; known: {', '.join(known)}"
    return f"unknown field{hint}"


def _short(value: object) -> str:
    try:
        text = repr(value)
    except Exception:
        return "an object whose repr fails"
    return text if len(text) <= 80 else text[:77] + "..."
