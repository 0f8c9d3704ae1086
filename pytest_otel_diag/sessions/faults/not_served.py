"""Why a flag is not served as it was set: rule, state, reader; with the way out."""

from __future__ import annotations

import json
from collections.abc import Mapping

from pytest_otel_diag.model.flags import Flag, FlagValue
from pytest_otel_diag.model.session import Witness

RULE_CHARS = 400
"""Longest rule that is shown; the rest of a longer one is left out."""


def reason(proof: Witness, flag: Flag | None, context: Mapping[str, FlagValue], *, unreadable: bool) -> str:
    """Return ``flag=variant (what it answers, why, the way out)``; *flag* is what is written now.

    *unreadable* says that the last read brought no answer at all.
    """
    return (
        f"{proof.flag}={proof.variant} ({proof.detail}; {_why(proof, flag, context, unreadable=unreadable)})"
    )


def disabled(flag: Flag) -> str:
    """Return why a flag that is DISABLED cannot be turned on."""
    return (
        f"{flag.key} is DISABLED, so services get their own defaults whatever its variant; set its state to "
        "ENABLED"
    )


def _why(proof: Witness, flag: Flag | None, context: Mapping[str, FlagValue], *, unreadable: bool) -> str:
    if flag is None:
        return "the flag is gone from the document: somebody else wrote it"
    if not flag.enabled:
        return disabled(flag)
    asked = f"asked with the context {compact(context)}"
    if unreadable:
        return (
            f"{asked}; flags cannot be read back: check that the place where they are evaluated "
            "(--otel-diag-flagd) is reachable"
        )
    if flag.targeting:
        return (
            f"its rule decides: {compact(flag.targeting)}, {asked}; change the rule, or give the fault the "
            "context in which its service asks (context of the fault in a scenario file)"
        )
    if flag.default_variant != proof.variant:
        return f"{asked}; {flag.default_variant!r} is written: somebody else changed the flag, stop what does"
    return (
        f"{asked}; {flag.default_variant!r} is written and has no rule, so what is evaluated is another "
        "document: check that flagd reads this one, and its log for a document it refused"
    )


def compact(value: object) -> str:
    """Return JSON in one line, of bounded length."""
    text = json.dumps(value, ensure_ascii=False, separators=(",", ":"), default=str)
    return text if len(text) <= RULE_CHARS else f"{text[:RULE_CHARS]}…"
