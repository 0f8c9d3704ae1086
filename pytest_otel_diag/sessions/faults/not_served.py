"""Explains why a flag is not served as it was set, and what to do about it."""

from __future__ import annotations

import json
from collections.abc import Mapping

from pytest_otel_diag.model.flags import Flag, FlagValue
from pytest_otel_diag.model.session import Witness

RULE_CHARS = 400
"""Longest rule that is shown in full."""


def reason(proof: Witness, flag: Flag | None, context: Mapping[str, FlagValue], *, unreadable: bool) -> str:
    """Return ``flag=variant (last answer; cause; remedy)``.

    *flag* is what the document holds now, *context* the one in which the flag was asked. *unreadable* says
    that the last read failed.
    """
    cause = _cause(proof, flag, context, unreadable=unreadable)
    return f"{proof.flag}={proof.variant} ({proof.detail}; {cause})"


def disabled(flag: Flag) -> str:
    """Return why a DISABLED flag cannot be turned on."""
    return (
        f"{flag.key} is DISABLED, so services get their own defaults whatever its variant; set its state to "
        "ENABLED"
    )


def _cause(proof: Witness, flag: Flag | None, context: Mapping[str, FlagValue], *, unreadable: bool) -> str:
    if flag is None:
        return "another client removed the flag from the document"
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
        return (
            f"{asked}; the document has {flag.default_variant!r}: another client changed the flag, stop that "
            "client"
        )
    return (
        f"{asked}; the document has {flag.default_variant!r} and no rule, so flagd evaluates another "
        "document: check that flagd reads this one, and its log for a document it refused"
    )


def compact(value: object) -> str:
    """Return JSON in one line, of bounded length."""
    text = json.dumps(value, ensure_ascii=False, separators=(",", ":"), default=str)
    return text if len(text) <= RULE_CHARS else f"{text[:RULE_CHARS]}…"
