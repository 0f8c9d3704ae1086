"""Opens ``llm:MODEL`` and ``chat:MODEL@URL``: the model, what its calls share with the run, and its tape."""

from __future__ import annotations

import secrets
from collections.abc import Mapping
from pathlib import Path

from pytest_otel_diag.analyzers.investigator.chat_model import ChatModel, ChatRequest
from pytest_otel_diag.analyzers.investigator.litellm_model import LitellmModel
from pytest_otel_diag.analyzers.investigator.loop.investigator import Investigator, InvestigatorSettings
from pytest_otel_diag.analyzers.investigator.model_options import ModelOptions, split_spec
from pytest_otel_diag.analyzers.investigator.openai_http import OpenAiModel
from pytest_otel_diag.analyzers.investigator.shared_calls import SharedCalls
from pytest_otel_diag.analyzers.investigator.shared_model import SharedModel
from pytest_otel_diag.analyzers.investigator.tape import RecordingModel, ReplayedModel
from pytest_otel_diag.config.settings import Settings
from pytest_otel_diag.errors import ConfigurationError
from pytest_otel_diag.model.diagnosis import Diagnosis
from pytest_otel_diag.ports import Investigation

_FIRST_INPUT_TOKENS = 5_000
"""About what the first call of a session reads: prompts and descriptions of tools."""


class ModelAnalyzer:
    """The investigator with a model, whose calls count for the run; *shared* is None for a replayed tape."""

    def __init__(self, investigator: Investigator, shared: SharedModel | None) -> None:
        self._investigator = investigator
        self._shared = shared

    def describe(self) -> Mapping[str, str]:
        """Return what makes two investigators alike."""
        return self._investigator.describe()

    async def prepare(self) -> tuple[str, ...]:
        """Make one call a run to check that the model answers; see :meth:`.SharedModel.prepare`."""
        return () if self._shared is None else await self._shared.prepare()

    async def diagnose(self, investigation: Investigation) -> Diagnosis:
        """Return what the model submits; see :meth:`.Investigator.diagnose`."""
        return await self._investigator.diagnose(investigation)

    async def close(self) -> None:
        """Release what the model holds."""
        await self._investigator.close()


def open_llm(rest: str, settings: Settings) -> ModelAnalyzer:
    """Return the analyzer ``llm:rest``; raises ConfigurationError."""
    name, options = split_spec(rest)
    if not name:
        raise ConfigurationError(
            "llm: needs a model; write llm:PROVIDER/MODEL, for example llm:openai/gpt-5-mini"
        )
    if replayed := _replayed(name, options, settings):
        return replayed
    return _opened(LitellmModel(name, options=options), options, settings)


def open_chat(rest: str, settings: Settings) -> ModelAnalyzer:
    """Return the analyzer ``chat:rest``; raises ConfigurationError."""
    model = OpenAiModel.from_spec(rest, settings)
    return _replayed(model.name, model.options, settings) or _opened(model, model.options, settings)


def _replayed(name: str, options: ModelOptions, settings: Settings) -> ModelAnalyzer | None:
    """Return the analyzer whose model answers from a tape, None where the settings name no tape to replay."""
    kind, folder = _tape(settings)
    if kind != "replay":
        return None
    model = ReplayedModel(name, options.describe(), folder)
    return ModelAnalyzer(Investigator(model, InvestigatorSettings.of(settings, options)), None)


def _opened(model: ChatModel, options: ModelOptions, settings: Settings) -> ModelAnalyzer:
    given = InvestigatorSettings.of(settings, options)
    first = ChatRequest(
        messages=(), max_output_tokens=options.max_output_tokens, most_input_tokens=_FIRST_INPUT_TOKENS
    )
    calls = SharedCalls(settings.run_folder)
    shared = SharedModel(model, calls, most_usd=settings.max_cost, first_call=first)
    kind, folder = _tape(settings)
    if kind != "record":
        return ModelAnalyzer(Investigator(shared, given), shared)
    run = secrets.token_hex(4) if settings.run_folder is None else settings.run_folder.name
    prompts = {"prompts": given.prompts.version}
    return ModelAnalyzer(Investigator(RecordingModel(shared, folder, run, prompts), given), shared)


def _tape(settings: Settings) -> tuple[str, Path]:
    kind, _, folder = settings.llm_tape.partition(":")
    return kind, Path(folder).expanduser().absolute()
