"""``otel-diag report``: a run again, from its folder."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from pytest_otel_diag.reports.terminal import render_scorecard
from pytest_otel_diag.reports.writers import report_writers
from pytest_otel_diag.runs.directory import read_run

Echo = Callable[[str], object]


def report(directory: Path, output: str, echo: Echo) -> None:
    """Print the scorecard, or write the rendering *output* and print its path; raises RunUnreadable."""
    run = read_run(directory)
    if output == "text":
        for warning in run.warnings:
            echo(f"warning: {warning}")
        echo(render_scorecard(run.scorecard, gated=run.gated))
        return
    for writer in report_writers([output]):
        echo(str(writer.write(run, directory)))
