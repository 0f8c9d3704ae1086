"""The ``otel-diag`` command."""

from __future__ import annotations

import io
import logging
import sys
from pathlib import Path

from pytest_otel_diag.errors import OtelDiagError


def main() -> None:
    """Run the command; an error that this package raises is printed as one message, with exit code 2."""
    from pytest_otel_diag.cli.app import app
    from pytest_otel_diag.cli.spelling import as_typed

    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="replace")  # for terminals without arrows and dashes
    sys.path.insert(0, str(Path.cwd()))  # analyzers in the working directory are found, as pytest finds them
    logging.getLogger("clickhouse_connect").addHandler(logging.NullHandler())  # this package's errors say it
    try:
        app()
    except OtelDiagError as error:
        from pytest_otel_diag.scoring.text import visible

        # names of flags and telemetry are in errors, and a terminal would obey their escape sequences
        sys.stderr.write(f"otel-diag: {visible(as_typed(str(error)))}\n")
        sys.exit(2)
