"""The file of an agent: how it is started or called, and where its answer and its usage are."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Annotated, Any, Literal, Self

from pydantic import Field, ValidationError, field_validator, model_validator

from pytest_otel_diag.analyzers.agents import templates
from pytest_otel_diag.errors import ConfigurationError
from pytest_otel_diag.model.base import Model
from pytest_otel_diag.model.diagnosis import Usage
from pytest_otel_diag.scenario_files.documents import ScenarioFileError, read_document

READY = Path(__file__).parent / "ready"
"""Files that come with the package."""

_SOURCES = ("submit", "stdout", "file:NAME")
_MOST_BYTES = 1_000_000
Seconds = Annotated[float, Field(gt=0, le=86_400)]
Paths = Mapping[str, str]


class Poll(Model):
    """How the result of a job is waited for; paths are those of JSON, ``{id}`` in the URL is the job."""

    id: str
    url: str
    status: str = "status"
    done: tuple[str, ...] = ("done", "completed", "succeeded", "success")
    failed: tuple[str, ...] = ("failed", "error", "cancelled")
    interval_s: Seconds = 1.0


class Tls(Model):
    """Certificates of HTTPS, as files: of the authority, and of this client with its key."""

    ca: str = ""
    certificate: str = ""
    key: str = ""
    insecure: bool = False


class HttpCall(Model):
    """A request to an agent, and where its response has the answer; no path means the whole response."""

    url: str
    method: Literal["POST", "PUT"] = "POST"
    headers: Mapping[str, str] = Field(default_factory=dict)
    body: Any = "{question_json}"
    answer: str = ""
    connect_timeout_s: Seconds = 10.0
    poll: Poll | None = None
    tls: Tls = Tls()


class AgentFile(Model):
    """An agent: a ``command`` that is started, or an ``http`` call; see docs/agents/command.md."""

    description: str = ""
    command: tuple[str, ...] = ()
    http: HttpCall | None = None
    files: Mapping[str, str] = Field(default_factory=dict)
    stdin: Literal["question", "json", "none"] = "question"
    answer: tuple[str, ...] = ("submit", "stdout")
    usage: Paths = Field(default_factory=dict)
    env: tuple[str, ...] = ()
    environment: Mapping[str, str] = Field(default_factory=dict)
    question: str = ""
    timeout_s: Seconds | None = None
    memory_mb: int | None = Field(default=None, ge=0)
    repair: bool = False

    @field_validator("command")
    @classmethod
    def _words(cls, words: tuple[str, ...]) -> tuple[str, ...]:
        _refuse(problem for word in words for problem in templates.mistakes(word, templates.WORDS))
        return words

    @field_validator("files")
    @classmethod
    def _inside(cls, files: Mapping[str, str]) -> Mapping[str, str]:
        for name, text in files.items():
            parts = Path(name).parts
            if not parts or Path(name).is_absolute() or ".." in parts or "\0" in name:
                raise ValueError(f"{name!r} is no path inside the working directory")
            _refuse(templates.mistakes(text, templates.FILES))
        return files

    @field_validator("answer")
    @classmethod
    def _sources(cls, answer: tuple[str, ...]) -> tuple[str, ...]:
        for source in answer:
            kind = source.partition("#")[0]
            if kind not in {"submit", "stdout"} and not kind.removeprefix("file:") != kind:
                raise ValueError(f"{source!r} is no place of an answer; choose from {', '.join(_SOURCES)}")
        return answer

    @field_validator("usage")
    @classmethod
    def _amounts(cls, usage: Paths) -> Paths:
        _refuse(f"{name!r} is no usage" for name in usage if name not in Usage.model_fields)
        return usage

    @field_validator("env")
    @classmethod
    def _set(cls, names: tuple[str, ...]) -> tuple[str, ...]:
        missing = [name for name in names if not name.endswith("?") and not os.environ.get(name)]
        if missing:
            raise ValueError(
                f"the environment variable {missing[0]} is not set; set it, or write {missing[0]}? where the "
                "agent runs without it"
            )
        return tuple(name.rstrip("?") for name in names)

    @field_validator("http")
    @classmethod
    def _call(cls, call: HttpCall | None) -> HttpCall | None:
        if call is not None:
            _refuse(problem for text in call.headers.values() for problem in _of_header(text))
            _refuse(problem for text in _texts(call.body) for problem in _of_body(text))
        return call

    @model_validator(mode="after")
    def _one_way(self) -> Self:
        if bool(self.command) == (self.http is not None):
            raise ValueError("give either command or http")
        if not self.answer:
            raise ValueError("answer names no place")
        return self


def _of_header(text: str) -> tuple[str, ...]:
    return templates.mistakes(text, templates.HEADERS, variables=True)


def _of_body(text: str) -> tuple[str, ...]:
    return templates.mistakes(text, templates.REQUEST)


def _texts(value: Any) -> Iterator[str]:
    if isinstance(value, str):
        yield value
    elif isinstance(value, Mapping | list | tuple):
        for item in value.values() if isinstance(value, Mapping) else value:
            yield from _texts(item)


def _refuse(problems: Any) -> None:
    for problem in problems:
        raise ValueError(problem)


def find(name: str) -> Path:
    """Return the file of an agent: a path, or the name of one that comes with the package."""
    path = Path(name).expanduser()
    if path.suffix in {".yaml", ".yml"}:
        return path.absolute()
    ready = READY / f"{name}.yaml"
    if "/" not in name and ready.is_file():
        return ready
    names = ", ".join(sorted(file.stem for file in READY.glob("*.yaml"))) or "none"
    raise ConfigurationError(
        f"agent:{name} is neither a file FILE.yaml nor one that comes with this package ({names})"
    )


def read_agent(path: Path) -> AgentFile:
    """Return the agent in a file; raises ConfigurationError with the lines of all mistakes."""
    try:
        if path.stat().st_size > _MOST_BYTES:
            raise ConfigurationError(f"{path} is longer than {_MOST_BYTES:,} bytes")
        if not path.read_text("utf-8").strip():
            raise ConfigurationError(f"{path}:1: the file is empty; an agent has a command or an http call")
        document = read_document(path)
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigurationError(f"the agent {path} cannot be read: {error}") from error
    except ScenarioFileError as error:
        raise ConfigurationError(str(error)) from error
    problems = list(document.mistakes)
    try:
        agent = AgentFile.model_validate(document.data)
    except ValidationError as error:
        problems += [
            document.at(item["loc"], item["msg"].removeprefix("Value error, "))
            for item in error.errors(include_url=False, include_context=False, include_input=False)
        ]
    if problems:
        raise ConfigurationError("\n".join(problems))
    return agent
