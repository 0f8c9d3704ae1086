"""The otel-diag command: recordings, run, report, doctor."""

from __future__ import annotations

import io
import logging
import sys
from pathlib import Path

from pytest_otel_diag.errors import OtelDiagError


def main() -> None:
    """Run the command; an error of ours is one readable message and exit code 2."""
    from pytest_otel_diag.cli.app import app
    from pytest_otel_diag.cli.spelling import as_typed

    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="replace")  # arrows and dashes in a terminal without them
    sys.path.insert(0, str(Path.cwd()))  # analyzers in the working directory, as pytest finds them
    logging.getLogger("clickhouse_connect").addHandler(logging.NullHandler())  # we say it better
    try:
        app()
    except OtelDiagError as error:
        sys.stderr.write(f"otel-diag: {as_typed(str(error))}\n")
        sys.exit(2)
