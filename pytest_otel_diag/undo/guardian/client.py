"""The run's side of its guardian process: starts it, checks that it answers, dismisses it or hands over."""

from __future__ import annotations

import contextlib
import dataclasses
import json
import os
import select
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import Any

from pytest_otel_diag.config.concealment import without_test
from pytest_otel_diag.daemon import start_thread
from pytest_otel_diag.errors import FlagError
from pytest_otel_diag.flags.surface import FlagAddress
from pytest_otel_diag.undo.disk import Disk
from pytest_otel_diag.undo.guardian.log import LOG, open_log
from pytest_otel_diag.undo.guardian.process import RETRY_S
from pytest_otel_diag.undo.lease import Lease
from pytest_otel_diag.undo.processes import Process

OPENER = "pytest_otel_diag.flags.access:open_flags"
START_S = 20.0
ANSWER_S = 10.0
_END_S = 5.0


class Guardian:
    """One guardian process for one entry at a time; methods block, and may be called from any thread.

    *opener* names the function that opens a FlagAddress, ``module:attribute``, as the guardian imports it.
    """

    def __init__(
        self, state_dir: Path, lease: Lease, *, opener: str = OPENER, retry_s: float = RETRY_S
    ) -> None:
        self._state_dir = state_dir
        self._lease = lease
        self._opener = opener
        self._retry_s = retry_s
        self._lock = threading.RLock()
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def pid(self) -> int | None:
        """The guardian's process id, None while there is none."""
        return None if self._process is None else self._process.pid

    @property
    def running(self) -> bool:
        """Whether the process runs; it may still not answer."""
        return self._process is not None and self._process.poll() is None

    def ensure(self, entry_id: str, *, deadline_s: float, access: FlagAddress | None = None) -> None:
        """Return once a guardian confirms that it watches the entry; a silent one is replaced.

        *access* has the credentials that the journal lacks; they are passed through a pipe.

        Raises FlagError when none can be started: then no flag may be written.
        """
        with self._lock:
            if self._process is not None:
                if self.running and self._watches(_order(entry_id, deadline_s, access)):
                    return
                self._end()
            self._start(_order(entry_id, deadline_s, access))

    def dismiss(self) -> None:
        """End the guardian, since nothing is left to restore."""
        with self._lock:
            if self._process is not None:
                self._send({"done": True})
                self._end(wait_s=_END_S)

    def hand_over(self) -> None:
        """Leave the restore to the guardian, which holds the lease until it ends; does not wait for it."""
        with self._lock:
            process, self._process = self._process, None
            if process is None:
                return
            with contextlib.suppress(OSError):
                os.write(_fd(process.stdin), b'{"take_over": true}\n')
            _close(process)
            start_thread(process.wait, "otel-diag guardian")

    def _start(self, order: dict[str, Any]) -> None:
        try:
            Disk().folder(self._state_dir)  # it may have been deleted since
            log = open_log(self._state_dir)
        except OSError as error:
            raise FlagError(f"no guardian could be started ({error}); nothing was changed") from error
        try:
            self._process = subprocess.Popen(
                [sys.executable, "-m", "pytest_otel_diag.undo.guardian.process"],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=log,
                cwd=Path(__file__).parents[3],  # found also where the package is not installed
                env=without_test(),  # an analyzer may read that of any process of this user
                start_new_session=True,
                pass_fds=(self._lease.descriptor,),
            )
        except OSError as error:
            raise FlagError(f"no guardian could be started ({error}); nothing was changed") from error
        finally:
            os.close(log)
        self._send(
            {
                "state_dir": str(self._state_dir),
                **order,
                "opener": self._opener,
                "import_path": sys.path,
                "retry_s": self._retry_s,
                "parent": dataclasses.asdict(Process.this()),
            }
        )
        if self._answer(START_S) != {"watching": order["watch"]}:
            self._end()
            raise FlagError(
                f"the guardian did not answer within {START_S:g} s; nothing was changed. Its log is "
                f"{self._state_dir / LOG}"
            )
        self._lease.guarded_by(Process.of(self._process.pid))

    def _watches(self, order: dict[str, Any]) -> bool:
        return self._send(order) and self._answer(ANSWER_S) == {"watching": order["watch"]}

    def _send(self, order: dict[str, Any]) -> bool:
        assert self._process is not None
        try:
            os.write(_fd(self._process.stdin), json.dumps(order).encode() + b"\n")
        except OSError:
            return False
        return True

    def _answer(self, timeout_s: float) -> dict[str, Any]:
        """Return its next answer, empty when none comes in time."""
        assert self._process is not None
        source, buffer = _fd(self._process.stdout), b""
        until_s = time.monotonic() + timeout_s
        while not buffer.endswith(b"\n"):
            ready, _, _ = select.select([source], [], [], max(0.0, until_s - time.monotonic()))
            data = os.read(source, 4096) if ready else b""
            if not data:
                return {}
            buffer += data
        answer: dict[str, Any] = json.loads(buffer)
        return answer

    def _end(self, wait_s: float = 0.0) -> None:
        """Wait up to *wait_s* seconds for the process to end, then kill it.

        Its input is closed last: a running guardian would take that for the death of the run.
        """
        assert self._process is not None
        process, self._process = self._process, None
        try:
            process.wait(timeout=wait_s)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait(timeout=_END_S)
        _close(process)


def _order(entry_id: str, deadline_s: float, access: FlagAddress | None) -> dict[str, Any]:
    order: dict[str, Any] = {"watch": entry_id, "deadline_s": deadline_s}
    if access is not None:
        order["access"] = {"control": access.control.reveal(), "served": access.served.reveal()}
    return order


def _fd(pipe: Any) -> int:
    number: int = pipe.fileno()
    return number


def _close(process: subprocess.Popen[bytes]) -> None:
    for pipe in (process.stdin, process.stdout):
        if pipe is not None:
            with contextlib.suppress(OSError):  # unsent data to a dead process is lost
                pipe.close()
