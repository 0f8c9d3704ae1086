"""The scorecard as text for terminals and CI logs."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from pytest_otel_diag.reports.blocks import STYLES, Block, Style, blocks, facts, gate_lines, headline
from pytest_otel_diag.runs.document import RunDocument
from pytest_otel_diag.runs.run import Run
from pytest_otel_diag.scoring.scorecard import Scorecard
from pytest_otel_diag.scoring.text import WIDTH, clip, one_line, table, wrapped

MIN_WIDTH = 120
"""Narrower than this, names of scenarios are cut until they look alike; terminals wrap instead."""

ROWS_SHOWN = 40
"""Maximal rows of a table in a log."""

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


def _block_lines(block: Block, width: int, paint: Paint) -> list[str]:
    shown = block.rows[:ROWS_SHOWN]
    header, *rows = table(shown, header=block.header, right=block.right, wrap=block.wrap, width=width)
    lines = [one_line(block.title), header]
    lines += [paint(row, block.style(index)) for index, row in enumerate(rows)]
    if len(block.rows) > ROWS_SHOWN:
        lines.append(f"  and {len(block.rows) - ROWS_SHOWN} more")
    return [*lines, *(f"  ({note})" for note in block.notes)]


def summary(run: Run, width: int) -> list[str]:
    """Return the scorecard of a finished run as lines for a terminal of *width* columns, and its folder."""
    if run.document is None:
        return []
    lines = render_scorecard(
        run.document.scorecard, width=max(width, MIN_WIDTH), gated=run.document.gated
    ).splitlines()
    if run.inconclusive_accepted:
        lines.append("  accepted, since the settings say inconclusive=pass")
    return [*lines, "", f"run kept in {run.directory}"]


class TextWriter:
    """Writes ``scorecard.txt``."""

    name = "text"

    def write(self, run: RunDocument, directory: Path) -> Path:
        """Write the scorecard as text and return the file."""
        file = directory / "scorecard.txt"
        lines = [f"run {run.manifest.run_id}", *(f"warning: {one_line(w)}" for w in run.warnings)]
        file.write_text(
            "\n".join([*lines, render_scorecard(run.scorecard, gated=run.gated), ""]), encoding="utf-8"
        )
        return file
