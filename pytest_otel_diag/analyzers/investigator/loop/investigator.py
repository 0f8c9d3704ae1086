"""The analyzer: lets a model investigate with tools until it submits a diagnosis."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Self

from pytest_otel_diag.analyzers.investigator.chat_model import ChatModel
from pytest_otel_diag.analyzers.investigator.loop.hypotheses import HypothesisLog
from pytest_otel_diag.analyzers.investigator.loop.limits import Limits
from pytest_otel_diag.analyzers.investigator.loop.protocols import NativeProtocol, TextProtocol, ToolProtocol
from pytest_otel_diag.analyzers.investigator.loop.run import InvestigationRun, Setup
from pytest_otel_diag.analyzers.investigator.model_options import ModelOptions
from pytest_otel_diag.analyzers.investigator.prompts import Prompts, load_prompts
from pytest_otel_diag.analyzers.investigator.retries import RetryPolicy
from pytest_otel_diag.config.settings import Settings
from pytest_otel_diag.model.diagnosis import Diagnosis
from pytest_otel_diag.ports import Investigation
from pytest_otel_diag.tools import TOOLS, Caps, version_of

VERSION = "1"
"""Version of the loop; another one may reach other diagnoses with the same model and prompts."""

_CHARACTERS, _LEAST_CHARACTERS = 12_000, 4_000
_ROWS = 100


@dataclass(frozen=True)
class InvestigatorSettings:
    """What the user may set of the investigator beside its model."""

    options: ModelOptions = field(default_factory=ModelOptions)
    limits: Limits = field(default_factory=Limits)
    prompts: Prompts = field(default_factory=load_prompts)
    policy: RetryPolicy = field(default_factory=RetryPolicy)

    @classmethod
    def of(cls, settings: Settings, options: ModelOptions) -> Self:
        """Return the settings of a run; raises ConfigurationError for prompts that cannot be used."""
        folder = Path(settings.llm_prompts).expanduser() if settings.llm_prompts else None
        return cls(
            options=options,
            limits=Limits(steps=settings.llm_steps, tokens=settings.llm_tokens),
            prompts=load_prompts(folder),
        )

    @property
    def caps(self) -> Caps:
        """Limits of a result of a tool: a quarter of a context of known size, at most."""
        context = self.options.context_tokens
        return Caps(
            rows=_ROWS,
            characters=_CHARACTERS if context is None else min(_CHARACTERS, max(_LEAST_CHARACTERS, context)),
        )


class Investigator:
    """An analyzer that drives a chat model over the tools of the door.

    One object serves sessions in several threads; an investigation keeps its state to itself.
    """

    def __init__(
        self,
        model: ChatModel,
        settings: InvestigatorSettings | None = None,
        *,
        monotonic: Callable[[], float] = time.monotonic,
    ) -> None:
        self._model = model
        self._settings = settings or InvestigatorSettings()
        self._monotonic = monotonic
        self._native = self._settings.options.tools != "text"

    def describe(self) -> Mapping[str, str]:
        """Return what makes two investigators alike: model, parameters, prompts, tools, limits."""
        limits = self._settings.limits
        tools = (*TOOLS, *HypothesisLog(_unrecorded).tools())
        return {
            **self._model.describe(),
            "investigator": VERSION,
            "prompts": self._settings.prompts.version,
            "tool texts": version_of(tools),
            "steps": str(limits.steps),
            "tokens": str(limits.tokens),
        }

    async def diagnose(self, investigation: Investigation) -> Diagnosis:
        """Return what the model submits.

        Raises AnalyzerError for a refusal or an answer that cannot be read, BudgetExceeded for an
        investigation that ended without an answer, ModelUnavailable for a provider that does not answer.
        """
        settings = self._settings
        setup = Setup(
            model=self._model,
            options=settings.options,
            limits=settings.limits,
            prompts=settings.prompts,
            policy=settings.policy,
            caps=settings.caps,
            monotonic=self._monotonic,
        )
        native = self._native and self._model.supports_tools is not False
        protocol: ToolProtocol = NativeProtocol() if native else TextProtocol()
        run = InvestigationRun(setup, protocol, investigation)
        try:
            return await run.run()
        finally:
            if isinstance(run.protocol, TextProtocol):
                self._native = False  # the next investigation need not try again

    async def close(self) -> None:
        """Release what the model holds."""
        await self._model.close()


async def _unrecorded(_: Mapping[str, object]) -> None:
    """Record nothing."""
