"""What explains a missing impact: an expected service or operation, with its calls and those it needs."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from pytest_otel_diag.model.diagnosis import Signal
from pytest_otel_diag.model.session import ImpactReason
from pytest_otel_diag.sessions.impact.comparison import Comparison
from pytest_otel_diag.sessions.impact.deviations import Measurement
from pytest_otel_diag.sessions.impact.levels import Check
from pytest_otel_diag.stats.sample_size import Needed
from pytest_otel_diag.stats.two_sample import Load, error_p

_SUGGESTIVE = 0.05
"""p-value of errors up to which the answer is open: too large for an impact, too small for no effect."""


@dataclass(frozen=True)
class Subject:
    """A service, or an operation that a service's other calls would hide, with its calls.

    ``effect`` is the rise of the error ratio that the ``needed`` calls show.
    """

    service: str | None
    name: str
    before: Load | None
    after: Load | None
    needed: Needed
    effect: float

    @property
    def calls(self) -> int:
        """Calls since the fault began."""
        return self.after.calls if self.after is not None else 0

    @property
    def calls_before(self) -> int:
        """Calls of the baseline."""
        return self.before.calls if self.before is not None else 0

    @property
    def decided(self) -> bool:
        """Whether the calls are enough, so that an effect would have shown."""
        return self.calls >= self.needed.calls and self.calls_before >= self.needed.baseline

    @property
    def eta_s(self) -> float | None:
        """Seconds until the calls needed will have been made, at the rate before and since together."""
        known = [load for load in (self.before, self.after) if load is not None]
        calls = sum(load.calls for load in known)
        missing = max(0, self.needed.calls - self.calls)
        return missing * sum(load.seconds for load in known) / calls if calls and self.before else None

    @property
    def numbers(self) -> str:
        """The failed calls since the fault began and before it, in words."""
        return f"{self.name} fails {_of(self.after)} calls, before {_of(self.before)}"

    def reason(self) -> tuple[ImpactReason, str]:
        """Return why no impact is visible, with its sentence."""
        if not self.calls:
            return ImpactReason.NO_TRAFFIC, self._no_traffic()
        if self.before is None:
            lacking = (
                f"{self.name} fails {_of(self.after)} calls, with no call before the fault to compare with"
            )
            return ImpactReason.TOO_RARE, f"{lacking}; {self._longer_baseline()}"
        if self.decided:
            return (
                ImpactReason.NO_EFFECT,
                f"{self.numbers}: {self.calls} calls of {self.name} look like the baseline",
            )
        if self.calls_before < self.needed.baseline:
            return ImpactReason.TOO_RARE, f"{self.numbers}; {self._longer_baseline()}"
        return ImpactReason.TOO_RARE, f"{self.numbers}; {self._more_calls()}"

    def _no_traffic(self) -> str:
        if self.before is None:
            return f"no call of {self.name} since the fault began, and none before it"
        when = "" if self.eta_s is None else f", the rest at the rate seen in about {self.eta_s:.0f} s"
        return f"no call of {self.name} since the fault began; needs about {self.needed.calls}{when}"

    def _longer_baseline(self) -> str:
        calls = self.needed.baseline
        rate = self.before.rate if self.before is not None else 0.0
        after_rate = self.after.rate if self.after is not None else 0.0
        times = (
            f"baseline_s to about {calls / rate:.0f} s and impact_timeout_s to about "
            f"{self.needed.calls / after_rate:.0f} s"
            if rate and after_rate
            else "baseline_s"
        )
        return (
            f"to show {self.effect:.0%} more failures it needs about {calls} calls before the fault and "
            f"{self.needed.calls} since; lengthen {times}"
        )

    def _more_calls(self) -> str:
        when = "" if self.eta_s is None else f", the rest at the rate seen in about {self.eta_s:.0f} s"
        return (
            f"to show {self.effect:.0%} more failures it needs about {self.needed.calls} calls, has "
            f"{self.calls}{when}; lengthen impact_timeout_s or drive traffic"
        )


def _of(load: Load | None) -> str:
    return f"{load.errors} of {load.calls}" if load is not None else "0 of 0"


def subject_of(comparison: Comparison, seen: Measurement, service: str | None) -> Subject:
    """Return the service as a subject, or the operation that the scenario expects to fail in it."""
    check = next(
        (one for one in comparison.levels.expected if one.service == service and one.operation),
        Check(service or "", Signal.ERROR_RATE),
    )
    before, after, name = _loads(comparison, seen, check)
    needed, effect = comparison.needed(check, before), comparison.effect
    if before is not None and after is not None and error_p(before, after) <= _SUGGESTIVE:
        risen = max(0.01, after.error_ratio - before.error_ratio)
        more = comparison.needed(check, before, effect=risen) if risen < effect else needed
        enough = after.calls >= more.calls and before.calls >= more.baseline
        # A rise that does not show in the calls that should suffice came out low: one call more is undecided.
        needed, effect = Needed(after.calls + 1, before.calls) if enough else more, min(risen, effect)
    return Subject(service, name or "any service", before, after, needed, effect)


def _loads(comparison: Comparison, seen: Measurement, check: Check) -> tuple[Load | None, Load | None, str]:
    if check.operation and seen.observed is not None:
        spans: Mapping[tuple[str, str], Load] = {
            span: load
            for span, load in comparison.evidence.before.operations.items()
            if comparison.evidence.watched.matches(check.service, check.operation, span)
        }
        span = max(spans, key=lambda one: spans[one].calls, default=None)
        if span is not None:
            return spans[span], seen.observed.operations.get(span), f"{span[1]} of {span[0]}"
    return comparison.loads.get(check.service), seen.loads.get(check.service), check.service


def explaining(comparison: Comparison, seen: Measurement) -> Subject:
    """Return the subject that explains best why no impact is visible.

    It is a root cause, or another expected service where no root cause has a call since: the fault may have
    cut it off. Of several it is the one that lacks the largest share of its calls. Without expected services
    it is the busiest one.
    """
    if not comparison.expected:
        return subject_of(comparison, seen, _busiest(comparison, seen.loads))
    subjects = [subject_of(comparison, seen, name) for name in sorted(comparison.expected)]
    causes = [one for one in subjects if one.service in comparison.causes]
    candidates = (
        [one for one in causes if one.calls] or [one for one in subjects if one.calls] or causes or subjects
    )
    open_ones = [one for one in candidates if not one.decided] or candidates
    return min(open_ones, key=lambda one: (one.before is None, one.calls / one.needed.calls))


def _busiest(comparison: Comparison, after: Mapping[str, Load]) -> str | None:
    def calls(name: str) -> tuple[int, int, str]:
        now, before = after.get(name), comparison.loads.get(name)
        return (now.calls if now else 0, before.calls if before else 0, name)

    return max(frozenset(comparison.loads) | frozenset(after), key=calls, default=None)
