"""A ClickHouse server for tests: its HTTP interface over chDB, in a separate process.

``with clickhouse_server() as server:`` yields addresses that clickhouse-connect's HTTP client (and
:class:`pytest_otel_diag.telemetry.Store`) can use. It supports what that client uses: statements
in the body or in ``query``, ``param_*``, settings and ``database`` in the URL, binary inserts, exception
headers, users. Unlike a real server it has no sessions, no query log and no KILL, and errors never arrive
in the middle of a stream. Needs starlette, uvicorn and chdb-core.
"""

from __future__ import annotations

import argparse
import atexit
import base64
import gzip
import importlib
import os
import re
import socket
import subprocess
import sys
import tempfile
import threading
import zlib
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from email import message_from_bytes
from pathlib import Path
from typing import Any

USERS: Mapping[str, tuple[str, int]] = {"default": ("", 0), "writer": ("secret", 0), "viewer": ("secret", 1)}
"""User → (password, the ``readonly`` setting of its profile)."""

CLUSTER = "one_shard"
"""The only cluster of a server that was started with one; its one shard is the server itself."""

START_TIMEOUT_S = 240.0
_TRANSPORT = frozenset(
    {
        "query",
        "database",
        "wait_end_of_query",
        "send_progress_in_http_headers",
        "http_headers_progress_interval_ms",
        "client_protocol_version",
        "session_id",
        "session_timeout",
        "session_check",
        "query_id",
        "enable_http_compression",
        "compress",
        "decompress",
        "buffer_size",
        "role",
        "quota_key",
        "cancel_http_readonly_queries_on_client_close",
    }
)
_INSERT = re.compile(rb"^\s*(INSERT\s+INTO\s.*?)\s*\bFORMAT\s+(\w+)\s*?(?:\n|$)", re.IGNORECASE | re.DOTALL)
_CODE = re.compile(r"Code: (\d+)\.")
_NAME = re.compile(r"^\w+$")
_CLUSTER = f"""<clickhouse><tcp_port>9000</tcp_port><remote_servers><{CLUSTER}><shard>
<replica><host>localhost</host><port>9000</port></replica></shard></{CLUSTER}></remote_servers></clickhouse>
"""


@dataclass(frozen=True, slots=True)
class StandIn:
    """The address of a started server."""

    host: str
    port: int

    def dsn(self, user: str = "default", password: str | None = None, database: str = "") -> str:
        """Return the DSN of a user (with its right password unless another is given)."""
        secret = USERS.get(user, ("", 0))[0] if password is None else password
        return f"clickhouse://{user}:{secret}@{self.host}:{self.port}/{database}"


@contextmanager
def clickhouse_server(path: Path | None = None, *, cluster: bool = False) -> Iterator[StandIn]:
    """Start the server on a free port of this machine, and stop it at the end of the block.

    *path* is the folder of its data, None keeps them in memory. With *cluster* it has :data:`CLUSTER`, for
    Distributed tables. The process also ends when this one dies.
    Raises RuntimeError with the server's output when it does not start.
    """
    command = [sys.executable, __file__, *(["--path", str(path)] if path else [])]
    command += ["--cluster"] if cluster else []
    with tempfile.TemporaryFile() as errors:
        process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=errors)
        try:
            port = _announced_port(process)
            if port is None:
                process.kill()
                errors.seek(0)
                raise RuntimeError(
                    f"the test server did not start:\n{errors.read().decode(errors='replace')}"
                )
            yield StandIn("127.0.0.1", port)
        finally:
            _stop(process)


def _announced_port(process: subprocess.Popen[bytes]) -> int | None:
    """Return the port that the process prints first, None when it ends or stays silent."""
    timer = threading.Timer(START_TIMEOUT_S, process.kill)
    timer.start()
    try:
        assert process.stdout is not None
        line = process.stdout.readline().decode().strip()
    finally:
        timer.cancel()
    return int(line) if line.isdigit() else None


def _stop(process: subprocess.Popen[bytes]) -> None:
    process.terminate()
    try:
        process.wait(timeout=30)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()
    for pipe in (process.stdin, process.stdout):
        if pipe is not None:
            pipe.close()


class Refused(Exception):
    """A response in the form of a ClickHouse error."""

    def __init__(self, code: int, message: str, status: int = 500) -> None:
        super().__init__(f"Code: {code}. DB::Exception: {message}")
        self.code = code
        self.status = status


@dataclass(frozen=True, slots=True)
class Request:
    """A request: URL parameters, the user's ``readonly``, the decompressed body."""

    parameters: Mapping[str, str]
    readonly: int
    body: bytes


def answer(request: Request, engine_path: str) -> bytes:
    """Run the request on a new handle; raises Refused."""
    import chdb  # noqa: PLC0415 - only in the server's process

    handle = chdb.connect(engine_path)
    try:
        return _run(handle, request)
    except RuntimeError as error:
        raise _from_engine(str(error)) from error
    finally:
        handle.close()


def _run(handle: Any, request: Request) -> bytes:
    database = request.parameters.get("database")
    if database:
        handle.query(f"USE {_quoted(database)}")
    if request.readonly:
        handle.query(f"SET readonly = {request.readonly}")
    for name, value in _settings(request.parameters):
        handle.query(f"SET {name} = {_literal(value)}")
    values = {name[6:]: value for name, value in request.parameters.items() if name.startswith("param_")}
    head = request.parameters.get("query", "").encode()
    text = head + b"\n" + request.body if head else request.body
    insert = _INSERT.match(text)
    if insert:
        return _insert(handle, insert, text)
    result = handle.query(text.decode(), "TabSeparated", params=values)
    return bytes(result.bytes() or b"")


def _settings(parameters: Mapping[str, str]) -> Iterator[tuple[str, str]]:
    """Yield the settings of a request, ``readonly`` last, because none can be set after it."""
    names = [n for n in parameters if n not in _TRANSPORT and not n.startswith("param_")]
    for name in sorted(names, key=lambda n: n == "readonly"):
        if not _NAME.match(name):
            raise Refused(115, f"Unknown setting {name!r}. (UNKNOWN_SETTING)")
        yield name, parameters[name]


def _insert(handle: Any, insert: re.Match[bytes], text: bytes) -> bytes:
    """Run an insert whose rows follow the statement as bytes; the engine reads them from a file."""
    with tempfile.NamedTemporaryFile(suffix=".block", delete=False) as file:
        file.write(text[insert.end() :])
    try:
        statement, form = insert.group(1).decode(), insert.group(2).decode()
        handle.query(f"{statement} FROM INFILE {_literal(file.name)} FORMAT {form}")
    finally:
        Path(file.name).unlink()
    return b""


def _from_engine(message: str) -> Refused:
    start = message.find("Code: ")
    code = _CODE.search(message)
    number = int(code.group(1)) if code else 1002
    refused = Refused(number, message)
    refused.args = (message[start:] if start >= 0 else f"Code: 1002. DB::Exception: {message}",)
    refused.status = 404 if number in {60, 81} else 500
    return refused


def _quoted(name: str) -> str:
    escaped = name.replace("\\", "\\\\").replace("`", "\\`")
    return f"`{escaped}`"


def _literal(value: str) -> str:
    escaped = value.replace("\\", "\\\\").replace("'", "\\'")
    return f"'{escaped}'"


def unpack(body: bytes, encoding: str) -> bytes:
    """Return the decoded body; raises Refused for an unknown Content-Encoding."""
    if encoding in {"", "identity"}:
        return body
    if encoding == "gzip":
        return gzip.decompress(body)
    if encoding == "deflate":
        return zlib.decompress(body)
    if encoding == "lz4":
        frame = importlib.import_module("lz4.frame")  # comes with the client, without types
        return bytes(frame.decompress(body))
    raise Refused(1002, f"Content-Encoding {encoding!r} is not supported; use gzip, deflate or lz4")


def _form(request: Request, headers: Mapping[str, str]) -> Request:
    """Return the request with the fields of its form as parameters: how clients send what is long."""
    kind = headers.get("content-type", "")
    if not kind.startswith("multipart/form-data"):
        return request
    whole = message_from_bytes(f"Content-Type: {kind}\r\n\r\n".encode() + request.body)
    fields = {
        str(part.get_param("name", header="content-disposition")): part.get_payload(decode=True).decode()
        for part in whole.get_payload()
    }
    return Request({**request.parameters, **fields}, request.readonly, b"")


def profile(headers: Mapping[str, str]) -> int:
    """Return the ``readonly`` of the request's user; raises Refused for a wrong password."""
    user, password = headers.get("x-clickhouse-user", "default"), headers.get("x-clickhouse-key", "")
    scheme, _, token = headers.get("authorization", "").partition(" ")
    if scheme == "Basic":
        user, _, password = base64.b64decode(token).decode().partition(":")
    expected = USERS.get(user)
    if expected is None or expected[0] != password:
        raise Refused(
            516,
            f"{user}: Authentication failed: password is incorrect, or there is no user with such name. "
            "(AUTHENTICATION_FAILED)",
            403,
        )
    return expected[1]


def application(engine_path: str) -> Any:
    """Return the ASGI application over the engine at *engine_path*."""
    from starlette.applications import Starlette  # noqa: PLC0415 - only in the server's process
    from starlette.concurrency import run_in_threadpool  # noqa: PLC0415
    from starlette.responses import Response  # noqa: PLC0415
    from starlette.routing import Route  # noqa: PLC0415

    async def handle(http: Any) -> Any:
        headers = {"X-ClickHouse-Timezone": "UTC", "X-ClickHouse-Summary": "{}"}
        try:
            readonly = profile(http.headers)
            body = unpack(await http.body(), http.headers.get("content-encoding", ""))
            request = _form(Request(dict(http.query_params), readonly, body), http.headers)
            content = await run_in_threadpool(answer, request, engine_path)
        except Refused as refused:
            headers["X-ClickHouse-Exception-Code"] = str(refused.code)
            return Response(str(refused), refused.status, headers)
        return Response(content, 200, headers, media_type="application/octet-stream")

    async def ping(_: Any) -> Any:
        return Response("Ok.\n")

    return Starlette(
        routes=[
            Route("/ping", ping),
            Route("/", handle, methods=["POST"]),
            Route("/", handle, methods=["GET"]),
        ]
    )


def main() -> None:
    """Serve until stopped or until the parent closes our standard input; print the port first."""
    import chdb  # noqa: PLC0415 - only in the server's process
    import uvicorn  # noqa: PLC0415

    parser = argparse.ArgumentParser(description="ClickHouse's HTTP interface over chDB, for tests")
    parser.add_argument("--path", type=Path, help="directory of the data (default: in memory)")
    parser.add_argument("--port", type=int, default=0, help="port to listen on (default: a free one)")
    parser.add_argument("--cluster", action="store_true", help="know a cluster of one shard")
    arguments = parser.parse_args()
    engine_path = str(arguments.path) if arguments.path else ":memory:"
    if arguments.cluster:
        engine_path += f"?config-file={_cluster_file()}"
    keeper = chdb.connect(engine_path)  # the engine lives as long as one handle
    listener = socket.create_server(("127.0.0.1", arguments.port))
    sys.stdout.write(f"{listener.getsockname()[1]}\n")
    sys.stdout.flush()
    threading.Thread(target=_end_with_parent, daemon=True).start()
    uvicorn.Server(uvicorn.Config(application(engine_path), log_level="warning")).run(sockets=[listener])
    keeper.close()


def _cluster_file() -> str:
    """Write the engine's configuration file, which it reads once, when it starts."""
    with tempfile.NamedTemporaryFile("w", suffix=".xml", delete=False) as file:
        file.write(_CLUSTER)
    atexit.register(Path(file.name).unlink, missing_ok=True)
    return file.name


def _end_with_parent() -> None:
    sys.stdin.buffer.read()
    os._exit(0)


if __name__ == "__main__":
    main()
