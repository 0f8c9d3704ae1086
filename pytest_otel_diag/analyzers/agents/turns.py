"""Asks an agent until it answers: hints after wrong answers, one repair where the channel allows it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

from pytest_otel_diag.analyzers.agents.answers import Unparsed, diagnosis_from, read_answer
from pytest_otel_diag.analyzers.agents.json_paths import found_at
from pytest_otel_diag.errors import AnalyzerError
from pytest_otel_diag.model.diagnosis import Diagnosis, Usage
from pytest_otel_diag.ports import Investigation, Transcript

_MOST_QUOTED = 20_000
_MOST_AMOUNT = 10**12
"""Tokens, requests or US dollars in the report of one reply; more is an error of its unit."""
_REPAIR = (
    "You investigated an incident and answered with the text below. Return only this JSON, in one fenced "
    'block and without anything else: {"detected": true, "root_causes": [{"service": "NAME", '
    '"operation": "…", "mechanism": "…", "confidence": 0.8, "explanation": "…"}]}. '
    "Say what the text says, and nothing new.\n\n"
)


@dataclass(frozen=True)
class Reply:
    """What one turn of an agent brought.

    ``texts`` are the places of an answer in order of preference: an object that is the answer, or a text that
    holds it. ``usage`` is what the agent reports, ``remarks`` what a reader of the session has to know.
    ``missing`` says why there may be no answer.
    """

    texts: Sequence[Mapping[str, Any] | str] = ()
    usage: Usage = field(default_factory=Usage)
    remarks: Sequence[str] = ()
    missing: str = "the agent gave no answer"


class Channel(Protocol):
    """A way to put a question to an agent; each turn stands alone."""

    async def ask(self, question: str) -> Reply:
        """Return what the agent replies; raises AnalyzerError and errors of the infrastructure."""
        ...


async def diagnosed(
    investigation: Investigation, channel: Channel, question: str, *, repair: bool = False
) -> Diagnosis:
    """Return the diagnosis of the agent, after as many hints as the session gives.

    Raises AnalyzerError where it gave none, Unparsed where its answer cannot be read.
    """
    asked, turns = question, _Turns(investigation.transcript, channel)
    while True:
        diagnosis, failure = None, None
        try:
            diagnosis = await turns.attempt(asked, repair=repair)
        except AnalyzerError as error:
            failure = error
        hint = await investigation.guidance.next(diagnosis)
        if hint is None:
            if diagnosis is None:
                raise failure or AnalyzerError("the agent gave no answer")
            return diagnosis.model_copy(update={"usage": turns.used})
        await investigation.transcript.add("message", {"role": "user", "text": hint})
        before = "none" if diagnosis is None else diagnosis.model_dump_json(include={"root_causes"})
        asked = f"{question}\n\nYour answer before was not right: {before[:_MOST_QUOTED]}\nA hint: {hint}"


@dataclass
class _Turns:
    """Puts questions to the agent; ``used`` is the usage of all replies, also of those that hold no answer.

    The transcript keeps the usage of each reply: it is the session's where no diagnosis reports one.
    """

    transcript: Transcript
    channel: Channel
    used: Usage = field(default_factory=Usage)

    async def attempt(self, question: str, *, repair: bool) -> Diagnosis:
        reply = await self._ask(question)
        try:
            return _diagnosis(reply)
        except Unparsed:
            text = next((one for one in reply.texts if isinstance(one, str) and one.strip()), "")
            if not (repair and text):
                raise
        again = await self._ask(f"{_REPAIR}{text[-_MOST_QUOTED:]}")
        self.used = self.used.model_copy(update={"repairs": self.used.repairs + 1})
        return _diagnosis(again)

    async def _ask(self, question: str) -> Reply:
        reply = await self.channel.ask(question)
        self.used = _sum(self.used, reply.usage)
        if reply.usage != Usage():
            await self.transcript.add("usage", reply.usage.model_dump(exclude_defaults=True))
        return reply


def _diagnosis(reply: Reply) -> Diagnosis:
    """Return the diagnosis in the first place that holds one."""
    failure: AnalyzerError | None = None
    for place in reply.texts:
        if isinstance(place, str) and not place.strip():
            continue
        try:
            answer = place if isinstance(place, Mapping) else read_answer(place)
            diagnosis = diagnosis_from(answer)
        except AnalyzerError as error:
            failure = failure or error
            continue
        remarks = "".join(f" ({remark})" for remark in reply.remarks)
        return diagnosis.model_copy(update={"summary": f"{diagnosis.summary}{remarks}".strip()})
    if failure is not None:
        raise failure
    raise AnalyzerError(f"no answer: {reply.missing}")


def usage_from(mapping: Mapping[str, str], document: Any) -> tuple[Usage, tuple[str, ...]]:
    """Return the usage that a document reports by paths, and remarks on what cannot be read."""
    values: dict[str, Any] = {}
    remarks = []
    for name, path in mapping.items():
        value = found_at(document, path)
        try:
            if value is not None:
                read = Usage.model_validate({name: value}).model_dump()[name]
                if isinstance(read, int | float) and not 0 <= read <= _MOST_AMOUNT:
                    raise ValueError("out of range")
                values[name] = read
        except ValueError:  # also pydantic's
            remarks.append(f"usage {name} at {path!r} is {str(value)[:60]!r}, which is no amount")
            continue
        if value is None:
            remarks.append(f"the agent reports no {name} at {path!r}")
    return Usage.model_validate(values), tuple(remarks)


def _sum(one: Usage, other: Usage) -> Usage:
    added = {name: getattr(one, name) + value for name, value in other.model_dump(exclude={"model"}).items()}
    return Usage(**added, model=other.model or one.model)
