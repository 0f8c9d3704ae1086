"""Checks the faults of a scenario and resolves them to changes of the target's flags."""

from __future__ import annotations

from collections.abc import Sequence

from pytest_otel_diag.errors import ScenarioError, nearest
from pytest_otel_diag.model.flags import Flag, FlagChange, FlagDocument
from pytest_otel_diag.model.scenario import Fault

OFF = "off"
"""Name of the variant that turns a fault off."""


def resolve_faults(faults: Sequence[Fault], document: FlagDocument) -> tuple[FlagChange, ...]:
    """Return the changes that make the faults; raises ScenarioError listing every unknown name."""
    changes, mistakes = [], []
    for fault in faults:
        flag = document.flags.get(fault.flag)
        if fault.flag in document.unusable:
            mistakes.append(f"flag {fault.flag!r} cannot be used: {document.unusable[fault.flag]}")
            continue
        if flag is None:
            known = ", ".join(sorted(document.flags)) or "none"
            mistakes.append(
                f"no flag {fault.flag!r}{nearest(fault.flag, document.flags)}; the target has: {known}"
            )
            continue
        variant, mistake = _variant(fault, flag)
        steps = (_unknown(flag, step.variant) for step in fault.steps)
        mistakes.extend(found for found in (mistake, *steps) if found)
        changes.append(FlagChange(key=fault.flag, variant=variant, context=dict(fault.context) or None))
    if mistakes:
        raise ScenarioError("; ".join(mistakes))
    return tuple(changes)


def _variant(fault: Fault, flag: Flag) -> tuple[str, str]:
    """Return the variant to set, and what is wrong with it ('' when nothing)."""
    if fault.variant is not None:
        return fault.variant, _unknown(flag, fault.variant)
    off = OFF if OFF in flag.variants else flag.default_variant
    others = [name for name in flag.variants if name != off]
    if "on" in others:
        return "on", ""
    if len(others) == 1:
        return others[0], ""
    names = ", ".join(flag.variants)
    return "", f"flag {flag.key!r} needs a variant, write {flag.key}=VARIANT; it has: {names}"


def _unknown(flag: Flag, variant: str) -> str:
    """Return what is wrong with the variant, '' when the flag has it."""
    if variant in flag.variants:
        return ""
    guess, names = nearest(variant, flag.variants), ", ".join(flag.variants)
    return f"flag {flag.key!r} has no variant {variant!r}{guess}; it has: {names}"
