"""What the targeting rule of a flag may answer, read from its JsonLogic without evaluating it."""

from __future__ import annotations

import json
from collections.abc import Collection, Iterator, Mapping, Sequence
from typing import Any

from pytest_otel_diag.model.flags import FlagValue


def probes_of(rule: Any) -> Iterator[dict[str, FlagValue]]:
    """Yield the evaluation contexts that the rule distinguishes.

    One for each literal that it compares a variable with: ``{"==": [{"var": name}, value]}``, ``in``.
    """
    if isinstance(rule, list):
        for part in rule:
            yield from probes_of(part)
    if not isinstance(rule, Mapping):
        return
    for operator, operands in rule.items():
        if operator in {"==", "===", "in"} and isinstance(operands, list) and len(operands) == 2:
            left, right = operands
            yield from _compared(left, right if isinstance(right, list) else [right])
            yield from _compared(right, [left])
        yield from probes_of(operands)


def _compared(variable: Any, literals: Sequence[Any]) -> Iterator[dict[str, FlagValue]]:
    name = variable.get("var") if isinstance(variable, Mapping) else None
    for literal in literals:
        if isinstance(name, str) and isinstance(literal, str | int | float):
            yield {name: literal}


def possible(rule: Any, variants: Collection[str]) -> set[str]:
    """Return the variants that the rule may answer in some context, whatever its conditions say.

    A part that is neither a name, an ``if`` nor a ``fractional`` is computed and may be any variant.
    """
    if rule is None:
        return set()
    if isinstance(rule, str | bool):
        name = json.dumps(rule) if isinstance(rule, bool) else rule
        return {name} & set(variants)
    if not isinstance(rule, Mapping) or len(rule) != 1:
        return set(variants) if rule else set()
    ((operator, operands),) = rule.items()
    if operator == "if" and isinstance(operands, list):
        last = operands[-1:] if len(operands) % 2 else []
        return set().union(*(possible(branch, variants) for branch in [*operands[1::2], *last]))
    if operator == "fractional" and isinstance(operands, list):
        buckets = [part for part in operands if isinstance(part, list) and part]
        return set().union(*(possible(part[0], variants) for part in buckets if part[1:] != [0]))
    return set(variants)
