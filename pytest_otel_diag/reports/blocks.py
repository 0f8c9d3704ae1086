"""A scorecard as titled text tables, which all renderings share."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import groupby
from typing import Literal

from pytest_otel_diag.scoring.calibration import Calibration
from pytest_otel_diag.scoring.gate import CriterionResult
from pytest_otel_diag.scoring.gate_outcome import GateOutcome
from pytest_otel_diag.scoring.measures import Metric
from pytest_otel_diag.scoring.scorecard import (
    GROUP_METRICS,
    Miss,
    Refuted,
    Scorecard,
    TagGroup,
    Ungated,
    Unscored,
)
from pytest_otel_diag.scoring.text import count, one_line
from pytest_otel_diag.stats.intervals import Summary

Style = Literal["good", "bad", "warn", "plain"]

STYLES: dict[GateOutcome, Style] = {
    GateOutcome.PASS: "good",
    GateOutcome.FAIL: "bad",
    GateOutcome.INCONCLUSIVE: "warn",
    GateOutcome.INFRASTRUCTURE: "bad",
    GateOutcome.INTERRUPTED: "warn",
}

DASH = "–"

REFUTED_SHOWN = 10
"""Refuted claims that a summary of a run lists."""

_FIRST = {tag: place for place, tag in enumerate(("analyzer", "category", "severity", "flag"))}

_GROUP_HEADER = ("n", "detected", "alarms", "top-1", "interval", "top-3", "Avg@5", "mechanism", "s")

_CAPITALS = "an outcome in capitals decides the gate, the others are only reported"
_MORE = "+k: so many more would decide it, if the rate stayed"


@dataclass(frozen=True)
class Block:
    """A table with a title.

    ``right`` lists right-aligned columns; with ``wrap`` the last column is prose, which is wrapped instead of
    shortened; ``styles`` has one entry per row. ``redundant`` marks a table that repeats other tables, for
    renderings with little space. ``sessions`` are the ids of the sessions that the rows are about, if each is
    about one.
    """

    title: str
    header: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]
    right: tuple[int, ...] = ()
    wrap: bool = False
    styles: tuple[Style, ...] = ()
    notes: tuple[str, ...] = ()
    redundant: bool = False
    sessions: tuple[str, ...] = ()

    def style(self, row: int) -> Style:
        """Return the style of a row."""
        return self.styles[row] if row < len(self.styles) else "plain"


def headline(card: Scorecard) -> str:
    """Return analyzer and target: ``builtin on replay:boutique``."""
    if card.sessions == 0:
        return "no sessions"
    return f"{', '.join(card.analyzers)} on {', '.join(card.targets)}"


def facts(card: Scorecard, *, brief: bool = False) -> tuple[str, ...]:
    """Return the lines below the headline: counts, random guess, times, repeats; *brief*: counts, repeats."""
    if card.sessions == 0:
        return ()
    if brief:
        return tuple(
            f"{part.analyzers[0]}: {fact}" if card.by_analyzer else fact
            for part in card.by_analyzer or (card,)
            for fact in (_counts(part), *_astray(part), *_guided(part), *_usage(part), *_repeats(part))
        )
    lines = [_counts(card)] if not card.by_analyzer else [_ran(card)]
    if card.scored:
        unit = "every run counts" if card.repeats_independent else "repeats of a scenario count once"
        lines.append(f"{card.confidence:.0%} Wilson intervals; {unit}")
    if card.by_analyzer:
        lines.append(f"{len(card.by_analyzer)} analyzers, each measured and gated on its own")
        return (
            *lines,
            *(
                f"{part.analyzers[0]}: {fact}"
                for part in card.by_analyzer
                for fact in (_counts(part), *_own_facts(part))
            ),
        )
    return (*lines, *_own_facts(card))


def _ran(card: Scorecard) -> str:
    return f"{count(card.sessions, 'session')}, {card.scored} scored"


def _counts(card: Scorecard) -> str:
    if card.scored == 0:
        return _ran(card)
    faults = count(card.scenarios - card.controls, "scenario")
    return f"{_ran(card)}: {faults} with a fault, {count(card.controls, 'control')}"


def _own_facts(card: Scorecard) -> list[str]:
    """Return the lines about one analyzer."""
    lines = []
    if card.chance_top1 is not None:
        lines.append(f"a random guess reaches root cause top-1 {card.chance_top1:.2f}")
    times = (
        ("seconds per session", card.seconds),
        ("seconds to impact", card.seconds_to_impact),
        (
            "seconds to the right root cause (to impact on the target's clock + analysis in wall time)",
            card.seconds_to_root_cause,
        ),
        ("spurious anomalies per session", card.spurious_anomalies),
    )
    lines += [f"{label}: {_summary(summary)}" for label, summary in times if summary is not None]
    return [*lines, *_astray(card), *_guided(card), *_usage(card), *_repeats(card)]


def _astray(card: Scorecard) -> list[str]:
    """Return how often texts led the analyzer astray: a scorecard of such sessions alone has no table."""
    for metric in card.metrics:
        if metric.name == "led_astray" and metric.value is not None:
            tried = count(metric.n, "scenario")
            return [f"{metric.label}: {share(metric.value)} of {tried} with texts, {interval(metric)}"]
    return []


def _guided(card: Scorecard) -> list[str]:
    if not card.human_prompts:
        return []
    return [f"{count(card.human_prompts, 'human prompt')}: the scores are those of a guided analyzer"]


def _usage(card: Scorecard) -> list[str]:
    per_solved = card.cost_per_solved_usd
    parts = [
        count(card.prompts, "prompt") if card.prompts else "",
        f"{card.tokens:,} tokens" if card.tokens else "",
        f"{card.cost_usd:.4g} USD" if card.cost_usd else "",
        f"{per_solved:.4g} USD for each fault solved" if per_solved is not None else "",
    ]
    used = ", ".join(part for part in parts if part)
    return [f"the analyzer says it used {used}"] if used else []


def _repeats(card: Scorecard) -> list[str]:
    flips = card.flips
    if flips is None:
        return []
    changed = ", ".join(flips.unstable_scenarios)
    return [
        f"repeats: {len(flips.unstable_scenarios)} of {count(flips.scenarios, 'repeated scenario')} "
        f"changed the verdict, two repeats differ with chance {flips.disagreement:.2f}"
        + (f": {changed}" if changed else "")
    ]


def gate_lines(card: Scorecard, *, gated: bool = True) -> tuple[str, ...]:
    """Return the outcome of the gate and its reasons, the outcome first; empty without a gate.

    Without the gate, only reasons that invalidate the run are returned, as a warning.
    """
    if card.gate is None:
        return ()
    if gated:
        return f"gate: {card.gate.outcome}", *card.gate.reasons
    if card.gate.outcome is GateOutcome.INFRASTRUCTURE:
        return "warning: this run says little about the analyzer", *card.gate.reasons
    return ()


def blocks(card: Scorecard, *, gated: bool = True) -> tuple[Block, ...]:
    """Return all tables with rows, analyzer by analyzer; without scored sessions no tables of scores.

    What went wrong comes first.
    """
    if card.by_analyzer:
        parts = _titled(card, lambda part: blocks(part, gated=gated))
        return (*(_groups(card.groups) if card.scored else ()), *parts)
    shown = _wrong(card)
    if card.scored:
        shown += [_metrics(card, gated=gated), *_groups(card.groups)]
    shown.append(_ungated(card.ungated))
    if card.calibration is not None:
        shown.append(_calibration(card.calibration))
    return tuple(block for block in shown if block.rows)


def brief_blocks(card: Scorecard, *, gated: bool = True, scores: bool = True) -> tuple[Block, ...]:
    """Return the tables for one screen: what went wrong, and with *scores* those that decide the gate."""
    if card.by_analyzer:
        compared = tuple(_groups(card.groups)) if card.scored and scores else ()
        return (*_titled(card, lambda part: brief_blocks(part, gated=gated, scores=False)), *compared)
    shown = _wrong(card)
    if card.scored and scores:
        shown.append(_metrics(card, gated=gated, deciding=True))
    return tuple(block for block in shown if block.rows)


def _titled(card: Scorecard, make: Callable[[Scorecard], Iterable[Block]]) -> list[Block]:
    """Return the tables of each analyzer, its name in their titles."""
    return [
        replace(block, title=f"{part.analyzers[0]}: {block.title}")
        for part in card.by_analyzer
        for block in make(part)
    ]


def _wrong(card: Scorecard) -> list[Block]:
    return [_misses(card.misses), _unscored(card.unscored), _refuted(card.refuted)]


def share(value: float | None) -> str:
    """Return a share with two digits, a dash for None."""
    return DASH if value is None else f"{value:.2f}"


def interval(metric: Metric) -> str:
    """Return ``[low, high]``, a dash for None."""
    if metric.low is None or metric.high is None:
        return DASH
    return f"[{metric.low:.2f}, {metric.high:.2f}]"


def _summary(summary: Summary) -> str:
    return f"median {summary.median:.3g}, p90 {summary.p90:.3g}, max {summary.high:.3g} (n={summary.n})"


def _metrics(card: Scorecard, *, gated: bool, deciding: bool = False) -> Block:
    """Return the table of scores, with *deciding* only those that decide the gate."""
    criteria = {} if card.gate is None else {result.criterion.name: result for result in card.gate.criteria}
    rows, styles = [], []
    for metric in card.metrics:
        result = criteria.get(metric.name)
        decides = result is not None and result.criterion.gates
        if not decides and (deciding or metric.value is None):
            continue
        rows.append(
            (
                metric.label,
                share(metric.value),
                str(metric.n),
                interval(metric),
                result.criterion.target if result is not None else "",
                _outcome(result, gated=gated),
            )
        )
        styles.append(_style(result, gated=gated))
    return Block(
        title="scores",
        header=("metric", "value", "n", "interval", "target", "verdict"),
        rows=tuple(rows),
        right=(1, 2),
        styles=tuple(styles),
        notes=((_CAPITALS, _MORE) if gated else (_MORE,)) if criteria else (),
    )


def _outcome(result: CriterionResult | None, *, gated: bool) -> str:
    if result is None:
        return ""
    outcome = str(result.outcome) if gated and result.criterion.gates else str(result.outcome).lower()
    if result.more_needed is not None:
        return f"{outcome} +{result.more_needed}"
    undecidable = result.note and result.outcome is not GateOutcome.INTERRUPTED
    return f"{outcome} +∞" if undecidable else outcome


def _style(result: CriterionResult | None, *, gated: bool) -> Style:
    decides = gated and result is not None and result.criterion.gates
    return STYLES[result.outcome] if decides and result is not None else "plain"


def _groups(groups: Sequence[TagGroup]) -> Iterator[Block]:
    # Tags of the catalog come first, other tags by name; values keep their order.
    ranked = sorted(groups, key=lambda group: (_FIRST.get(group.tag, len(_FIRST)), group.tag))
    for tag, found in groupby(ranked, key=lambda group: group.tag):
        # A value without scored sessions would be a row of dashes; "not scored" lists these sessions.
        members = [group for group in found if group.scenarios]
        yield Block(
            title=f"by {tag}",
            header=(tag, *_GROUP_HEADER),
            rows=tuple(map(_group, members)),
            right=(1, 2, 3, 4, 6, 7, 8, 9),
            notes=("n: faults + controls; interval: of top-1; s: median seconds per session",),
            redundant=len(members) < 2,
        )


def _group(group: TagGroup) -> tuple[str, ...]:
    detected, alarms, top1, *others = (group.metric(name) for name in GROUP_METRICS)
    return (
        group.value,
        f"{detected.n}+{alarms.n}",
        *(share(metric.value) for metric in (detected, alarms, top1)),
        interval(top1),
        *(share(metric.value) for metric in others),
        DASH if group.seconds is None else f"{group.seconds.median:.3g}",
    )


def _misses(misses: Sequence[Miss]) -> Block:
    rows = tuple((one_line(miss.test_id or miss.scenario_id), str(miss.kind), miss.reason) for miss in misses)
    ids = tuple(miss.session_id for miss in misses)
    return Block("missed or failed", ("test", "outcome", "why"), rows, wrap=True, sessions=ids)


def _refuted(refuted: Sequence[Refuted]) -> Block:
    rows = tuple(
        (one_line(claim.test_id or claim.scenario_id), str(claim.kind), claim.cited, claim.found)
        for claim in refuted[:REFUTED_SHOWN]
    )
    more = len(refuted) - len(rows)
    notes = (f"and {more} more, on the pages of their sessions",) if more > 0 else ()
    header = ("test", "outcome", "cited", "telemetry")
    return Block("evidence that telemetry refutes", header, rows, wrap=True, notes=notes)


def _unscored(unscored: Sequence[Unscored]) -> Block:
    rows = tuple(
        (str(item.count), str(item.status), str(item.blame or DASH), ", ".join(item.scenarios), item.reason)
        for item in unscored
    )
    return Block("not scored", ("n", "status", "blame", "scenarios", "reason"), rows, (0,), wrap=True)


def _ungated(ungated: Sequence[Ungated]) -> Block:
    rows = tuple(
        (item.scenario_id, str(item.scored), str(item.detected), str(item.top1), item.reason)
        for item in ungated
    )
    header = ("scenario", "scored", "detected", "top-1", "why it does not count")
    return Block("not in the gate", header, rows, (1, 2, 3), wrap=True)


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
