"""The document of a run, and the port of the writers that render it."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol

from pytest_otel_diag.model.session import SessionResult
from pytest_otel_diag.runs.manifest import Manifest
from pytest_otel_diag.scoring.scorecard import Scorecard


@dataclass(frozen=True)
class RunDocument:
    """Everything known about a run.

    ``warnings`` name the faults that were tolerated in its files. Renderings always show the gate's verdicts,
    but its outcome only if ``gated``.
    """

    manifest: Manifest
    sessions: tuple[SessionResult, ...]
    scorecard: Scorecard
    warnings: tuple[str, ...] = field(default=())

    @property
    def remarks(self) -> tuple[str, ...]:
        """What a reader has to know about how the answers came about."""
        return tuple(
            f"the model's answers of {analyzer.id} are {analyzer.details['tape']}: no provider was asked, "
            "and the cost is that of the recording"
            for analyzer in self.manifest.analyzers
            if "tape" in analyzer.details
        )

    @property
    def gated(self) -> bool:
        """Whether the user asked for the gate."""
        return self.manifest.gated


class ReportWriter(Protocol):
    """Renders a run; found through the entry-point group ``pytest_otel_diag.report_writers``."""

    name: str

    def write(self, run: RunDocument, directory: Path) -> Path:
        """Write one file into *directory* (which exists) and return its path."""
        ...
