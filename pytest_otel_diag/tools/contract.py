"""What a tool is: a named function over an investigation, whose arguments and result models describe."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from pytest_otel_diag.errors import OtelDiagError
from pytest_otel_diag.model.base import Model
from pytest_otel_diag.ports import Investigation
from pytest_otel_diag.tools.cells import shortened
from pytest_otel_diag.tools.schemas import inlined

_ERROR_CHARACTERS = 4_000


class ToolError(OtelDiagError):
    """A call was refused or failed; the text, shortened, says to a model what it can do about that."""

    def __init__(self, text: str) -> None:
        super().__init__(shortened(text, _ERROR_CHARACTERS))


@dataclass(frozen=True)
class Caps:
    """Limits of a result: rows of a list, characters of its JSON and of one value; seconds of a query."""

    rows: int = 200
    characters: int = 20_000
    cell_characters: int = 2_000
    time_s: float = 30.0

    def __post_init__(self) -> None:
        if self.rows < 1 or self.characters < 4_000 or self.cell_characters < 40 or not self.time_s > 0:
            raise ValueError(
                f"{self} cannot hold a result; allowed are rows from 1, characters from 4,000, "
                "cell_characters from 40, and time_s above 0"
            )


@dataclass
class Answers:
    """The diagnoses that were submitted: the last one as it came, and how many there were."""

    submitted: Mapping[str, Any] | None = None
    count: int = 0

    def accept(self, answer: Mapping[str, Any]) -> None:
        """Keep *answer* in place of an earlier one."""
        self.submitted = answer
        self.count += 1


@dataclass(frozen=True)
class ToolContext:
    """What the tools of one investigation work with."""

    investigation: Investigation
    caps: Caps
    answers: Answers = field(default_factory=Answers)


@dataclass(frozen=True)
class Tool:
    """A function that an agent may call.

    ``description`` is text for a model; ``arguments`` and ``result`` are the models of what goes in and what
    comes out. ``run`` gets validated arguments and raises ToolError, TelemetryError or BudgetExceeded.
    ``signals`` are the signals that it reads, empty where its arguments decide. ``alias_of`` names the tool
    that this one repeats under a name which agents know from elsewhere.
    """

    name: str
    description: str
    arguments: type[Model]
    result: type[Model]
    run: Callable[[ToolContext, Any], Awaitable[Model]]
    signals: tuple[str, ...] = ()
    alias_of: str = ""

    def schema(self) -> dict[str, Any]:
        """Return the JSON schema of the arguments, without references."""
        return inlined(self.arguments.model_json_schema())

    def result_schema(self) -> dict[str, Any]:
        """Return the JSON schema of the result, without references."""
        return inlined(self.result.model_json_schema(mode="serialization"))
