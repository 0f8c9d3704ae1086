"""Checks hints of an investigation path: what they must not say."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Sequence

from pytest_otel_diag.model.scenario import InvestigationStep

_CONFIRMS = re.compile(r"\b(?:faults?|faulty|culprits?|root causes?|broken)\b", re.IGNORECASE)
PLACE = re.compile(r"\{([^{}]*)\}")
"""A service in a hint of a catalog file, by its newest name."""

_PARTS = re.compile(r"[\s._-]+|(?<=[a-z0-9])(?=[A-Z])")


def wrong_hints(
    steps: Sequence[InvestigationStep],
    *,
    flags: Iterable[str],
    variants: Iterable[str] = (),
    culprits: Iterable[str] = (),
    control: bool = False,
) -> Iterator[tuple[int, str]]:
    """Yield each mistake with the number of its step, from 0.

    No hint names one of *flags* or *variants*; only the last one names a service of *culprits*; hints of a
    control do not say that something is wrong. Variants without a digit (``on``) are words of any text.
    """
    named = [(flag, _spelling(flag, ending="s?")) for flag in dict.fromkeys(flags)]
    numbered = [variant for variant in dict.fromkeys(variants) if any(map(str.isdigit, variant))]
    services = [(service, _spelling(service)) for service in dict.fromkeys(culprits)]
    for number, step in enumerate(steps):
        for flag, spelling in named:
            if spelling.search(step.hint):
                yield number, f"the hint names the flag {flag!r}; describe what telemetry shows instead"
        for variant in numbered:
            if re.search(rf"(?<!\w){re.escape(variant)}(?!\w)", step.hint):
                yield number, f"the hint names the variant {variant!r}; describe what telemetry shows instead"
        if control and (found := _CONFIRMS.search(step.hint)):
            yield (
                number,
                f"the hint of a control says {found.group()!r}; it must not say whether anything is wrong",
            )
        if number < len(steps) - 1:
            for service, spelling in services:
                if spelling.search(step.hint):
                    yield (
                        number,
                        f"the hint names {service!r}, the service of the root cause; only the last one may",
                    )


def _spelling(name: str, *, ending: str = "(?:[ _-]?service)?") -> re.Pattern[str]:
    """Return what finds the name with any separators between its words, or none."""
    parts = [re.escape(part) for part in _PARTS.split(name) if part]
    return re.compile(rf"(?<![\w-]){'[ ._-]?'.join(parts)}{ending}(?![\w-])", re.IGNORECASE)
