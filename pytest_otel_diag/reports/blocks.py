"""A scorecard as titled tables of text: what every rendering shows, said once."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import groupby
from typing import Literal

from pytest_otel_diag.scoring.calibration import Calibration
from pytest_otel_diag.scoring.gate import CriterionResult, GateOutcome
from pytest_otel_diag.scoring.intervals import Summary
from pytest_otel_diag.scoring.measures import Metric
from pytest_otel_diag.scoring.scorecard import GROUP_METRICS, Group, Miss, Scorecard, Unscored

Style = Literal["good", "bad", "warn", "plain"]

STYLES: dict[GateOutcome, Style] = {
    GateOutcome.PASS: "good",
    GateOutcome.FAIL: "bad",
    GateOutcome.INCONCLUSIVE: "warn",
    GateOutcome.INFRASTRUCTURE: "bad",
}

DASH = "–"

_GROUP_HEADER = ("n", "detected", "alarms", "top-1", "interval", "top-3", "Avg@5", "mechanism", "s")

_LEGEND = (
    "a verdict in capitals decides the gate, the others are reported",
    "+k: so many more would decide it, if the rate stayed",
)


@dataclass(frozen=True)
class Block:
    """A table with a title.

    ``right`` lists right-aligned columns, ``keep`` those a narrow page cuts last; ``styles`` has one
    entry a row.
    """

    title: str
    header: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]
    right: tuple[int, ...] = ()
    keep: tuple[int, ...] = ()
    styles: tuple[Style, ...] = ()
    notes: tuple[str, ...] = ()

    def style(self, row: int) -> Style:
        """Return the style of a row."""
        return self.styles[row] if row < len(self.styles) else "plain"


def headline(card: Scorecard) -> str:
    """Return who was measured on what: ``builtin on replay:boutique``."""
    return f"{', '.join(card.analyzers) or 'no analyzer'} on {', '.join(card.targets) or 'no target'}"


def facts(card: Scorecard) -> tuple[str, ...]:
    """Return the lines below the headline: counts, chance, times, repeats."""
    unit = "every run counts" if card.repeats_independent else "repeats of a scenario count once"
    faults = card.scenarios - card.controls
    lines = [
        f"{card.sessions} sessions, {card.scored} scored: {faults} scenarios with a fault, "
        f"{card.controls} controls",
        f"{card.confidence:.0%} Wilson intervals; {unit}",
    ]
    if card.chance_top1 is not None:
        lines.append(f"a guess would reach root cause top-1 {card.chance_top1:.2f}")
    times = (
        ("seconds a session", card.seconds),
        ("seconds to impact", card.seconds_to_impact),
        ("seconds to root cause", card.seconds_to_root_cause),
        ("spurious anomalies a session", card.spurious_anomalies),
    )
    lines += [f"{label}: {_summary(summary)}" for label, summary in times if summary is not None]
    if card.flips is not None:
        flips = card.flips
        lines.append(
            f"repeats: {flips.unstable:.0%} of {flips.scenarios} repeated scenarios change their verdict, "
            f"two repeats differ with chance {flips.disagreement:.2f}"
        )
    return tuple(lines)


def gate_lines(card: Scorecard) -> tuple[str, ...]:
    """Return the gate's outcome and its reasons, the outcome first; empty without a gate."""
    if card.gate is None:
        return ()
    return f"gate: {card.gate.outcome}", *card.gate.reasons


def blocks(card: Scorecard) -> tuple[Block, ...]:
    """Return every table that has rows."""
    shown = (_metrics(card), *_groups(card.groups), *_misses(card.misses), _unscored(card.unscored))
    calibration = () if card.calibration is None else (_calibration(card.calibration),)
    return tuple(block for block in (*shown, *calibration) if block.rows)


def share(value: float | None) -> str:
    """Return a share with two digits, a dash for none."""
    return DASH if value is None else f"{value:.2f}"


def interval(metric: Metric) -> str:
    """Return ``[low, high]``, a dash for none."""
    if metric.low is None or metric.high is None:
        return DASH
    return f"[{metric.low:.2f}, {metric.high:.2f}]"


def _summary(summary: Summary) -> str:
    return f"median {summary.median:.3g}, p90 {summary.p90:.3g}, max {summary.high:.3g} (n={summary.n})"


def _metrics(card: Scorecard) -> Block:
    criteria = {} if card.gate is None else {result.criterion.name: result for result in card.gate.criteria}
    rows, styles = [], []
    for metric in card.metrics:
        result = criteria.get(metric.name)
        if metric.value is None and (result is None or not result.criterion.gates):
            continue
        rows.append(
            (
                metric.label,
                share(metric.value),
                str(metric.n),
                interval(metric),
                result.criterion.target if result is not None else "",
                _outcome(result),
            )
        )
        styles.append(_style(result))
    return Block(
        title="scores",
        header=("metric", "value", "n", "interval", "target", "verdict"),
        rows=tuple(rows),
        right=(1, 2),
        styles=tuple(styles),
        notes=_LEGEND if criteria else (),
    )


def _outcome(result: CriterionResult | None) -> str:
    if result is None:
        return ""
    outcome = str(result.outcome) if result.criterion.gates else str(result.outcome).lower()
    if result.more_needed is not None:
        return f"{outcome} +{result.more_needed}"
    return f"{outcome} +∞" if result.note else outcome


def _style(result: CriterionResult | None) -> Style:
    return STYLES[result.outcome] if result is not None and result.criterion.gates else "plain"


def _groups(groups: Sequence[Group]) -> Iterator[Block]:
    for tag, members in groupby(groups, key=lambda group: group.tag):
        yield Block(
            title=f"by {tag}",
            header=(tag, *_GROUP_HEADER),
            rows=tuple(map(_group, members)),
            right=(1, 2, 3, 4, 6, 7, 8, 9),
            notes=("n: faults + controls; interval: of top-1; s: median seconds a session",),
        )


def _group(group: Group) -> tuple[str, ...]:
    detected, alarms, top1, *others = (group.metric(name) for name in GROUP_METRICS)
    return (
        group.value,
        f"{detected.n}+{alarms.n}",
        *(share(metric.value) for metric in (detected, alarms, top1)),
        interval(top1),
        *(share(metric.value) for metric in others),
        DASH if group.seconds is None else f"{group.seconds.median:.3g}",
    )


def _misses(misses: Sequence[Miss]) -> Iterator[Block]:
    header = ("scenario", "expected", "named", "rank")
    for kind in dict.fromkeys(miss.kind for miss in misses):
        rows = tuple(
            (
                miss.scenario_id,
                " or ".join(miss.expected) or "nothing wrong",
                ", ".join(miss.named) or "nobody",
                DASH if miss.rank is None else str(miss.rank),
            )
            for miss in misses
            if miss.kind == kind
        )
        yield Block(kind, header, rows, right=(3,))


def _unscored(unscored: Sequence[Unscored]) -> Block:
    rows = tuple(
        (str(item.count), str(item.status), str(item.blame or DASH), item.reason, ", ".join(item.scenarios))
        for item in unscored
    )
    return Block("not scored", ("n", "status", "blame", "reason", "scenarios"), rows, (0,), (3,))


def _calibration(calibration: Calibration) -> Block:
    rows = tuple(
        (f"{b.low:.1f}–{b.high:.1f}", str(b.n), share(b.mean_confidence), share(b.accuracy))
        for b in calibration.bins
    )
    return Block(
        title="calibration",
        header=("confidence", "n", "mean", "top-1"),
        rows=rows,
        right=(1, 2, 3),
        notes=(f"Brier {calibration.brier:.3f}, expected error {calibration.expected_error:.3f}",),
    )
