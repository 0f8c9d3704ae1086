"""``otel-diag receive`` as a separate process."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests.support.deadlines import deadline_s
from tests.support.otlp import post, spans

SPOKEN = re.compile(r"http=([\d.:]+)")


@contextmanager
def receiving(folder: Path, *arguments: str) -> Iterator[subprocess.Popen[str]]:
    command = [sys.executable, "-m", "pytest_otel_diag.cli", "receive", *arguments]
    env = {name: value for name, value in os.environ.items() if name.startswith("COVERAGE_")}
    process = subprocess.Popen(
        command, cwd=folder, env=env, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
    )
    try:
        yield process
    finally:
        process.kill()
        process.wait()


def test_everything_received_before_the_signal_is_stored(tmp_path: Path) -> None:
    options = ["--http", "127.0.0.1:0", "--grpc", "off", "--every", "0.1", "--keep-hours", "24"]
    with receiving(tmp_path, "--store", f"chdb://{tmp_path}/store", *options) as process:
        first = process.stdout.readline()
        assert "Ctrl-C ends it" in first
        address = SPOKEN.search(first)[1]
        young = {"start_time_unix_nano": time.time_ns(), "end_time_unix_nano": time.time_ns()}
        assert post(address, spans(7, **young).SerializeToString())[0] == 200
        assert "7 received" in process.stdout.readline()
        process.send_signal(signal.SIGTERM)
        rest, _ = process.communicate(timeout=deadline_s(30))
    assert process.returncode == 0, rest
    assert rest.rstrip().endswith("traces: 7 received, 7 stored")
    script = (
        "import sys; from pytest_otel_diag.telemetry import Store; store = Store.open(sys.argv[1]); "
        "print(store.count_rows('otel', 'otel_traces'))"
    )
    counted = subprocess.run(
        [sys.executable, "-c", script, f"chdb://{tmp_path}/store"], capture_output=True, text=True, check=True
    )
    assert counted.stdout.strip() == "7"


@pytest.mark.parametrize(
    ("arguments", "complaint"),
    [
        ([], "give --store=chdb:///absolute/path"),
        (["--store", "chdb:///tmp/never", "--http", "off", "--grpc", "off"], "leave nothing to receive"),
        (["--store", "chdb:///tmp/never", "--http", "4318"], "use HOST:PORT"),
    ],
)
def test_wrong_options_are_reported(tmp_path: Path, arguments: list[str], complaint: str) -> None:
    with receiving(tmp_path, *arguments) as process:
        said, _ = process.communicate(timeout=deadline_s(30))
    assert process.returncode == 2
    assert complaint in said
