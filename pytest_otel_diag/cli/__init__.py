"""The otel-diag command: recordings, run, report, doctor."""

from __future__ import annotations

import sys

from pytest_otel_diag.errors import OtelDiagError


def main() -> None:
    """Run the command; an error of ours is one readable message and exit code 2."""
    from pytest_otel_diag.cli.app import app

    try:
        app()
    except OtelDiagError as error:
        sys.stderr.write(f"otel-diag: {error}\n")
        sys.exit(2)
