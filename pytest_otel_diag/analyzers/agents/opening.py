"""Opens ``command:…``, ``agent:FILE.yaml``, ``http://…``, ``https://…`` and ``aiopslab:…``."""

from __future__ import annotations

from pathlib import Path

from pydantic import ValidationError

from pytest_otel_diag.analyzers.agents.aiopslab import AIOpsLabAnalyzer, agent_factory
from pytest_otel_diag.analyzers.agents.command import CommandAnalyzer, words_of
from pytest_otel_diag.analyzers.agents.definition import AgentFile, HttpCall, find, read_agent
from pytest_otel_diag.analyzers.agents.http import HttpAnalyzer
from pytest_otel_diag.analyzers.agents.question import load_question
from pytest_otel_diag.config.settings import Settings
from pytest_otel_diag.errors import ConfigurationError
from pytest_otel_diag.imports import named_object
from pytest_otel_diag.ports import DescribedAnalyzer


def open_command(rest: str, settings: Settings) -> DescribedAnalyzer:
    """Return the analyzer ``command:rest``; raises ConfigurationError."""
    try:
        agent = AgentFile(command=words_of(rest))
    except ValidationError as error:
        raise ConfigurationError(
            f"command: {error.errors()[0]['msg'].removeprefix('Value error, ')}"
        ) from error
    return _opened(agent, Path.cwd(), settings)


def open_agent(rest: str, settings: Settings) -> DescribedAnalyzer:
    """Return the analyzer ``agent:rest``, described by a file; raises ConfigurationError."""
    file = find(rest)
    return _opened(read_agent(file), file.parent, settings)


def open_http(rest: str, settings: Settings) -> DescribedAnalyzer:
    """Return the analyzer ``http:rest``; raises ConfigurationError."""
    return _opened(AgentFile(http=HttpCall(url=f"http:{rest}")), Path.cwd(), settings)


def open_https(rest: str, settings: Settings) -> DescribedAnalyzer:
    """Return the analyzer ``https:rest``; raises ConfigurationError."""
    return _opened(AgentFile(http=HttpCall(url=f"https:{rest}")), Path.cwd(), settings)


def open_aiopslab(rest: str, settings: Settings) -> DescribedAnalyzer:
    """Return the analyzer ``aiopslab:module:attribute``; raises ConfigurationError."""
    if settings.isolate:
        raise ConfigurationError(
            f"aiopslab:{rest} runs in the process of the tests, which --otel-diag-isolate rules out; leave "
            "that option out, or start the agent as command:… with the gateway"
        )
    found = named_object(rest, "AIOpsLab agent")
    return AIOpsLabAnalyzer(rest, agent_factory(found, rest), steps=settings.llm_steps)


def _opened(agent: AgentFile, folder: Path, settings: Settings) -> DescribedAnalyzer:
    question = load_question(settings.question or (folder / agent.question if agent.question else ""))
    if agent.http is not None:
        return HttpAnalyzer(agent, agent.http, folder=folder, question=question)
    return CommandAnalyzer(agent, folder=folder, question=question, settings=settings)
