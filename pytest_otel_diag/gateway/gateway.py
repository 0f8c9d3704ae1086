"""The gateway of a process: starts the server on the first access, ends with the process."""

from __future__ import annotations

import atexit
import importlib
import os
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING

from pytest_otel_diag.extras import require
from pytest_otel_diag.gateway.access import Access, Lease, Leases
from pytest_otel_diag.gateway.application import Application
from pytest_otel_diag.ports import Investigation
from pytest_otel_diag.secret import SecretText, new_token
from pytest_otel_diag.tools import Caps, Toolbox

if TYPE_CHECKING:
    from pytest_otel_diag.gateway.server import Server

_OVER = "the investigation is over"
_CLOSED = "the gateway is closed"


@dataclass(frozen=True)
class _Running:
    """The server of one process and what it serves."""

    process: int
    leases: Leases
    application: Application
    server: Server

    def end(self, lease: Lease, why: str) -> None:
        """Revoke the token, cancel the calls of the access, and close its connections."""
        self.leases.revoke(lease, why)
        if self.process == os.getpid():
            self.server.run(partial(self.application.end, lease))


class Gateway:
    """Opens investigations to agents; starts on the first access, and may be used from any thread.

    It listens on *port* of 127.0.0.1, on a free one where that is 0.
    """

    def __init__(self, port: int = 0) -> None:
        self._port = port
        self._lock = threading.Lock()
        self._running: _Running | None = None

    @contextmanager
    def access(
        self,
        investigation: Investigation,
        *,
        caps: Caps = Caps(),  # noqa: B008 - immutable
        token: SecretText | None = None,
    ) -> Iterator[Access]:
        """Open the gateway to one investigation; the token is valid inside the block only.

        It is a new one unless the caller made *token*, to use it for one investigation after another.

        Leaving the block cancels the calls that run and closes their connections. Raises ConfigurationError
        where the extra ``agents`` is missing or no port is free.
        """
        running = self._start()
        token = token or new_token()
        toolbox = Toolbox(investigation, caps=caps)
        lease = running.leases.admit(investigation, toolbox, token)
        base = f"http://127.0.0.1:{running.server.port}"
        try:
            yield Access(base, f"{base}/mcp", token, toolbox)
        finally:
            running.end(lease, _OVER)

    def close(self) -> None:
        """Revoke every token and close the server; a later access starts another one."""
        with self._lock:
            running, self._running = self._running, None
        if running is None or running.process != os.getpid():
            return
        for lease in running.leases.all():
            running.end(lease, _CLOSED)
        running.server.run(running.application.close)
        running.server.stop()

    def forked(self) -> None:
        """Forget the server in a forked child, which has its memory and its port but not its thread."""
        self._lock = threading.Lock()
        running, self._running = self._running, None
        if running is not None:
            running.server.abandon()

    def _start(self) -> _Running:
        with self._lock:
            if self._running is None:
                require("uvicorn", "agents", "serving telemetry to an agent")
                serving = importlib.import_module("pytest_otel_diag.gateway.server")
                leases = Leases()
                application = Application(leases)
                self._running = _Running(
                    os.getpid(), leases, application, serving.Server(application, self._port)
                )
            return self._running


_shared: list[Gateway] = []


def shared_gateway() -> Gateway:
    """Return the gateway of this process, which closes when the process exits."""
    if not _shared:
        gateway = Gateway()
        atexit.register(gateway.close)
        os.register_at_fork(after_in_child=gateway.forked)
        _shared.append(gateway)
    return _shared[0]
