"""The question that agents get: a text in a file with a version, which users replace by their own."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from importlib import resources
from pathlib import Path
from string import Template
from typing import Any, Literal

from pytest_otel_diag.errors import ConfigurationError, nearest
from pytest_otel_diag.model.windows import Window, iso
from pytest_otel_diag.ports import Investigation
from pytest_otel_diag.tools import TOOLS, Tool

PLACEHOLDERS = frozenset({"incident", "baseline", "reference", "now", "tools", "answer"})
"""What a question may have after a ``$``."""

_SUBMIT = "submit_diagnosis"
_MOST_CHARACTERS = 100_000


@dataclass(frozen=True)
class QuestionTemplate:
    """A question with placeholders; ``own`` says that it is the user's."""

    text: str
    own: bool = False

    @property
    def version(self) -> str:
        """A digest of the text."""
        digest = hashlib.sha256(self.text.encode()).hexdigest()[:12]
        return f"{digest} (own)" if self.own else digest


@cache
def standard_question() -> QuestionTemplate:
    """Return the question that agents get unless the user gives another one."""
    return QuestionTemplate(resources.files(__package__).joinpath("question.md").read_text("utf-8").strip())


def load_question(file: str | Path) -> QuestionTemplate:
    """Return the question in *file*, the standard one for an empty name.

    Raises ConfigurationError for a file that cannot be read and for placeholders that do not exist.
    """
    if not str(file):
        return standard_question()
    path = Path(file).expanduser()
    try:
        text = path.read_text("utf-8").strip()
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigurationError(f"the question {path} cannot be read: {error}") from error
    if not text or len(text) > _MOST_CHARACTERS:
        raise ConfigurationError(
            f"the question {path} has {len(text):,} characters; allowed are 1 to {_MOST_CHARACTERS:,}"
        )
    template = Template(text)
    if not template.is_valid():
        raise ConfigurationError(f"{path} has a $ that begins no placeholder; write $$ for the character")
    for name in template.get_identifiers():
        if name not in PLACEHOLDERS:
            known = ", ".join(f"${one}" for one in sorted(PLACEHOLDERS))
            raise ConfigurationError(
                f"{path} has the unknown placeholder ${name}{nearest(name, PLACEHOLDERS)}; known: {known}"
            )
    return QuestionTemplate(text, own=True)


def question_text(
    investigation: Investigation,
    *,
    format: Literal["text", "json"] = "text",
    tools: Sequence[Tool] = TOOLS,
    template: QuestionTemplate | None = None,
) -> str:
    """Return the question about an investigation, as text or as a JSON object.

    It names windows and tools, and nothing of scenario, fault or expectation.
    """
    if format == "json":
        return json.dumps(question_fields(investigation, tools=tools, template=template), ensure_ascii=False)
    used = template or standard_question()
    return Template(used.text).substitute(
        window_texts(investigation),
        tools="\n".join(f"- {tool.name}: {tool.description}" for tool in tools),
        answer=json.dumps(answer_schema(tools), separators=(",", ":"), ensure_ascii=False),
    )


def question_fields(
    investigation: Investigation,
    *,
    tools: Sequence[Tool] = TOOLS,
    template: QuestionTemplate | None = None,
) -> dict[str, Any]:
    """Return the question as JSON: the text, and windows, present, tools and schema of the answer as data."""
    used = template or standard_question()
    baseline = investigation.baseline
    return {
        "question": question_text(investigation, tools=tools, template=used),
        "version": used.version,
        "incident": _bounds(investigation.incident),
        "baseline": None if baseline is None else _bounds(baseline),
        "reference": [_bounds(window) for window in investigation.reference],
        "now_ns": investigation.incident.end_ns,
        "tools": [tool.name for tool in tools],
        "answer_schema": answer_schema(tools),
    }


def answer_schema(tools: Sequence[Tool] = TOOLS) -> Mapping[str, Any]:
    """Return the JSON schema of a diagnosis as agents write it: the arguments of ``submit_diagnosis``."""
    return next((tool.schema() for tool in tools if tool.name == _SUBMIT), {"type": "object"})


def window_texts(investigation: Investigation) -> dict[str, str]:
    """Return the windows and the present as texts: UTC, and nanoseconds."""
    reference = "; ".join(_shown(one) for one in investigation.reference)
    return {
        "incident": _shown(investigation.incident),
        "baseline": _shown(investigation.baseline) if investigation.baseline else "none",
        "reference": reference or "none",
        "now": iso(investigation.incident.end_ns),
    }


def _shown(window: Window) -> str:
    return (
        f"{iso(window.start_ns)} to {iso(window.end_ns)} (start_ns {window.start_ns}, end_ns {window.end_ns})"
    )


def _bounds(window: Window) -> dict[str, int]:
    return {"start_ns": window.start_ns, "end_ns": window.end_ns}
