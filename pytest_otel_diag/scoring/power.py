"""Operating characteristic of the gate: exact probabilities of its outcomes."""

from __future__ import annotations

import math

from pytest_otel_diag.model.base import Model, Ratio
from pytest_otel_diag.scoring.gate import GateCriterion, decide
from pytest_otel_diag.scoring.gate_outcome import GateOutcome
from pytest_otel_diag.stats.intervals import CONFIDENCE, binomial_pmf


class OperatingCharacteristic(Model):
    """Probabilities of the outcomes when the true rate is ``rate`` and ``n`` scenarios run."""

    rate: Ratio
    n: int
    passed: Ratio
    failed: Ratio
    inconclusive: Ratio

    @property
    def flips(self) -> float:
        """Probability that two runs of unchanged code have different outcomes."""
        return max(0.0, 1.0 - self.passed**2 - self.failed**2 - self.inconclusive**2)


def operating_characteristic(
    rate: float, n: int, criterion: GateCriterion, *, confidence: float = CONFIDENCE, deciding: int = 1
) -> OperatingCharacteristic:
    """Return the probability of each outcome of a criterion for unchanged code (an A/A test).

    It sums the binomial probabilities of all numbers of successes by the outcome that they lead to;
    *deciding* is the number of criteria that decide the gate. Raises ValueError for a rate outside 0..1 or n
    below 1.
    """
    if not 0.0 <= rate <= 1.0 or n < 1:
        raise ValueError(f"rate {rate} over {n} runs: give a rate from 0 to 1 and at least 1 run")
    chances: dict[GateOutcome, list[float]] = {}
    for successes in range(n + 1):
        outcome = decide(successes, n, criterion, confidence, deciding)
        chances.setdefault(outcome, []).append(binomial_pmf(successes, n, rate))
    passed, failed, inconclusive = (
        min(1.0, math.fsum(chances.get(outcome, ())))
        for outcome in (GateOutcome.PASS, GateOutcome.FAIL, GateOutcome.INCONCLUSIVE)
    )
    return OperatingCharacteristic(rate=rate, n=n, passed=passed, failed=failed, inconclusive=inconclusive)
