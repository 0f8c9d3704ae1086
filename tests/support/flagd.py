"""The real flagd for tests: found or built, run on free ports, always ended.

The binary is the one that ``OTEL_DIAG_TEST_FLAGD`` names, else ``flagd`` on PATH, else it is built where
there is ``go`` (``tests/flagd_binary``). Without any, tests skip and say so; with
``OTEL_DIAG_REQUIRE_FLAGD`` they fail.
"""

from __future__ import annotations

import atexit
import http.client
import json
import os
import shutil
import signal
import socket
import subprocess
import time
from functools import cache
from pathlib import Path
from types import TracebackType
from typing import Literal, Self

import pytest

from tests.flagd_binary import build
from tests.support.deadlines import deadline_s

READY_S = deadline_s(15)
Provider = Literal["file", "fsnotify", "fileinfo"]


@cache
def _found() -> tuple[Path | None, str]:
    """Return the binary, or None and why there is none."""
    named = os.environ.get("OTEL_DIAG_TEST_FLAGD")
    if named:
        return (
            (Path(named), "") if Path(named).is_file() else (None, f"OTEL_DIAG_TEST_FLAGD={named} is no file")
        )
    on_path = shutil.which("flagd")
    if on_path:
        return Path(on_path), ""
    try:
        return build.ensure(), ""
    except build.BuildFailed as failure:
        return None, f"flagd is not on PATH and was not built: {failure}"


def binary() -> Path:
    """Return the real flagd; skips the test, or fails it, when there is none."""
    path, why = _found()
    if path is not None:
        return path
    text = f"NOT TESTED AGAINST THE REAL FLAGD: {why}. Put flagd on PATH or name it in OTEL_DIAG_TEST_FLAGD"
    if os.environ.get("OTEL_DIAG_REQUIRE_FLAGD"):
        pytest.fail(text)
    pytest.skip(text)


class Flagd:
    """A flagd over the file at *document*, as a context manager; ready when it is entered.

    ``provider`` is how it watches the file: ``file`` as flagd decides (it polls once a second outside
    Kubernetes), ``fileinfo`` the same polling, ``fsnotify`` at once. Its log is kept beside the document's
    folder, in *log*, and the ports stay the same when it is stopped and started again.
    """

    def __init__(self, document: Path, log: Path, *, provider: Provider = "fsnotify") -> None:
        self._binary = binary()
        self._document = document
        self._provider = provider
        self._process: subprocess.Popen[bytes] | None = None
        self.log = log
        self._ports = _free_ports(4)

    @property
    def grpc(self) -> str:
        """``host:port`` of the evaluation protocol."""
        return f"127.0.0.1:{self._ports[0]}"

    @property
    def http(self) -> str:
        """URL of the evaluation protocol over HTTP."""
        return f"http://{self.grpc}"

    @property
    def ofrep(self) -> str:
        """URL of the OFREP service."""
        return f"http://127.0.0.1:{self._ports[3]}"

    def start(self) -> None:
        """Start it and wait until it answers; raises AssertionError with its log when it does not."""
        port, management, sync, ofrep = map(str, self._ports)
        source = json.dumps([{"uri": str(self._document), "provider": self._provider}])
        with self.log.open("ab") as log:
            self._process = subprocess.Popen(
                [
                    *(self._binary, "start", "--sources", source, "--port", port),
                    *("--management-port", management, "--sync-port", sync, "--ofrep-port", ofrep),
                ],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
            )
        atexit.register(self.kill)
        deadline = time.monotonic() + READY_S
        while not (self._answers(self._ports[1], "GET", "/readyz") and self._evaluates()):
            died = self._process.poll() is not None
            if died or time.monotonic() > deadline:
                self.kill()
                raise AssertionError(f"flagd {'ended' if died else 'did not answer'}: {self.said()[-3000:]}")
            time.sleep(0.02)

    def stop(self) -> None:
        """End it as an orchestrator does."""
        self._end(signal.SIGTERM)

    def kill(self) -> None:
        """End it at once; does nothing when it has ended."""
        self._end(signal.SIGKILL)

    def said(self) -> str:
        """Return its log so far."""
        return self.log.read_text(encoding="utf-8", errors="replace")

    def _end(self, number: signal.Signals) -> None:
        process, self._process = self._process, None
        if process is None:
            return
        atexit.unregister(self.kill)
        process.send_signal(number)
        try:
            process.wait(5)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()

    def _evaluates(self) -> bool:
        return self._answers(self._ports[3], "POST", "/ofrep/v1/evaluate/flags")

    def _answers(self, port: int, method: str, path: str) -> bool:
        connection = http.client.HTTPConnection("127.0.0.1", port, timeout=2)
        try:
            connection.request(method, path, "{}", {"content-type": "application/json"})
            return connection.getresponse().status == 200
        except (OSError, http.client.HTTPException):
            return False
        finally:
            connection.close()

    def __enter__(self) -> Self:
        try:
            self.start()
        except AssertionError:
            # A port may have been taken between the choice and the start.
            self._ports = _free_ports(4)
            self.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.kill()


def _free_ports(count: int) -> list[int]:
    sockets = [socket.create_server(("127.0.0.1", 0)) for _ in range(count)]
    ports = [taken.getsockname()[1] for taken in sockets]
    for taken in sockets:
        taken.close()
    return ports
