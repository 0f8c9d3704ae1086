"""The scorecard as Markdown for pull requests and job summaries."""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path

from pytest_otel_diag.reports.blocks import Block, blocks, facts, gate_lines, headline
from pytest_otel_diag.runs.document import RunDocument
from pytest_otel_diag.scoring.scorecard import Scorecard
from pytest_otel_diag.scoring.text import one_line

_SPECIAL = re.compile(r"([\\`*_\[\]<>|#~@!&])")


def escape(text: str) -> str:
    """Escape *text* for Markdown on one line, without markup, mentions and HTML."""
    return _SPECIAL.sub(r"\\\1", one_line(text))


def render_markdown(card: Scorecard, *, gated: bool = True) -> str:
    """Return the scorecard as GitHub-flavoured Markdown."""
    lines = [f"## {escape(headline(card))}", "", *(f"- {escape(fact)}" for fact in facts(card)), ""]
    gate = gate_lines(card, gated=gated)
    if gate:
        lines += [f"**{escape(gate[0])}**", "", *(f"- {escape(reason)}" for reason in gate[1:]), ""]
    for block in blocks(card, gated=gated):
        if block.redundant:
            continue
        lines += [f"### {escape(block.title)}", "", *_block_lines(block), ""]
    return "\n".join(lines)


def _block_lines(block: Block) -> list[str]:
    rule = ["---:" if index in block.right else "---" for index in range(len(block.header))]
    lines = [_row(list(map(escape, block.header))), _row(rule)]
    lines += [_row([escape(cell) or " " for cell in row]) for row in block.rows]
    return [*lines, *(f"\n{escape(note)}" for note in block.notes)]


def _row(cells: Sequence[str]) -> str:
    return f"| {' | '.join(cells)} |"


class MarkdownWriter:
    """Writes ``scorecard.md``."""

    name = "markdown"

    def write(self, run: RunDocument, directory: Path) -> Path:
        """Write the scorecard as Markdown and return the file."""
        file = directory / "scorecard.md"
        alarms = [f"> **{escape(alarm)}**\n" for alarm in run.manifest.alarms]
        warnings = [f"> {escape(warning)}\n" for warning in (*run.remarks, *run.warnings)]
        file.write_text(
            "\n".join([*alarms, *warnings, render_markdown(run.scorecard, gated=run.gated)]), encoding="utf-8"
        )
        return file
