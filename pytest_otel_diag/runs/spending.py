"""Money of a run for analyzers that report what a session cost only when it is over."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from pytest_otel_diag.analyzers.investigator.opening import ModelAnalyzer
from pytest_otel_diag.analyzers.investigator.shared_calls import SharedCalls
from pytest_otel_diag.errors import SpendingLimitReached
from pytest_otel_diag.model.session import SessionResult
from pytest_otel_diag.ports import Analyzer


class RunSpending:
    """Limits the sessions of all processes of a run to *most_usd* together.

    A session is expected to cost as much as the dearest one of this process so far. Models of this package
    pay for each call themselves.
    """

    def __init__(self, run: Path | None, most_usd: float) -> None:
        self._calls = SharedCalls(run)
        self._most_usd = most_usd
        self._dearest_usd = 0.0

    def check_for(self, analyzer: Analyzer) -> Callable[[], None] | None:
        """Return what refuses a session that the run cannot pay, by SpendingLimitReached; None for models."""
        return None if isinstance(analyzer, ModelAnalyzer) else self._check

    def add(self, session: SessionResult) -> None:
        """Count what an ended session says that it cost."""
        cost_usd = max(0.0, session.usage.cost_usd)
        self._dearest_usd = max(self._dearest_usd, cost_usd)
        if cost_usd:
            self._calls.settle(self._calls.reserve(session.analyzer, cost_usd, None), cost_usd)

    def _check(self) -> None:
        spent = self._calls.spent_usd()
        if spent >= self._most_usd or spent + self._dearest_usd > self._most_usd:
            raise SpendingLimitReached(
                f"--otel-diag-max-cost={self._most_usd:g}: {spent:.4g} USD of the run are spent, and a "
                f"session of this analyzer has cost up to {self._dearest_usd:.4g} USD"
            )
