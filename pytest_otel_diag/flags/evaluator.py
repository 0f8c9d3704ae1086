"""The one door to flagd's real evaluator, openfeature-flagd-core, loaded when a document is first used."""

from __future__ import annotations

import json
from collections.abc import Mapping
from functools import cache
from typing import Any

from pytest_otel_diag.extras import require
from pytest_otel_diag.model.flags import Evaluation, Flag

_KINDS: Mapping[type, str] = {
    bool: "boolean",
    int: "integer",
    float: "float",
    str: "string",
    dict: "object",
}


@cache
def _library() -> tuple[Any, Any]:
    core = require("openfeature.contrib.tools.flagd.core", "shop", "evaluating flagd's rules")
    context = require("openfeature.evaluation_context", "shop", "evaluating flagd's rules")
    return core.FlagdCore, context.EvaluationContext


class FlagdEvaluator:
    """Evaluates the flags of one document as an in-process flagd does.

    References to shared rules must be resolved in ``flags``. Rules that use ``$flagd.timestamp`` get wall
    time, which the library reads itself.
    """

    def __init__(self, flags: Mapping[str, Flag]) -> None:
        core, self._context = _library()
        self._core = core()
        # As text, since the library keeps and changes objects it gets; only the evaluated members, since it
        # refuses others that the schema allows, such as the description of a flag.
        self._core.set_flags(json.dumps({"flags": {key: _evaluated(flag) for key, flag in flags.items()}}))
        self._flags = flags
        self._resolvers = {
            kind: getattr(self._core, f"resolve_{name}_value") for kind, name in _KINDS.items()
        }

    def resolve(self, key: str, default: Any, context: Mapping[str, Any]) -> Evaluation:
        """Evaluate the flag as an SDK does that requests the type of *default*.

        ``fractional`` rules use the context's ``targetingKey``. A rule that raises, names no variant, or
        yields another type gives the default with reason ERROR.
        """
        resolver = self._resolvers[type(default)]
        try:
            details = resolver(key, default, self._context(context.get("targetingKey"), context))
        except (
            Exception
        ):  # rules may divide by zero or use unknown operators; an SDK then answers the default
            return Evaluation(default, "", "ERROR")
        return Evaluation(details.value, details.variant or "", str(details.reason))

    def variant(self, key: str, context: Mapping[str, Any]) -> str:
        """Return the variant of a known flag whatever its type, as OFREP does; empty where it has none."""
        # The library checks types: its floats include booleans, and a flag may mix types.
        kinds = {type(value): value for value in self._flags[key].variants.values()}
        defaults = [value if isinstance(value, str | dict) else 0.0 for value in kinds.values()]
        found = (self.resolve(key, default, context).variant for default in defaults)
        return next((variant for variant in found if variant), "")


def _evaluated(flag: Flag) -> dict[str, Any]:
    return {
        "state": "ENABLED" if flag.enabled else "DISABLED",
        "variants": flag.variants,
        "defaultVariant": flag.default_variant,
        "targeting": flag.targeting,
    }
