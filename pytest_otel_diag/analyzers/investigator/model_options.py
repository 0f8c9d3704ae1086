"""Parameters of a model, as they follow ``#`` in its spec: ``llm:MODEL#temperature=0,stream=true``."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Literal, get_args

from pytest_otel_diag.config.declaration import above_zero, boolean, choice
from pytest_otel_diag.errors import ConfigurationError, nearest

Protocol = Literal["auto", "native", "text"]
"""How the model calls tools: by the provider's API, by the text protocol, or whichever works."""


@dataclass(frozen=True)
class Price:
    """Price in US dollars per million tokens."""

    input: float
    output: float

    def of(self, input_tokens: int, output_tokens: int) -> float:
        """Return the price of so many tokens."""
        return (input_tokens * self.input + output_tokens * self.output) / 1e6

    def __str__(self) -> str:
        return f"{self.input:g}/{self.output:g}"


@dataclass(frozen=True)
class ModelOptions:
    """What the user may set of a model.

    ``temperature`` and ``seed`` are left to the provider where they are None. ``context_tokens`` is the size
    of the model's context where the user knows it. ``stream`` asks for streamed answers. ``price`` replaces
    the known price. ``reasoning_effort`` is left to the provider where it is None. ``api_base`` is the
    provider's address for ``llm:``, without credentials.
    """

    temperature: float | None = None
    seed: int | None = None
    max_output_tokens: int = 8192
    context_tokens: int | None = None
    timeout_s: float = 120.0
    stream: bool = False
    tools: Protocol = "auto"
    price: Price | None = None
    reasoning_effort: str | None = None
    api_base: str | None = None

    def describe(self) -> Mapping[str, str]:
        """Return the values that change answers, as texts; what is not set is left out."""
        shown = (
            "temperature",
            "seed",
            "max_output_tokens",
            "context_tokens",
            "tools",
            "price",
            "reasoning_effort",
            "api_base",
        )
        values = {name: getattr(self, name) for name in shown}
        return {name: str(value) for name, value in values.items() if value is not None}


def split_spec(spec: str) -> tuple[str, ModelOptions]:
    """Return the spec without its options, and the options.

    Raises ConfigurationError for an option that does not exist or whose value cannot be used.
    """
    name, _, text = spec.partition("#")
    given: dict[str, Any] = {}
    for part in filter(None, text.split(",")):
        key, _, value = (piece.strip() for piece in part.partition("="))
        if key not in _PARSERS:
            known = ", ".join(_PARSERS)
            raise ConfigurationError(f"no option {key!r} of a model{nearest(key, _PARSERS)}; known: {known}")
        try:
            given[key] = _PARSERS[key](value)
        except ValueError as error:
            raise ConfigurationError(f"option {key}={value} of the model: {error}") from error
    return name, ModelOptions(**given)


def _temperature(text: str) -> float:
    value = float(text)
    if not 0 <= value <= 2:
        raise ValueError("must be a number from 0 to 2")
    return value


def _address(text: str) -> str:
    if not text.startswith(("http://", "https://")) or "@" in text:
        raise ValueError("must be http://HOST or https://HOST, without credentials")
    return text


def _price(text: str) -> Price:
    """Parse ``IN/OUT``; 0 is free."""
    into, slash, out = text.partition("/")
    try:
        price = Price(float(into), float(out))
    except ValueError:
        slash = ""
    if not slash or not (0 <= price.input < float("inf") and 0 <= price.output < float("inf")):
        raise ValueError("must be IN/OUT in US dollars per million tokens, for example 0.4/1.6")
    return price


_PARSERS: Mapping[str, Callable[[str], Any]] = {
    "temperature": _temperature,
    "seed": int,
    "max_output_tokens": above_zero(int),
    "context_tokens": above_zero(int),
    "timeout_s": above_zero(float),
    "stream": boolean,
    "tools": choice(*get_args(Protocol)),
    "price": _price,
    "reasoning_effort": choice("none", "minimal", "low", "medium", "high"),
    "api_base": _address,
}
assert set(_PARSERS) == {field.name for field in dataclasses.fields(ModelOptions)}
