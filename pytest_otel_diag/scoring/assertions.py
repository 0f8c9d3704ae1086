"""Assertions of tests about a diagnosed session; failures show expected, found, nearest and evidence."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from enum import StrEnum
from typing import NoReturn, TypeVar

from pytest_otel_diag.errors import ConfigurationError, OtelDiagError, nearest
from pytest_otel_diag.model.diagnosis import (
    Anomaly,
    CriticalPath,
    Diagnosis,
    Direction,
    Mechanism,
    RootCause,
    Signal,
)
from pytest_otel_diag.model.scenario import ExpectedAnomaly
from pytest_otel_diag.model.session import SessionResult, Status
from pytest_otel_diag.model.verdict import Verdict
from pytest_otel_diag.scoring.findings import anomaly_rows, cause_rows
from pytest_otel_diag.scoring.judge import (
    NAMED_WITHIN,
    describe_anomaly,
    describe_expected,
    matches_anomaly,
    sub_path,
)
from pytest_otel_diag.scoring.names import ServiceNames, same_operation
from pytest_otel_diag.scoring.text import clip, count, one_line, table

_Term = TypeVar("_Term", bound=StrEnum)

SHOWN = 5
"""Number of findings that a failure message lists."""


SUMMARY_CHARS = 400
"""Characters of the analyzer's own summary that a failure message has."""


class DiagnosisMissed(AssertionError):
    """The diagnosis differs from what the test expects; the message is a table, ``line`` its gist."""

    def __init__(self, message: str, line: str = "") -> None:
        super().__init__(message)
        self.line = line or message.partition("\n")[0]


class SessionNotScored(OtelDiagError):
    """The session has no diagnosis to make assertions about."""

    def __init__(self, message: str, status: Status) -> None:
        super().__init__(message)
        self.status = status


class DiagnosedSession:
    """A session result with assertions.

    Service names match in any spelling that is unambiguous among the services of the session. Assertions
    raise DiagnosisMissed when the diagnosis differs, and SessionNotScored without a diagnosis.
    """

    def __init__(self, result: SessionResult) -> None:
        self.result = result

    @property
    def status(self) -> Status:
        """How the session ended."""
        return self.result.status

    @property
    def diagnosis(self) -> Diagnosis:
        """The diagnosis of the analyzer; raises SessionNotScored when the session was not scored."""
        __tracebackhide__ = True
        result = self.result
        if result.diagnosis is None or result.status is not Status.SCORED:
            blame = f" ({result.blame})" if result.blame is not None else ""
            raise SessionNotScored(
                f"session {result.session_id} of {result.scenario.id} is {result.status}{blame}, not scored: "
                f"{result.reason or 'no reason was given'}",
                result.status,
            )
        return result.diagnosis

    @property
    def verdict(self) -> Verdict:
        """The comparison with the expectation; raises SessionNotScored without one."""
        __tracebackhide__ = True
        _ = self.diagnosis
        if self.result.verdict is None:
            raise SessionNotScored(
                f"session {self.result.session_id} of {self.result.scenario.id} has no verdict; "
                "it was diagnosed but not judged",
                self.result.status,
            )
        return self.result.verdict

    @property
    def detected(self) -> bool:
        """Whether the analyzer reports a fault."""
        __tracebackhide__ = True
        return self.diagnosis.detected

    @property
    def anomalies(self) -> tuple[Anomaly, ...]:
        """Anomalies that the analyzer found."""
        __tracebackhide__ = True
        return self.diagnosis.anomalies

    @property
    def root_causes(self) -> tuple[RootCause, ...]:
        """Root cause candidates, best first."""
        __tracebackhide__ = True
        return self.diagnosis.root_causes

    @property
    def paths(self) -> tuple[CriticalPath, ...]:
        """Critical paths that the analyzer found."""
        __tracebackhide__ = True
        return self.diagnosis.critical_paths

    def named(self, service: str, *, top: int = NAMED_WITHIN) -> bool:
        """Return whether *service* is among the first *top* services named as root cause.

        Raises ConfigurationError for a service unknown to the session, for which False would be misleading.
        """
        __tracebackhide__ = True
        names = self._names((service,))
        self._must_exist(service)
        return names.canonical(service) in self._ranking(names)[:top]

    def assert_detected(self) -> None:
        """Assert that the analyzer reports a fault."""
        __tracebackhide__ = True
        if not self.detected:
            self._miss("no fault was detected", "a fault", "nothing wrong", cause_rows(self.root_causes))

    def assert_healthy(self) -> None:
        """Assert that the analyzer reports no fault."""
        __tracebackhide__ = True
        if self.detected:
            found = f"a fault, confidence {self.diagnosis.confidence:.2f}"
            rows = cause_rows(self.root_causes) or anomaly_rows(self.anomalies)
            self._miss("a fault was reported where there is none", "nothing wrong", found, rows)

    def assert_anomaly(
        self,
        *,
        service: str,
        signal: Signal | str | None = None,
        operation: str | None = None,
        direction: Direction | None = None,
    ) -> None:
        """Assert that an anomaly of *service* was found; omitted arguments match anything."""
        __tracebackhide__ = True
        expected = ExpectedAnomaly(
            service=service,
            signal=None if signal is None else _member(Signal, signal),
            operation=operation,
            direction=direction,
        )
        names = self._names((service,))
        if any(matches_anomaly(expected, anomaly, names) for anomaly in self.anomalies):
            return
        close = [anomaly for anomaly in self.anomalies if names.same(service, anomaly.service)]
        hint = describe_anomaly(close[0]) if close else self._spelling(service)
        self._miss(
            "the anomaly was not found",
            describe_expected(expected),
            _others([describe_anomaly(anomaly) for anomaly in self.anomalies], "anomalies", "matches"),
            anomaly_rows(close or self.anomalies),
            hint,
        )

    def assert_path(self, *services: str) -> None:
        """Assert that a critical path passes through *services* in this order; hops between are allowed."""
        __tracebackhide__ = True
        if not services:
            raise ConfigurationError(
                "assert_path() needs services, for example assert_path('frontend', 'cart')"
            )
        names = self._names(services)
        if any(sub_path(services, path.services, names) is not None for path in self.paths):
            return
        wanted = {names.canonical(service) for service in services}

        def shared(path: CriticalPath) -> int:
            return len(wanted & {names.canonical(service) for service in path.services})

        best = max(self.paths, key=shared, default=None)
        near = " → ".join(best.services) if best is not None and shared(best) else ""
        rows = [[path.priority, " → ".join(path.services)] for path in self.paths]
        self._miss(
            "no critical path passes here",
            " → ".join(services),
            _others([" → ".join(path.services) for path in self.paths], "paths", "is in this order"),
            [["priority", "path"], *rows] if rows else [],
            near,
        )

    def assert_root_cause(
        self,
        service: str,
        operation: str | None = None,
        mechanism: Mechanism | str | None = None,
        *,
        top: int = 1,
    ) -> None:
        """Assert that *service*, with operation and mechanism if given, is among the first *top* named."""
        __tracebackhide__ = True
        kind = None if mechanism is None else _member(Mechanism, mechanism)
        names = self._names((service,))
        leading = self._ranking(names)[:top]
        own = [cause for cause in self.root_causes if names.same(service, cause.service)]
        right = [
            cause
            for cause in own
            if (operation is None or same_operation(operation, cause.operation))
            and kind in (None, cause.mechanism)
        ]
        if right and names.canonical(service) in leading:
            return
        expected = " ".join(part for part in (service, operation, kind) if part)
        near = self._place((right or own)[0]) if own else self._spelling(service)
        self._miss(
            "the root cause was not named",
            f"{expected}, in the first {top}" if top > 1 else f"{expected}, first",
            ", ".join(leading) if leading else "no root cause",
            cause_rows(self.root_causes),
            near,
        )

    def assert_not_blamed(self, service: str, *, top: int = 1) -> None:
        """Assert that *service* is not among the first *top* services named as root cause."""
        __tracebackhide__ = True
        if not self.named(service, top=top):
            return
        names = self._names((service,))
        blamed = next(cause for cause in self.root_causes if names.same(service, cause.service))
        self._miss(
            "an innocent service was blamed",
            f"{service} not in the first {top}" if top > 1 else f"{service} not first",
            self._place(blamed),
            cause_rows(self.root_causes),
        )

    def assert_query_shows(self, text: str) -> None:
        """Assert that the diagnostic query ran and one of its first rows contains *text*."""
        __tracebackhide__ = True
        query = self.verdict.query
        expected = f"a row that contains {text!r}"
        if query is None:
            self._miss("the diagnosis has no diagnostic query", expected, "no query", [])
        if not query.executed:
            self._miss("the diagnostic query did not run", expected, query.error or "not executed", [])
        if any(text.casefold() in cell.casefold() for row in query.sample for cell in row):
            return
        rows = [list(query.columns), *(list(row) for row in query.sample[:SHOWN])]
        self._miss(
            "the diagnostic query does not show it",
            expected,
            f"{count(query.rows, 'row')} without it in the first {len(query.sample)}",
            rows if query.sample else [],
        )

    def assert_grounded(self) -> None:
        """Assert that telemetry confirms some of the evidence that is cited, and refutes none of it."""
        __tracebackhide__ = True
        grounding = self.verdict.grounding
        expected = "evidence that telemetry confirms"
        if grounding is None:
            self._miss("the evidence was not checked", expected, "no check of the evidence", [])
        if grounding.grounded:
            return
        wrong = [claim for claim in grounding.claims if claim.outcome == "refuted"]
        shown = wrong or grounding.claims
        rows = [[claim.place, claim.cited, claim.found] for claim in shown]
        what = "the evidence is not real" if grounding.refuted else "the evidence is not confirmed"
        near = f"cited {wrong[0].cited}; {wrong[0].found}" if wrong else ""
        header = ["where", "cited", "telemetry"]
        self._miss(what, expected, grounding.described, [header, *rows] if rows else [], near)

    def assert_expected(self) -> None:
        """Assert what the scenario expects of detection and root causes."""
        __tracebackhide__ = True
        verdict = self.verdict
        if not verdict.fault_present:
            self.assert_healthy()
            return
        self.assert_detected()
        if verdict.causes_expected == 0:
            return
        causes = self.result.scenario.expectation.root_causes
        wanted = " or ".join(dict.fromkeys(cause.service for cause in causes))
        if verdict.named_red_herring is not None:
            self._expected_miss("a red herring was named first", f"{wanted}, first")
        if not verdict.top1:
            self._expected_miss("the root cause was not named first", f"{wanted}, first")
        if verdict.causes_named < verdict.causes_expected:
            wanted = " and ".join(dict.fromkeys(cause.service for cause in causes))
            self._expected_miss("not every root cause was named", wanted)

    def _expected_miss(self, what: str, expected: str) -> NoReturn:
        __tracebackhide__ = True
        rank = self.verdict.service_rank
        names = self._names(())
        self._miss(
            what,
            expected,
            ", ".join(self._ranking(names)[:NAMED_WITHIN]) or "no root cause",
            cause_rows(self.root_causes),
            "not named at all" if rank is None else f"rank {rank} of {len(self._ranking(names))}",
        )

    def _names(self, asked: Iterable[str]) -> ServiceNames:
        """Return the services that the judge knew, else those that the diagnosis names."""
        verdict = self.result.verdict
        known = verdict.known_services if verdict is not None else ()
        if known:
            return ServiceNames(known, verdict.parts if verdict else None).including(asked)
        diagnosis = self.diagnosis
        used = [cause.service for cause in diagnosis.root_causes]
        used += [anomaly.service for anomaly in diagnosis.anomalies]
        used += [service for path in diagnosis.critical_paths for service in path.services]
        return ServiceNames(used).including(asked)

    def _seen(self) -> ServiceNames:
        """Return the services of the session and of its expectation: a faulty service may emit nothing."""
        expectation = self.result.scenario.expectation
        expected = [cause.service for cause in expectation.root_causes] + list(expectation.red_herrings)
        return self._names(expected)

    def _spelling(self, service: str) -> str:
        """Return the nearest spelling for an unknown service, empty for a known one."""
        seen = self._seen()
        return "" if seen.resolve(service) is not None else nearest(service, seen.known).strip(" ()")

    def _must_exist(self, service: str) -> None:
        __tracebackhide__ = True
        seen = self._seen()
        if self.verdict.known_services and seen.resolve(service) is None:
            raise ConfigurationError(
                f"no service {service!r} in session {self.result.session_id}{nearest(service, seen.known)}; "
                f"choose from {', '.join(sorted(seen.known))}"
            )

    def _ranking(self, names: ServiceNames) -> list[str]:
        return list(dict.fromkeys(names.canonical(cause.service) for cause in self.root_causes))

    def _place(self, cause: RootCause) -> str:
        parts = (cause.service, cause.operation, cause.mechanism)
        shown = " ".join(part for part in parts if part)
        score = f" (score {cause.score:.3g})" if cause.score else ""
        return f"#{self.root_causes.index(cause) + 1} {shown}{score}"

    def _miss(
        self, what: str, expected: str, found: str, rows: Sequence[Sequence[str]], near: str = ""
    ) -> NoReturn:
        __tracebackhide__ = True
        result = self.result
        facts = [["expected", expected], ["found", found]]
        if near:
            facts.append(["nearest", near])
        if result.diagnosis is not None and result.diagnosis.summary:
            facts.append(["analyzer", clip(result.diagnosis.summary, SUMMARY_CHARS)])
        lines = [
            # never clipped: readers act on this line
            one_line(f"{what} ({result.scenario.id} on {result.target}, analyzer {result.analyzer})"),
            *table(facts, wrap=True),
        ]
        if rows:
            shown = table(rows[1 : SHOWN + 1], header=rows[0], wrap=True, indent=4)
            lines += ["  evidence", *shown]
            left = len(rows) - SHOWN - 1
            if left > 0:
                lines.append(f"    and {left} more")
        lines.append(f"  session   {one_line(result.session_id)}")
        raise DiagnosisMissed("\n".join(lines), one_line(f"{what}: expected {expected}, found {found}"))


def _others(found: Sequence[str], kind: str, wanted: str) -> str:
    """Return what was found instead: itself where that is one, else how many of the *kind*."""
    if len(found) == 1:
        return found[0]
    return f"{len(found)} {kind}, none of them {wanted}" if found else f"no {kind}"


def _member(taxonomy: type[_Term], name: str) -> _Term:
    """Return the member with value *name*; raises ConfigurationError with the known values."""
    known = [str(member) for member in taxonomy]
    if str(name) not in known:
        raise ConfigurationError(
            f"no {taxonomy.__name__.lower()} {str(name)!r}{nearest(str(name), known)}; "
            f"choose from {', '.join(known)}"
        )
    return taxonomy(name)
