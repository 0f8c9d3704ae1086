"""Where a flag is set: in its default variant, or at a place of its targeting rule.

A rule ``{"if": [condition, variant, …, variant]}`` takes precedence over the default variant, so a flag with
such a rule is set at position 1. A ``null`` there, or a missing last variant, defers to the default variant,
which is then the one to set. With a context the place is the first one that makes flagd answer the variant
there. A ``fractional`` rule splits its users between variants, so it is removed and everyone gets the set
variant. Other rules are refused.
"""

from __future__ import annotations

import copy
from collections.abc import Iterator, Mapping
from typing import Any

from pytest_otel_diag.errors import FlagError
from pytest_otel_diag.flags.evaluator import FlagdEvaluator
from pytest_otel_diag.model.flags import Flag, FlagValue


def switched(flag: Flag, variant: str, context: Mapping[str, FlagValue] | None) -> Flag:
    """Return the flag set to *variant*; raises FlagError for a rule that cannot be set to one variant.

    Without a *context*, or where no place makes flagd answer *variant* there, it is set at the first place.
    """
    if flag.targeting is None or is_fractional(flag.targeting):
        return flag.model_copy(update={"targeting": None, "default_variant": variant})
    candidates = list(_candidates(flag, variant, flag.targeting))
    if context is None:
        return candidates[0]
    served = (each for each in candidates if _answer(each, context) == variant)
    return next(served, candidates[0])


def is_fractional(rule: Any) -> bool:
    """Return whether the rule splits its users between variants, and nothing else."""
    return isinstance(rule, Mapping) and set(rule) == {"fractional"}


def _candidates(flag: Flag, variant: str, targeting: Mapping[str, Any]) -> Iterator[Flag]:
    """Yield the flag set at each place of its rule, the usual one first."""
    arguments = _arguments(flag.key, targeting)
    places = [*range(1, len(arguments), 2), *([len(arguments) - 1] if len(arguments) % 2 else [])]
    deferred = flag.model_copy(update={"default_variant": variant})
    if arguments[1] is None:
        yield deferred
    for place in places:
        if isinstance(arguments[place], str) or is_fractional(arguments[place]):
            changed = [*arguments]
            changed[place] = variant
            yield flag.model_copy(update={"targeting": {"if": copy.deepcopy(changed)}})
    if len(arguments) % 2 == 0 or None in [arguments[place] for place in places]:
        yield deferred


def _arguments(key: str, targeting: Mapping[str, Any]) -> list[Any]:
    """Return the arguments of a rule ``{"if": [condition, variant, …]}``; raises FlagError for other rules.

    The variant may also be a ``fractional`` rule or null.
    """
    arguments = targeting.get("if")
    if set(targeting) != {"if"} or not isinstance(arguments, list) or len(arguments) < 2:
        found = ", ".join(map(repr, targeting))
        raise FlagError(
            f"flag {key!r} has a targeting rule ({found}) that cannot be set to one variant; supported are "
            '{"if": [condition, variant, …]} and {"fractional": …}. Replace the rule, or remove it'
        )
    first = arguments[1]
    if first is not None and not isinstance(first, str) and not is_fractional(first):
        raise FlagError(
            f"flag {key!r} has a rule whose first choice is {first!r}, not a variant; "
            "replace the rule, or remove it"
        )
    return arguments


def _answer(flag: Flag, context: Mapping[str, FlagValue]) -> str:
    return FlagdEvaluator({flag.key: flag}).variant(flag.key, context)
