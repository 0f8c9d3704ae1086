"""Reads the answer of a model: the object that it submits, or one in its text."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from typing import Any

from pydantic import ValidationError

from pytest_otel_diag.errors import AnalyzerError
from pytest_otel_diag.model.diagnosis import Diagnosis

_FENCED = re.compile(r"```\w*\n(.*?)```", re.DOTALL)
_LINE = re.compile(r"^\W*root cause\W*:\s*(.+)$", re.IGNORECASE | re.MULTILINE)
_SHAPE = {"root_causes", "detected"}


class Unparsed(AnalyzerError):
    """A text holds no answer."""


def read_answer(text: str) -> Mapping[str, Any]:
    """Return the answer in a text: JSON, else a line ``Root cause: …``; raises Unparsed."""
    for part in (*_FENCED.findall(text), text):
        try:
            found = json.loads(part)
        except (ValueError, RecursionError):
            continue
        if isinstance(found, Mapping) and _SHAPE & found.keys():
            return found
    line = _LINE.search(text)
    if line is None:
        raise Unparsed(
            f"unparsed: the text has neither a diagnosis as JSON nor a line 'Root cause: …': {text[:200]}"
        )
    return {"detected": True, "root_causes": [{"service": line[1].strip(" *.`")}]}


def diagnosis_from(answer: Mapping[str, Any], services: Sequence[str], *, raw: str) -> Diagnosis:
    """Return the diagnosis in an answer, unknown keys left out; raises AnalyzerError."""
    del services, raw
    known = {key: value for key, value in answer.items() if key in Diagnosis.model_fields}
    known.setdefault("detected", bool(known.get("root_causes")))
    try:
        return Diagnosis.model_validate(known)
    except ValidationError as error:
        raise AnalyzerError(f"the answer is no diagnosis: {error}") from error
