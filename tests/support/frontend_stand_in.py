"""The demo's frontend as its customers see it: real HTTP, answers by path, faults on demand."""

import json
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from email.message import Message
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any


@dataclass
class Seen:
    """One request that arrived."""

    method: str
    path: str
    headers: Message
    body: Any
    at_s: float


@dataclass
class Frontend:
    """``status`` by path prefix, ``delay_s`` for every answer; ``seen`` is what came."""

    url: str = ""
    seen: list[Seen] = field(default_factory=list)
    status: dict[str, int] = field(default_factory=dict)
    delay_s: float = 0.0
    broken: bool = False
    content: str = "application/json; charset=utf-8"
    at_once: int = 0
    most_at_once: int = 0

    def paths(self) -> list[str]:
        """Return method and path of every request, without its query."""
        return [f"{one.method} {one.path.partition('?')[0]}" for one in self.seen]


@contextmanager
def frontend() -> Iterator[Frontend]:
    """Serve on a free port of this machine for the block."""
    stand_in, lock = Frontend(), threading.Lock()

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def _answer(self) -> None:
            length = int(self.headers.get("content-length") or 0)
            body = json.loads(self.rfile.read(length)) if length else None
            with lock:
                seen = Seen(self.command, self.path, self.headers, body, time.monotonic())
                stand_in.seen.append(seen)
                stand_in.at_once += 1
                stand_in.most_at_once = max(stand_in.most_at_once, stand_in.at_once)
            time.sleep(stand_in.delay_s)
            with lock:
                stand_in.at_once -= 1
            if stand_in.broken:
                self.close_connection = True
                self.connection.close()
                return
            wanted = [code for prefix, code in stand_in.status.items() if self.path.startswith(prefix)]
            path, _, query = self.path.partition("?")
            slash = path.endswith("/") and path != "/"  # the demo's frontend redirects these
            self.send_response(308 if slash else wanted[0] if wanted else 200)
            if slash:
                self.send_header("location", f"{path.rstrip('/')}?{query}")
            self.send_header("content-type", stand_in.content)
            self.send_header("content-length", "2")
            self.end_headers()
            self.wfile.write(b"{}")

        def do_GET(self) -> None:
            self._answer()

        def do_POST(self) -> None:
            self._answer()

        def do_DELETE(self) -> None:
            self._answer()

        def log_message(self, *_: object) -> None:
            """Say nothing."""

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads = True
    stand_in.url = f"http://127.0.0.1:{server.server_port}"
    thread = threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True)
    thread.start()
    try:
        yield stand_in
    finally:
        server.shutdown()
        server.server_close()
        thread.join(5)
