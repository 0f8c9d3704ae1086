"""What models that wrap another one have in common: they say of themselves what the inner one says."""

from __future__ import annotations

from collections.abc import Mapping

from pytest_otel_diag.analyzers.investigator.chat_model import ChatModel, ChatRequest


class WrappedModel:
    """Forwards all of a :class:`.ChatModel` but its calls: recording and sharing change no answer."""

    def __init__(self, inner: ChatModel) -> None:
        self._inner = inner

    @property
    def name(self) -> str:
        """The name of the model."""
        return self._inner.name

    @property
    def supports_tools(self) -> bool | None:
        """What the model itself says."""
        return self._inner.supports_tools

    def describe(self) -> Mapping[str, str]:
        """Return what the model itself says."""
        return self._inner.describe()

    def worst_case_cost_usd(self, request: ChatRequest) -> float | None:
        """Return what the model itself says."""
        return self._inner.worst_case_cost_usd(request)

    async def close(self) -> None:
        """Close the model."""
        await self._inner.close()
