"""The scorecard as text for terminals and CI logs."""

from __future__ import annotations

import shlex
from collections.abc import Callable
from pathlib import Path

from pytest_otel_diag.reports.blocks import (
    STYLES,
    Block,
    Style,
    blocks,
    brief_blocks,
    facts,
    gate_lines,
    headline,
)
from pytest_otel_diag.reports.html import REPORT_FILE
from pytest_otel_diag.runs.document import RunDocument
from pytest_otel_diag.runs.kept_telemetry import FOLDER, kept_folder, shell_command
from pytest_otel_diag.runs.place import from_here
from pytest_otel_diag.runs.run import Run
from pytest_otel_diag.scoring.scorecard import Scorecard
from pytest_otel_diag.scoring.text import WIDTH, clip, one_line, table, wrapped

MIN_WIDTH = 120
"""Narrower than this, names of scenarios are cut until they look alike; terminals wrap instead."""

ROWS_SHOWN = 40
"""Maximal rows of a table in a log."""

COMMANDS_SHOWN = 5
"""Sessions with kept telemetry for which the summary has the command that opens it."""

Paint = Callable[[str, Style], str]
"""A function that styles one line of text; the renderer does not depend on a terminal."""


def plain(text: str, _style: Style) -> str:
    """Return the text unchanged."""
    return text


def render_scorecard(card: Scorecard, *, width: int = WIDTH, paint: Paint = plain, gated: bool = True) -> str:
    """Return the scorecard as lines of at most *width* columns, with the gate last if enabled."""
    lines = [clip(headline(card), width)]
    for fact in facts(card):
        first, *below = wrapped(fact, width - 4)
        lines += [f"  {first}", *(f"    {line}" for line in below)]
    for block in blocks(card, gated=gated):
        if not block.redundant:
            lines += ["", *_block_lines(block, width, paint)]
    if card.gate is not None and (gate := gate_lines(card, gated=gated)):
        style = STYLES[card.gate.outcome]
        outcome, *reasons = gate
        lines += ["", paint(outcome, style)]
        # Readers act on reasons, so these are never shortened.
        lines += [paint(f"  {one_line(reason)}", style) for reason in reasons]
    return "\n".join(lines)


def render_brief(card: Scorecard, *, width: int = WIDTH, gated: bool = True, scores: bool = True) -> str:
    """Return what fits on a screen for a small run: what decides first, then each test that went wrong.

    With *scores* the measures that decide the gate follow.
    """
    lines = [clip(headline(card), width), *(f"  {one_line(fact)}" for fact in facts(card, brief=True))]
    if gate := gate_lines(card, gated=gated):
        outcome, *reasons = gate
        lines += [f"  {one_line(outcome)}", *(f"    {one_line(reason)}" for reason in reasons)]
    for block in brief_blocks(card, gated=gated, scores=scores):
        lines += ["", *_block_lines(block, width, plain, rows=len(block.rows))]
    return "\n".join(lines)


def _block_lines(block: Block, width: int, paint: Paint, *, rows: int = ROWS_SHOWN) -> list[str]:
    shown = block.rows[:rows]
    header, *lines = table(shown, header=block.header, right=block.right, wrap=block.wrap, width=width)
    painted = [paint(row, block.style(index)) for index, row in enumerate(lines)]
    more = [f"  and {len(block.rows) - rows} more"] if len(block.rows) > rows else []
    return [one_line(block.title), header, *painted, *more, *(f"  ({note})" for note in block.notes)]


def summary(run: Run, width: int, verbosity: int = 0) -> list[str]:
    """Return a finished run as lines for a terminal of *width* columns, and where to read on.

    With a positive *verbosity* that is the whole scorecard, with a negative one no scores.
    """
    if run.document is None:
        return []
    card, gated, room = run.document.scorecard, run.document.gated, max(width, MIN_WIDTH)
    if verbosity > 0:
        text = render_scorecard(card, width=room, gated=gated)
    else:
        text = render_brief(card, width=room, gated=gated, scores=verbosity == 0)
    lines = [*text.splitlines(), *(f"  {one_line(remark)}" for remark in run.document.remarks)]
    if run.inconclusive_accepted:
        lines.append("  accepted, since the settings say inconclusive=pass")
    directory = from_here(run.directory)
    folder = shlex.quote(str(directory))
    whole = [] if verbosity > 0 else [f"all scores: otel-diag report {folder}"]
    return [
        *lines,
        "",
        f"report: {directory / REPORT_FILE}",
        *whole,
        *_by_hand(run.document, run.directory),
    ]


def _by_hand(document: RunDocument, directory: Path) -> list[str]:
    """Return the commands that open the telemetry which the run kept."""
    kept = [one for one in document.sessions if kept_folder(directory, one.session_id).is_dir()]
    lines = [
        f"telemetry of {one_line(session.scenario.id)}: {shell_command(directory, session.session_id)}"
        for session in kept[:COMMANDS_SHOWN]
    ]
    more = [f"telemetry of {len(kept) - COMMANDS_SHOWN} more: in {from_here(directory / FOLDER)}"]
    return lines + (more if len(kept) > COMMANDS_SHOWN else [])


class TextWriter:
    """Writes ``scorecard.txt``."""

    name = "text"

    def write(self, run: RunDocument, directory: Path) -> Path:
        """Write the scorecard as text and return the file."""
        file = directory / "scorecard.txt"
        lines = [f"run {run.manifest.run_id}", *map(one_line, run.remarks)]
        lines += [f"warning: {one_line(w)}" for w in run.warnings]
        file.write_text(
            "\n".join([*lines, render_scorecard(run.scorecard, gated=run.gated), ""]), encoding="utf-8"
        )
        return file
