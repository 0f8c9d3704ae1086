"""Compares two analyzers on the same scenarios with an exact paired test."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence

from pytest_otel_diag.model.base import Model, Ratio
from pytest_otel_diag.model.session import SessionResult
from pytest_otel_diag.scoring.measures import Unit, scored, unit_of
from pytest_otel_diag.scoring.text import count

FEWEST_DISCORDANT = 6
"""2·0.5⁵ = 0.0625: below six discordant pairs no outcome reaches p < .05."""


class PairedComparison(Model):
    """Top-1 of two analyzers on shared scenarios (the same target, id, faults, expectation and timing).

    ``both``, ``only_first``, ``only_second`` and ``neither`` count scenarios by which analyzer was right.
    ``unpaired`` scenarios were scored for one analyzer only; ``undecided`` ones have as many right as wrong
    repeats. ``cases_*`` are the ids of the discordant scenarios.
    """

    both: int
    only_first: int
    only_second: int
    neither: int
    p_value: Ratio
    unpaired: int = 0
    undecided: int = 0
    cases_first: tuple[str, ...] = ()
    cases_second: tuple[str, ...] = ()

    @property
    def pairs(self) -> int:
        """Number of compared scenarios."""
        return self.both + self.only_first + self.only_second + self.neither

    @property
    def note(self) -> str:
        """The conclusion in words."""
        discordant = self.only_first + self.only_second
        if discordant < FEWEST_DISCORDANT:
            return (
                f"{count(discordant, 'discordant pair')}: fewer than {FEWEST_DISCORDANT} cannot reach "
                "p < .05; run more scenarios"
            )
        if self.p_value >= 0.05:
            return f"no difference shown (exact McNemar p = {self.p_value:.3f})"
        better = "first" if self.only_first > self.only_second else "second"
        return f"the {better} is better (exact McNemar p = {self.p_value:.3g})"


def mcnemar_exact(only_first: int, only_second: int) -> float:
    """Return the two-sided exact p-value of McNemar's test.

    Under the null hypothesis each discordant pair falls on either side with probability ½, so
    p = min(1, 2·P(X ≤ min(b, c))) with X ~ Binomial(b + c, ½)  (Q. McNemar, Psychometrika 12, 1947).
    """
    discordant = only_first + only_second
    tail = sum(math.comb(discordant, k) for k in range(min(only_first, only_second) + 1))
    return min(1.0, tail / 2 ** (discordant - 1)) if discordant else 1.0


def compare_paired(first: Iterable[SessionResult], second: Iterable[SessionResult]) -> PairedComparison:
    """Compare top-1 on scenarios with a fault that both sides scored.

    Each scenario is one pair: its repeats are not independent, so their majority counts.
    """
    one, other = _outcomes(first), _outcomes(second)
    shared = [key for key in one if key in other]
    decided = [
        (key.scenario_id, one[key], other[key]) for key in shared if None not in (one[key], other[key])
    ]
    only_first = tuple(name for name, a, b in decided if a and not b)
    only_second = tuple(name for name, a, b in decided if b and not a)
    return PairedComparison(
        both=sum(bool(a and b) for _, a, b in decided),
        only_first=len(only_first),
        only_second=len(only_second),
        neither=sum(not a and not b for _, a, b in decided),
        p_value=mcnemar_exact(len(only_first), len(only_second)),
        unpaired=len(one.keys() ^ other.keys()),
        undecided=len(shared) - len(decided),
        cases_first=only_first,
        cases_second=only_second,
    )


def _outcomes(sessions: Iterable[SessionResult]) -> dict[Unit, bool | None]:
    votes: dict[Unit, list[bool]] = {}
    for session, verdict in scored(sessions):
        if verdict.fault_present:
            votes.setdefault(unit_of(session)._replace(analyzer=""), []).append(verdict.top1)
    return {key: _majority(rights) for key, rights in votes.items()}


def _majority(rights: Sequence[bool]) -> bool | None:
    twice = 2 * sum(rights)
    return None if twice == len(rights) else twice > len(rights)
