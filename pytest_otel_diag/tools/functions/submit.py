"""The tool ``submit_diagnosis``: takes the answer, and reveals nothing about it."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any, Literal, get_args

from pydantic import ConfigDict, Field, JsonValue
from pydantic.config import JsonDict

from pytest_otel_diag.model.base import Model
from pytest_otel_diag.model.diagnosis import Measure, Mechanism, Signal
from pytest_otel_diag.tools.cells import readable
from pytest_otel_diag.tools.contract import Tool, ToolContext, ToolError

MOST_CHARACTERS = 1_000_000
"""Length of the longest diagnosis that is taken, as JSON."""

_WRAPPERS = ("diagnosis", "answer", "result", "submission")
_TEXT: JsonDict = {"type": "string"}
_TEXTS: JsonDict = {"type": "array", "items": _TEXT}
_RATIO: JsonDict = {"type": "number", "minimum": 0, "maximum": 1}
_FIGURES: JsonDict = {
    "type": "array",
    "description": "Numbers that telemetry confirms, as read: error_ratio from 0 to 1, latencies in ms.",
    "items": {
        "type": "object",
        "properties": {
            "measure": {"enum": list(get_args(Measure))},
            "value": {"type": "number"},
            "service": _TEXT,
            "operation": _TEXT,
            "window": {"enum": ["incident", "baseline"]},
            "unit": _TEXT,
            "subject": {**_TEXT, "description": "Name of the metric, or a text in the log lines counted."},
        },
        "required": ["measure", "value", "service", "window"],
    },
}
_EVIDENCE: JsonDict = {
    "type": "array",
    "description": "What telemetry shows, each with ids or figures that can be checked.",
    "items": {
        "type": "object",
        "properties": {
            "source": {"enum": ["traces", "logs", "metrics"]},
            "summary": _TEXT,
            "trace_ids": _TEXTS,
            "span_ids": _TEXTS,
            "services": _TEXTS,
            "operations": _TEXTS,
            "figures": _FIGURES,
        },
    },
}
_SAME_EVIDENCE: JsonDict = {
    "type": "array",
    "description": "As in root_causes.",
    "items": {"type": "object"},
}
_FINDING: JsonDict = {
    "service": {**_TEXT, "description": "Name of the service as telemetry spells it."},
    "operation": _TEXT,
}


def _list_of(*required: str, **properties: Any) -> JsonDict:
    return {
        "type": "array",
        "items": {"type": "object", "properties": properties, "required": list(required)},
    }


class Submission(Model):
    """A diagnosis as an agent writes it: these fields, and whatever else it adds."""

    model_config = ConfigDict(extra="allow")

    detected: JsonValue = Field(
        default=None,
        description="Whether anything is wrong at all.",
        json_schema_extra={"type": "boolean"},
    )
    root_causes: JsonValue = Field(
        default=None,
        description="Candidates, the most likely first, even when nothing is detected.",
        json_schema_extra=_list_of(
            "service",
            **_FINDING,
            mechanism={"enum": [str(one) for one in Mechanism]},
            confidence=_RATIO,
            explanation=_TEXT,
            evidence=_EVIDENCE,
        ),
    )
    anomalies: JsonValue = Field(
        default=None,
        description="What deviates from the baseline.",
        json_schema_extra=_list_of(
            "service",
            "signal",
            **_FINDING,
            signal={"enum": [str(one) for one in Signal]},
            direction={"enum": ["up", "down", "changed"]},
            baseline={"type": "number"},
            observed={"type": "number"},
            unit=_TEXT,
            evidence=_SAME_EVIDENCE,
        ),
    )
    critical_path: JsonValue = Field(
        default=None,
        description="Services along the affected call path, from the entry to the culprit.",
        json_schema_extra=_TEXTS,
    )
    query: JsonValue = Field(
        default=None,
        description="A complete SELECT, without parameters, that returns rows about the culprit.",
        json_schema_extra={"type": "object", "properties": {"sql": _TEXT, "description": _TEXT}},
    )
    hypotheses: JsonValue = Field(
        default=None,
        description="What was considered, and why it was kept or eliminated.",
        json_schema_extra=_list_of(
            "statement",
            "status",
            statement=_TEXT,
            service=_TEXT,
            mechanism={"enum": [str(one) for one in Mechanism]},
            status={"enum": ["kept", "eliminated"]},
            reason=_TEXT,
        ),
    )
    confidence: JsonValue = Field(
        default=None,
        description="Probability that the first root cause is right.",
        json_schema_extra=_RATIO,
    )
    summary: JsonValue = Field(
        default=None, description="The diagnosis in a sentence or two.", json_schema_extra=_TEXT
    )


class Accepted(Model):
    """The diagnosis was taken; nothing is said about whether it is right."""

    status: Literal["accepted"] = "accepted"


_ALLOWED = (
    f"send an object with some of {', '.join(Submission.model_fields)}, for example "
    '{"detected": true, "root_causes": [{"service": "service-a", "mechanism": "error"}]}'
)


def _unwrapped(answer: Mapping[str, Any]) -> Any:
    """Return the diagnosis inside an object that holds nothing else, JSON as text included."""
    if len(answer) != 1:
        return answer
    ((name, inner),) = answer.items()
    if name not in _WRAPPERS:
        return answer
    if isinstance(inner, str):
        try:
            return json.loads(inner)
        except (ValueError, RecursionError):
            raise ToolError(f"{name} holds text that is no JSON; {_ALLOWED}") from None
    return inner


async def submit(context: ToolContext, arguments: Submission) -> Accepted:
    """Keep the diagnosis; the last one counts. Raises ToolError for what cannot be one."""
    answer = _unwrapped(arguments.model_dump(exclude_unset=True))
    if not isinstance(answer, Mapping):
        raise ToolError(f"the diagnosis is {type(answer).__name__}, not an object; {_ALLOWED}")
    if not answer:
        raise ToolError(f"the diagnosis is empty; {_ALLOWED}")
    if not answer.keys() & Submission.model_fields.keys():
        unknown = ", ".join(list(answer)[:5])[:200]
        raise ToolError(f"the diagnosis has no field of a diagnosis (it has {unknown}); {_ALLOWED}")
    try:
        text = json.dumps(answer, ensure_ascii=False)
    except (ValueError, RecursionError):
        raise ToolError(f"the diagnosis cannot be written as JSON; {_ALLOWED}") from None
    if len(text) > MOST_CHARACTERS:
        raise ToolError(
            f"the diagnosis has {len(text):,} characters, at most {MOST_CHARACTERS:,} are taken; "
            "leave rows of telemetry out of evidence and explanations"
        )
    context.answers.accept(json.loads(readable(text)))
    return Accepted()


SUBMIT = Tool(
    name="submit_diagnosis",
    description=(
        "Submit the diagnosis. Call it once at the end; a later call replaces an earlier one. Rank "
        "root_causes, the most likely first; if nothing is wrong, set detected to false. Example: "
        '{"detected": true, "root_causes": [{"service": "service-a", "operation": "GET /items", '
        '"mechanism": "error", "confidence": 0.8, "explanation": "12 of 19 calls failed"}], '
        '"confidence": 0.8}'
    ),
    arguments=Submission,
    result=Accepted,
    run=submit,
)
