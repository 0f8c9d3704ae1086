"""The run as one document, and the port that renderings of it implement."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol

from pytest_otel_diag.model.session import SessionResult
from pytest_otel_diag.runs.manifest import Manifest
from pytest_otel_diag.scoring.scorecard import Scorecard


@dataclass(frozen=True)
class RunDocument:
    """Everything known of a run.

    ``warnings`` say what was tolerated while it was read. ``gated`` says whether the gate was asked
    for; renderings show its verdicts either way, its outcome only then.
    """

    manifest: Manifest
    sessions: tuple[SessionResult, ...]
    scorecard: Scorecard
    warnings: tuple[str, ...] = field(default=())

    @property
    def gated(self) -> bool:
        """Whether the gate was asked for."""
        return self.manifest.gated


class ReportWriter(Protocol):
    """Renders a run; found through the entry-point group ``pytest_otel_diag.report_writers``."""

    name: str

    def write(self, run: RunDocument, directory: Path) -> Path:
        """Write one file into *directory* (which exists) and return its path."""
        ...
