"""Measures whether one expected deviation is visible in telemetry.

It is deliberately independent of analyzers and of the impact detector: it knows the claim and measures only
the place where it must show. The thresholds are what a person would see in a chart: half as many requests
again, a latency of three times the slowest one so far, a level beyond all previous ones.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from typing import Any

from pytest_otel_diag.model.diagnosis import Signal
from pytest_otel_diag.model.scenario import ExpectedAnomaly
from pytest_otel_diag.model.windows import Window
from pytest_otel_diag.ports import Telemetry
from pytest_otel_diag.statements import load
from pytest_otel_diag.stats.two_sample import count_p, fisher_p

ALPHA = 1e-3
"""Significance level of differences."""

MEDIAN_RATIO = 1.25
RATE_RATIO = 1.5
LINES_RATIO = 3.0
MUCH_SLOWER = 3.0
MUCH_SLOWER_CALLS = 2

_FAMILIES: Mapping[Signal, tuple[str, float]] = {
    Signal.CPU: (r"(^|[._])cpu([._]|$)", 1.5),
    Signal.MEMORY: (r"memory|heap|(^|[._])rss", 1.2),
    Signal.GC: (r"(^|[._])gc([._]|$)|garbage", 3.0),
    Signal.QUEUE: (r"lag|queue|backlog", 1.5),
    Signal.NETWORK: (r"network|connection|socket", 1.5),
    Signal.METRIC: (r".", 1.5),
}
"""The metrics of a signal, and the factor by which their level must leave its range."""

_EPSILON = 1e-9


@dataclass(frozen=True)
class Measured:
    """The measurement of one claim: whether it is ``visible``, with the numbers."""

    claim: ExpectedAnomaly
    visible: bool
    detail: str


@dataclass(frozen=True)
class _Question:
    telemetry: Telemetry
    claim: ExpectedAnomaly
    quiet: Window
    then: Window

    async def ask(self, name: str, **more: Any) -> list[dict[str, Any]]:
        parameters = {
            "service": self.claim.service,
            "quiet_start": self.quiet.start_ns,
            "quiet_end": self.quiet.end_ns,
            "then_start": self.then.start_ns,
            "then_end": self.then.end_ns,
            **more,
        }
        table = await self.telemetry.query(load(__package__, name).sql, parameters)
        return list(table.dicts())

    def points(self, up: bool) -> bool:
        """Return whether a change in this direction is the claimed one."""
        return self.claim.direction in (None, "changed", "up" if up else "down")


async def measure(telemetry: Telemetry, claim: ExpectedAnomaly, quiet: Window, then: Window) -> Measured:
    """Measure *claim* in the window *then* compared with *quiet*; raises TelemetryError."""
    question = _Question(telemetry, claim, quiet, then)
    if claim.signal is None:
        return await _anything(question)
    return await _HOW[claim.signal](question)


async def _anything(question: _Question) -> Measured:
    """Measure a claim without a signal: errors, latency or rate of the service suffice."""
    found = [await how(question) for how in (_errors, _latency, _rate)]
    return next((one for one in found if one.visible), found[0])


async def _spans(question: _Question) -> dict[str, Any]:
    (row,) = await question.ask("spans", operation=question.claim.operation or "")
    return row


async def _errors(question: _Question) -> Measured:
    row = await _spans(question)
    before, then = row["failed_before"], row["failed_then"]
    n_before, n_then = row["n_before"], row["n_then"]
    more = question.points(up=True) and fisher_p(before, n_before, then, n_then) < ALPHA
    less = question.points(up=False) and fisher_p(then, n_then, before, n_before) < ALPHA
    return Measured(question.claim, more or less, f"failed {before} of {n_before} → {then} of {n_then}")


async def _latency(question: _Question) -> Measured:
    row = await _spans(question)
    before, then = row["median_before"], row["median_then"]
    slower = faster = tail = False
    if row["n_before"] and row["n_then"]:
        far_ms = MUCH_SLOWER * row["slowest_before"]
        (test,) = await question.ask("shift", operation=question.claim.operation or "", far_ms=far_ms)
        slower = test["p"] < ALPHA and then > before * MEDIAN_RATIO
        faster = test["p"] < ALPHA and then * MEDIAN_RATIO < before
        tail = test["far"] >= MUCH_SLOWER_CALLS
    visible = (question.points(up=True) and (slower or tail)) or (question.points(up=False) and faster)
    detail = (
        f"median {before:.4g} → {then:.4g} ms, slowest {row['slowest_before']:.4g} → "
        f"{row['slowest_then']:.4g} ms (n {row['n_before']} → {row['n_then']})"
    )
    return Measured(question.claim, bool(visible), detail)


async def _rate(question: _Question) -> Measured:
    row = await _spans(question)
    return _counted(question, "spans", row["n_before"], row["n_then"], RATE_RATIO)


async def _logs(question: _Question) -> Measured:
    rows = await question.ask("logs")
    warnings = [row for row in rows if row["warning"]]
    total = _counted(
        question,
        "warnings and errors",
        sum(row["n_before"] for row in warnings),
        sum(row["n_then"] for row in warnings),
        LINES_RATIO,
    )
    if total.visible:
        return total
    for row in rows:
        level = ALPHA / len(rows)  # Bonferroni correction for the number of texts
        line = _counted(question, repr(row["text"][:60]), row["n_before"], row["n_then"], LINES_RATIO, level)
        if line.visible:
            return line
    return total


def _counted(
    question: _Question, what: str, before: int, then: int, ratio: float, level: float = ALPHA
) -> Measured:
    before_s, then_s = question.quiet.duration_s, question.then.duration_s
    rate_before, rate_then = before / before_s, then / then_s
    unlikely = count_p(before, before_s, then, then_s) < level
    up = question.points(up=True) and rate_then > rate_before * ratio
    down = question.points(up=False) and rate_then * ratio < rate_before
    detail = f"{what} {60 * rate_before:.3g} → {60 * rate_then:.3g} a minute"
    return Measured(question.claim, unlikely and (up or down), detail)


async def _level(question: _Question) -> Measured:
    assert question.claim.signal is not None
    family, ratio = _FAMILIES[question.claim.signal]
    rows: list[dict[str, Any]] = []
    schema = await question.telemetry.schema()
    for name in ("gauge", "sum", "histogram"):
        if schema.has(f"otel_metrics_{name}"):
            rows += await question.ask(name, family=family)
    found = [_moved(question, row, ratio) for row in rows]
    if not found:
        return Measured(question.claim, False, "no metric of this kind in both windows")
    return max(found, key=lambda one: (one[0].visible, one[1]))[0]


def _moved(question: _Question, row: Mapping[str, Any], ratio: float) -> tuple[Measured, float]:
    """Return the measurement of one series and its distance from its range, to report the largest."""
    if row["counts"]:
        before = (row["added_before"] or 0.0) / question.quiet.duration_s
        then = (row["added_then"] or 0.0) / question.then.duration_s
        unit, lowest = "a second", before
    else:
        before, then, unit, lowest = row["high_before"], row["high_then"], "at most", row["low_before"]
    up = then > before * ratio + _EPSILON
    down = then * ratio + _EPSILON < lowest
    visible = (question.points(up=True) and up) or (question.points(up=False) and down)
    detail = f"{row['metric']} {before:.4g} → {then:.4g} {unit}"
    return Measured(question.claim, visible, detail), then / before if before > 0 else then


async def _restarts(question: _Question) -> Measured:
    rows = await question.ask("instances")
    new = [row["instance"] for row in rows if row["n_then"] and not row["n_before"]]
    known = sum(1 for row in rows if row["n_before"])
    return Measured(question.claim, bool(new and known), f"{known} instances known, {len(new)} new")


_HOW: Mapping[Signal, Callable[[_Question], Awaitable[Measured]]] = {
    Signal.ERROR_RATE: _errors,
    Signal.LATENCY: _latency,
    Signal.REQUEST_RATE: _rate,
    Signal.CALLS: _rate,
    Signal.LOGS: _logs,
    Signal.RESTART: _restarts,
    **dict.fromkeys(_FAMILIES, _level),
}
