"""``otel-diag`` inside the process of the tests, which saves the start of a process and of an engine."""

from __future__ import annotations

import contextlib
import io
import os
import subprocess
import sys
from pathlib import Path
from unittest import mock

from pytest_otel_diag.cli import main


def otel_diag(place: Path, *arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
    """Run the command in *place*, with a cache there and tables in memory.

    Modules that it imports from *place* are forgotten afterwards.
    """
    kept = {name: value for name, value in os.environ.items() if not name.startswith("OTEL_DIAG_")}
    own = {"OTEL_DIAG_CACHE": str(place / "cache"), "OTEL_DIAG_STORE": "chdb://memory"}
    out, err = io.StringIO(), io.StringIO()
    with (
        contextlib.chdir(place),
        mock.patch.dict(os.environ, kept | own | environment, clear=True),
        mock.patch.object(sys, "argv", ["otel-diag", *arguments]),
        mock.patch.object(sys, "path", sys.path.copy()),
        contextlib.redirect_stdout(out),
        contextlib.redirect_stderr(err),
    ):
        code = _exit_code()
    for name, module in list(sys.modules.items()):
        file = getattr(module, "__file__", None)
        if file and Path(file).parent == place:
            del sys.modules[name]
    return subprocess.CompletedProcess(arguments, code, out.getvalue(), err.getvalue())


def _exit_code() -> int:
    try:
        main()
    except SystemExit as ended:
        return ended.code if isinstance(ended.code, int) else int(ended.code is not None)
    return 0
