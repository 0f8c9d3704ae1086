"""The demo's flagd-ui over real HTTP, in each generation of its API, with faults on demand.

``with FlagdUi(path, "2.2") as ui:`` serves ``ui.url`` (which ends in ``/feature``, as behind the demo's
frontend-proxy) over a real file, which a real flagd may watch. It behaves like the demo's code:

========== ==================================== ==========================================================
generation routes below ``/feature/api``        what a read and a write do
========== ==================================== ==========================================================
``1.12``   read-file, write-to-file (to 2.0.2)  reads the file each time; writes in place, then answers
``2.1``    read                                 no way to write
``2.2``    read, read-file, write,              reads the file when it starts; answers from memory, flags
           write-to-file                        only; writes in place
``3.0``    as 2.2                               as 2.2, with a temporary file and a rename
========== ==================================== ==========================================================

As in the demo, a write replaces the whole document with any JSON, without validation.
"""

from __future__ import annotations

import contextlib
import json
import os
import socket
import struct
import tempfile
import threading
import urllib.parse
from dataclasses import dataclass
from enum import StrEnum
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from types import TracebackType
from typing import Any, Literal, Self

Generation = Literal["1.12", "2.1", "2.2", "3.0"]
Method = Literal["GET", "POST"]

GENERATIONS: tuple[Generation, ...] = ("1.12", "2.1", "2.2", "3.0")

_READS = {
    "1.12": ("read-file",),
    "2.1": ("read",),
    "2.2": ("read", "read-file"),
    "3.0": ("read", "read-file"),
}
_WRITES = {
    "1.12": ("write-to-file",),
    "2.1": (),
    "2.2": ("write", "write-to-file"),
    "3.0": ("write", "write-to-file"),
}
_REFUSED = b"upstream connect error or disconnect/reset before headers. reset reason: connection refused"
_PAGE = b"<!DOCTYPE html><html><head><title>OTel demo</title></head><body>a page</body></html>"


class Fault(StrEnum):
    """A failure of one request."""

    ERROR = "error"  # 500, and a write is not kept
    ERROR_KEPT = "error kept"  # 500, but the write is kept
    SLOW = "slow"  # no answer within delay_s; a write is kept before
    LOST = "lost"  # a write answers 200 and is not kept
    LATE = "late"  # a write answers 200 and is kept after delay_s
    OTHER = "other"  # a write answers 200, then another client's document replaces it
    TRUNCATED = "truncated"  # the body ends in the middle, the connection too
    HALF = "half"  # half a JSON document that claims to be whole
    RESET = "reset"  # the connection is reset without an answer
    UNAVAILABLE = "unavailable"  # 503 of the proxy: flagd-ui is not there
    PAGE = "page"  # 200 with a page of HTML
    REFUSED = "refused"  # 413, as for a document that is too large; nothing is kept


@dataclass
class _Planned:
    fault: Fault
    method: Method | None
    times: int
    delay_s: float
    other: bytes


class FlagdUi:
    """The server; it listens on a free port from :meth:`__enter__` to :meth:`__exit__`."""

    def __init__(self, path: Path, generation: Generation = "3.0") -> None:
        self.path = path
        self.generation = generation
        self.requests: list[str] = []
        self._planned: list[_Planned] = []
        self._lock = threading.Lock()
        self._ended = threading.Event()
        self._late: list[threading.Timer] = []
        self._state: Any = None
        self._server = _Server(self)
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.05,), daemon=True)

    @property
    def port(self) -> int:
        """The port it listens on."""
        return int(self._server.server_address[1])

    @property
    def url(self) -> str:
        """The equivalent of the demo's ``http://localhost:8080/feature``."""
        return f"http://127.0.0.1:{self.port}/feature"

    def fail(
        self,
        fault: Fault,
        *,
        times: int = 1,
        method: Method | None = None,
        delay_s: float = 30.0,
        other: bytes = b"",
    ) -> None:
        """Let the next *times* requests, of one method or both, fail with *fault*.

        ``delay_s`` is for SLOW and LATE; ``other`` is the document that OTHER leaves.
        """
        with self._lock:
            self._planned.append(_Planned(fault, method, times, delay_s, other))

    def well(self) -> None:
        """Forget the faults that are still planned."""
        with self._lock:
            self._planned.clear()

    def restart(self) -> None:
        """Restart, as its container would: drop the cached document and read the file."""
        with self._lock:
            self._load()

    def _load(self) -> None:
        if self.generation != "1.12":
            self._state = json.loads(self.path.read_bytes())

    def __enter__(self) -> Self:
        self._load()
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._ended.set()
        for timer in self._late:
            timer.cancel()
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()

    # The methods below are called by the request handlers.

    def planned(self, method: str) -> _Planned | None:
        """Return the fault planned for this request, and count it."""
        with self._lock:
            for plan in self._planned:
                if plan.times > 0 and plan.method in (None, method):
                    plan.times -= 1
                    return plan
        return None

    def pause(self, seconds: float) -> None:
        """Wait, at most until the server stops."""
        self._ended.wait(seconds)

    def later(self, seconds: float, data: Any) -> None:
        """Replace the document after *seconds*."""
        timer = threading.Timer(seconds, self.keep, (data,))
        timer.daemon = True
        self._late.append(timer)
        timer.start()

    def read(self) -> bytes:
        """Return what a read answers; raises ValueError or OSError where the real one fails with 500."""
        if self.generation == "1.12":
            return _compact(json.loads(self.path.read_bytes()))
        with self._lock:
            state = self._state
        if not isinstance(state, dict) or "flags" not in state:
            raise ValueError("no flags in the state")
        return _compact({"flags": state["flags"]})

    def keep(self, data: Any) -> None:
        """Replace the document."""
        with self._lock:
            if self.generation == "1.12":
                self.path.write_bytes(json.dumps(data, indent=2, ensure_ascii=False).encode())
                return
            # Elixir serialises maps in the order of their keys.
            text = json.dumps(data, separators=(",", ":"), sort_keys=True, ensure_ascii=False).encode()
            if self.generation == "3.0":
                _rename(self.path, text)
            else:
                self.path.write_bytes(text)
            self._state = data


def _compact(value: Any) -> bytes:
    return json.dumps(value, separators=(",", ":"), ensure_ascii=False).encode()


def _rename(path: Path, text: bytes) -> None:
    descriptor, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
    with os.fdopen(descriptor, "wb") as file:
        file.write(text)
    Path(name).chmod(0o644)
    Path(name).replace(path)


class _Server(ThreadingHTTPServer):
    daemon_threads = True
    block_on_close = False

    def __init__(self, ui: FlagdUi) -> None:
        self.ui = ui
        super().__init__(("127.0.0.1", 0), _Handler)

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Ignore clients that disconnect early."""


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True  # head and body are two writes
    server: _Server

    def do_GET(self) -> None:
        """Answer a read."""
        ui = self.server.ui
        route = self._route()
        if route not in _READS[ui.generation]:
            self._answer(HTTPStatus.NOT_FOUND, b"Not Found", "text/html")
            return
        plan = ui.planned("GET")
        if plan is not None and self._broken(plan):
            return
        try:
            body = ui.read()
        except (OSError, ValueError):
            self._answer(HTTPStatus.INTERNAL_SERVER_ERROR, b'{"error":"Failed to read file"}')
            return
        self._give(plan, body)

    def do_POST(self) -> None:
        """Answer a write."""
        ui = self.server.ui
        route = self._route()
        sent = self.rfile.read(int(self.headers.get("Content-Length", "0")))
        if route not in _WRITES[ui.generation]:
            self._answer(HTTPStatus.NOT_FOUND, b"Not Found", "text/html")
            return
        plan = ui.planned("POST")
        try:
            data = json.loads(sent)["data"]
        except (ValueError, LookupError, TypeError):
            failed = HTTPStatus.INTERNAL_SERVER_ERROR if ui.generation == "1.12" else HTTPStatus.BAD_REQUEST
            self._answer(failed, b'{"errors":{"detail":"Bad Request"}}')
            return
        if plan is not None:
            self._written(plan, data)
            if self._broken(plan):
                return
        else:
            ui.keep(data)
        self._give(plan, b'{"message":"File written successfully"}' if ui.generation == "1.12" else b"{}")

    def _written(self, plan: _Planned, data: Any) -> None:
        ui = self.server.ui
        if plan.fault in (Fault.ERROR_KEPT, Fault.SLOW, Fault.TRUNCATED, Fault.HALF):
            ui.keep(data)
        elif plan.fault is Fault.LATE:
            ui.later(plan.delay_s, data)
        elif plan.fault is Fault.OTHER:
            ui.keep(data)
            ui.keep(json.loads(plan.other))

    def _broken(self, plan: _Planned) -> bool:
        """Respond as the fault requires; return False if the normal response is still to be sent."""
        if plan.fault in (Fault.ERROR, Fault.ERROR_KEPT):
            self._answer(HTTPStatus.INTERNAL_SERVER_ERROR, b'{"errors":{"detail":"Internal Server Error"}}')
        elif plan.fault is Fault.UNAVAILABLE:
            self._answer(HTTPStatus.SERVICE_UNAVAILABLE, _REFUSED, "text/plain")
        elif plan.fault is Fault.PAGE:
            self._answer(HTTPStatus.OK, _PAGE, "text/html")
        elif plan.fault is Fault.REFUSED:
            self._answer(HTTPStatus.REQUEST_ENTITY_TOO_LARGE, b'{"errors":{"detail":"too large"}}')
        elif plan.fault is Fault.RESET:
            self._reset()
        elif plan.fault is Fault.SLOW:
            self.server.ui.pause(plan.delay_s)
            self.close_connection = True
        else:
            return False
        return True

    def _give(self, plan: _Planned | None, body: bytes) -> None:
        if plan is not None and plan.fault is Fault.TRUNCATED:
            self._answer(HTTPStatus.OK, body, announced=len(body) + 100)
            self.close_connection = True
        elif plan is not None and plan.fault is Fault.HALF:
            self._answer(HTTPStatus.OK, body[: max(1, len(body) // 2)])
        else:
            self._answer(HTTPStatus.OK, body)

    def _reset(self) -> None:
        # Closing with a linger of zero sends RST instead of FIN.
        self.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self.close_connection = True
        with contextlib.suppress(OSError):
            self.connection.close()

    def _route(self) -> str:
        path = urllib.parse.urlsplit(self.path).path
        self.server.ui.requests.append(f"{self.command} {path}")
        return path.removeprefix("/feature/api/") if path.startswith("/feature/api/") else ""

    def _answer(
        self, status: HTTPStatus, body: bytes, kind: str = "application/json", announced: int | None = None
    ) -> None:
        self.send_response(status)
        self.send_header("Content-Type", kind)
        self.send_header("Content-Length", str(len(body) if announced is None else announced))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, format: str, *args: Any) -> None:
        """Log nothing."""
