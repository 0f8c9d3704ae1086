"""How the chance of a false impact in one wait is shared among its tests and its looks.

The total holds however tests and looks depend on each other, since it is only divided (Boole's inequality):

* **Among tests.** Nine tenths go to the tests of what the scenario expects to see first: the signals that its
  anomalies name for the root causes, evenly. A fault that shows where it should is then found with few
  calls. The last tenth is divided evenly among all other tests of watched services, operations, metrics and
  logs, which show strong faults all the same. The choice is made from scenario and baseline, never from what
  came after.
* **Among looks.** Nine tenths go to the last look, the last tenth evenly to the looks before it. Telemetry
  accumulates, so the last look has most of the power; a strong fault does not need it and ends the wait.
  Metrics are the exception: they come about once a minute, and each point gets the same (:mod:`.evidence`).

The single tests keep their level, exactly (Fisher's test, Mann-Whitney, binomial tails) or on average (mid-p,
see :mod:`pytest_otel_diag.stats.two_sample`). ``benchmarks/impact.py`` measures what is left of it.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from typing import NamedTuple

from pytest_otel_diag.model.diagnosis import Signal
from pytest_otel_diag.model.scenario import Expectation, ExpectedAnomaly
from pytest_otel_diag.scoring.names import same_operation
from pytest_otel_diag.sessions.impact.watchlist import Observed, Watchlist
from pytest_otel_diag.stats.two_sample import Load

EXPECTED_SHARE = 0.9
"""Share of the total that the tests of expected signals get."""

LAST_LOOK_SHARE = 0.9
"""Share of the level of a test that its last look gets."""

SERVICE_SIGNALS = (Signal.ERROR_RATE, Signal.LATENCY, Signal.REQUEST_RATE)
"""Signals that each watched service is compared by."""

SLOW = "slow"
"""The test of an operation for calls far slower than any before; other tests are named by their signal."""

OPERATION_TESTS = (Signal.ERROR_RATE, SLOW, Signal.LATENCY)
"""The tests of an operation."""

LOG_TESTS = ("volume", "severe", "templates")
"""The tests of the log lines of a service."""


class Check(NamedTuple):
    """One test over the whole wait. ``operation`` is spelled as in the expectation, "" for the service."""

    service: str
    kind: str
    operation: str = ""


@dataclass(frozen=True)
class Levels:
    """The chance of a false alarm of each test over the whole wait of ``looks`` looks.

    ``expected`` are the tests with a level of their own; each other test has the level ``other``.
    """

    other: float
    expected: Mapping[Check, float] = field(default_factory=dict)
    looks: int = 1

    def of(self, test: Check) -> float:
        """Return the level of the test over all looks together."""
        return self.expected.get(test, self.other)

    def at(self, test: Check, *, last: bool) -> float:
        """Return the level of the test at one look, the *last* one or any before it."""
        level = self.of(test)
        if self.looks == 1:
            return level
        return level * LAST_LOOK_SHARE if last else level * (1 - LAST_LOOK_SHARE) / (self.looks - 1)


def shared(total: float, expected: Collection[Check], *, tests: int, looks: int) -> Levels:
    """Return the levels of *tests* tests, of which those in *expected* get the larger share."""
    others = tests - len(expected)
    if not expected or others <= 0:
        return Levels(total / max(1, tests), looks=looks)
    each = total * EXPECTED_SHARE / len(expected)
    return Levels(total * (1 - EXPECTED_SHARE) / others, dict.fromkeys(expected, each), looks)


def count_of(watched: Watchlist) -> int:
    """Return how many tests the watchlist makes."""
    return (
        len(OPERATION_TESTS) * len(watched.operations)
        + len(watched.metrics)
        + len(LOG_TESTS) * len(watched.logs)
    )


def expected_checks(
    expectation: Expectation, loads: Mapping[str, Load], watched: Watchlist, before: Observed
) -> tuple[Check, ...]:
    """Return the tests of the signals that the anomalies name for the root causes.

    Where they name none these are the signals of all anomalies, and without those all of the root causes.
    """
    causes = {cause.service for cause in expectation.root_causes}
    named = [one for one in expectation.anomalies if one.signal is not None]
    nearest = [one for one in named if one.service in causes] or named
    finder = _Finder(loads, watched, before)
    found = dict.fromkeys(check for one in nearest for check in finder.of(one))
    return tuple(found) or tuple(
        Check(service, kind) for service in sorted(causes & loads.keys()) for kind in SERVICE_SIGNALS
    )


@dataclass(frozen=True)
class _Finder:
    """Finds the tests that can show an anomaly, given what telemetry held before the fault."""

    loads: Mapping[str, Load]
    watched: Watchlist
    before: Observed

    def of(self, anomaly: ExpectedAnomaly) -> tuple[Check, ...]:
        service, signal, operation = anomaly.service, anomaly.signal, anomaly.operation or ""
        whole = (Check(service, signal),) if signal and service in self.loads else ()
        if signal is Signal.ERROR_RATE:
            return (Check(service, signal, operation),) if self._minor(service, operation) else whole
        if signal is Signal.LATENCY:
            pairs = [
                key for key in self.watched.operations if key[0] == service and key[1] in ("", operation)
            ]
            kinds = (Signal.LATENCY, SLOW)
            return (*whole, *(Check(service, kind, name) for _, name in pairs for kind in kinds))
        if signal is Signal.LOGS:
            return tuple(Check(service, kind) for kind in LOG_TESTS)
        if signal is Signal.REQUEST_RATE:
            return whole
        watches = [one for one in self.watched.metrics if (one.service, one.signal) == (service, signal)]
        return tuple(Check(one.service, one.signal) for one in watches)

    def _minor(self, service: str, operation: str) -> bool:
        """Whether the operation has less than half of the calls of its service, which would hide it."""
        calls = [
            load.calls
            for (name, span), load in self.before.operations.items()
            if operation and name == service and same_operation(operation, span)
        ]
        whole = self.loads.get(service)
        return bool(calls) and (whole is None or 2 * max(calls) < whole.calls)
