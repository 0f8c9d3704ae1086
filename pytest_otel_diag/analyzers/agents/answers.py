"""Reads the answer of an agent: JSON in its text, else a line ``Root cause: …``; never a guess."""

from __future__ import annotations

import ast
import json
import re
from collections.abc import Iterator, Mapping
from typing import Any

from pytest_otel_diag.analyzers.agents.answer_shapes import AnswerReader, first_cause
from pytest_otel_diag.errors import AnalyzerError
from pytest_otel_diag.model.diagnosis import Diagnosis

MOST_CHARACTERS = 200_000
"""Of a longer text, the end is read: answers come last."""

_OBJECTS = 200
"""Places of a text at which an object may begin, counted from the end."""

_LITERAL_CHARACTERS = 20_000
_SHOWN = 200
_SHAPE = frozenset({"detected", "root_causes", "root_cause", "rootCauses", "rootCause"})
_WRAPPERS = ("diagnosis", "answer", "result", "submission")
_FENCED = re.compile(r"```[ \t]*[\w+-]*[ \t]*\n?(.*?)(?:```|\Z)", re.DOTALL)
_LINE = re.compile(
    r"^(?:[ \t>*_#-]*root[ _-]?cause[\s*_]*[:：]|[ \t]*#+[ \t]*root[ _-]?cause[ \t]*\n)[\s*_]*(\S[^\n]*)$",
    re.IGNORECASE | re.MULTILINE,
)
_NAME = re.compile(
    r"(?:the\s+)?[`'\"*]*(?P<name>[\w./:@-]*\w(?:[ -](?:service|svc))?)[`'\"*]*(?: service)?"
    r"(?P<rest>\s*[.,;:(–—].*|\s+-\s.*|\s*)",
    re.IGNORECASE | re.DOTALL,
)
_UNDECIDED = re.compile("unknown|unclear|undetermined|inconclusive|not|maybe|likely", re.IGNORECASE)
_DENIED = re.compile(
    r"[\s(,;:–—-]*(?:(?:is|was|has been)\s+)?(?:ruled out|rejected|eliminated|excluded|refuted|discarded"
    r"|unlikely|not(?:\W*$|\s+(?:the|it|guilty|to blame|likely|confirmed)\b)).*",
    re.IGNORECASE | re.DOTALL,
)
_PLACEHOLDER = re.compile(r"[A-Z_]*(?:SERVICE|NAME)|…|\.\.\.|<[^<>]*>")
"""Names in the shape that the question shows: an agent that repeats it has not answered."""
_NOTHING = re.compile(
    r"(?:none(?! of\b)|nothing|no (?:fault|incident|problem|anomaly|root cause)|n/a)\b.*", re.IGNORECASE
)


class Unparsed(AnalyzerError):
    """A text holds no answer in a form that can be read; the message begins with ``unparsed:``."""


def read_answer(text: str) -> Mapping[str, Any]:
    """Return the answer in a text.

    That is the last JSON object with a field of a diagnosis (fenced or bare, any order of keys; other keys
    and prose around it do not matter), else the one line ``Root cause: NAME``. Raises Unparsed for anything
    else, also for lines that name several causes, and for objects that do unless the last ends the text: it
    may be quoted.
    """
    text = text[-MOST_CHARACTERS:]
    if found := [(end, one) for end, value in _objects(text) if (one := _answer_in(value)) is not None]:
        end, last = max(found, key=lambda one: one[0])
        causes = {str(first_cause(one)) for _, one in found}
        if len(causes) > 1 and text[end:].strip().strip("`"):
            named = ", ".join(sorted(causes))[:_SHOWN]
            raise Unparsed(f"unparsed: several root causes, and the text ends with none: {named}")
        return last
    lines = {_line_value(match[1]) for match in _LINE.finditer(text)}
    if len(lines) > 1:
        raise Unparsed(f"unparsed: the text names several root causes: {', '.join(sorted(lines))[:_SHOWN]}")
    for line in lines:
        if _NOTHING.fullmatch(line):
            return {"detected": False}
        name = _NAME.fullmatch(line)
        if name and not _UNDECIDED.fullmatch(name["name"]) and not _DENIED.fullmatch(name["rest"]):
            return {"detected": True, "root_causes": [{"service": name["name"], "explanation": line}]}
        raise Unparsed(f"unparsed: the root cause is no name of a service: {line[:_SHOWN]}")
    shown = " ".join(text.split())[:_SHOWN] or "the text is empty"
    raise Unparsed(f"unparsed: neither a diagnosis as JSON nor a line 'Root cause: NAME': {shown}")


def diagnosis_from(answer: Mapping[str, Any]) -> Diagnosis:
    """Return the diagnosis in an answer, however its fields are spelled.

    What cannot be used is left out, and the summary says so. Names stay as written: the judge resolves them
    against telemetry. Raises AnalyzerError for an answer that states neither whether something is wrong nor a
    root cause, or whose root causes cannot be read.
    """
    for name in _WRAPPERS:
        inner = answer.get(name)
        if isinstance(inner, Mapping) and not _SHAPE & answer.keys():
            answer = inner
    return AnswerReader(answer).diagnosis()


def _objects(text: str) -> Iterator[tuple[int, Any]]:
    """Yield the objects in a text that are in no other, each with the place of its end."""
    for block in _FENCED.finditer(text):
        yield from ((block.end(), value) for value in _parsed(block[1].strip()))
    places = [found.start() for found in re.finditer(r"\{", text)]
    decoder = json.JSONDecoder()
    last = 0
    for start in places[-_OBJECTS:]:
        if start < last:
            continue  # inside the object before
        try:
            value, last = decoder.raw_decode(text, start)
        except (ValueError, RecursionError):
            continue
        yield last, value


def _parsed(block: str) -> Iterator[Any]:
    """Yield the value of a block that is JSON, or the literal of a dictionary in Python."""
    try:
        yield json.loads(block)
    except (ValueError, RecursionError):
        if block.startswith("{") and len(block) <= _LITERAL_CHARACTERS:
            try:
                yield ast.literal_eval(block)
            except (ValueError, SyntaxError, RecursionError, MemoryError, TypeError):
                return


def _answer_in(value: Any) -> Mapping[str, Any] | None:
    """Return the object, or the one it wraps, if it has a field of a diagnosis."""
    if not isinstance(value, Mapping):
        return None
    for inner in (value, *(value.get(name) for name in _WRAPPERS)):
        if isinstance(inner, Mapping) and _SHAPE & inner.keys():
            return None if _PLACEHOLDER.fullmatch(first_cause(inner) or "") else inner
    return None


def _line_value(value: str) -> str:
    return value.strip().strip("*_` ").rstrip()
