"""A run in one JSON file."""

from __future__ import annotations

import json
from pathlib import Path

from pytest_otel_diag.runs.document import RunDocument


class JsonWriter:
    """Writes ``report.json``: manifest, scorecard, sessions and warnings in one object."""

    name = "json"

    def write(self, run: RunDocument, directory: Path) -> Path:
        """Write the run as JSON, escaped to ASCII, and return the file."""
        file = directory / "report.json"
        content = {
            "schema_version": 1,
            "manifest": run.manifest.model_dump(),
            "scorecard": run.scorecard.model_dump(),
            "sessions": [session.model_dump() for session in run.sessions],
            "warnings": list(run.warnings),
        }
        file.write_text(json.dumps(content, indent=1) + "\n", encoding="ascii")
        return file
