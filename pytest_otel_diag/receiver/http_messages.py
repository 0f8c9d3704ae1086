"""What an OTLP/HTTP request asks for, and what is answered: everything but the bytes on the wire."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from pytest_otel_diag.receiver import json_requests, packages
from pytest_otel_diag.receiver.compression import ENCODINGS, BadEncoding, TooLarge, decompress
from pytest_otel_diag.receiver.desk import Busy, Desk, Malformed
from pytest_otel_diag.receiver.packages import Signal

PROTOBUF, JSON, TEXT = "application/x-protobuf", "application/json", "text/plain; charset=utf-8"
PATHS: dict[str, Signal] = {"/v1/traces": "traces", "/v1/logs": "logs", "/v1/metrics": "metrics"}

_PLAIN = frozenset({"", "identity", "none"})
# google.rpc.Code
_INVALID_ARGUMENT, _OUT_OF_RANGE, _UNAVAILABLE = 3, 11, 14

Headers = tuple[tuple[str, str], ...]


@dataclass(frozen=True, slots=True)
class Answer:
    """A response; ``close`` ends the connection after it."""

    status: int
    content_type: str
    body: bytes
    headers: Headers = ()
    close: bool = False


class Refusal(Exception):
    """The request is not taken; ``answer`` says why."""

    def __init__(self, answer: Answer) -> None:
        super().__init__(answer.status)
        self.answer = answer


@dataclass(frozen=True, slots=True)
class Route:
    """An Export request whose body is still to come; ``length`` is None when it comes in chunks."""

    signal: Signal
    content_type: str
    encoding: str
    length: int | None

    @property
    def as_json(self) -> bool:
        """Whether the body is JSON, and the answer will be."""
        return self.content_type == JSON


def route(request: Any, desk: Desk) -> Route:
    """Return what an h11 ``Request`` asks for; raises Refusal, after counting."""
    path = request.target.partition(b"?")[0].decode("latin-1")
    signal = PATHS.get(path)
    if signal is None:
        desk.tally.refused(None, "unknown path")
        raise Refusal(_words(404, f"nothing here; POST to {', '.join(PATHS)}"))
    if request.method != b"POST":
        desk.tally.refused(None, "not a POST")
        raise Refusal(_words(405, f"POST to {path}", (("allow", "POST"),)))
    headers = {name.decode("latin-1"): value.decode("latin-1") for name, value in request.headers}
    content_type = headers.get("content-type", "").partition(";")[0].strip().lower()
    if content_type not in {PROTOBUF, JSON}:
        desk.tally.refused(signal, "unknown content type")
        raise Refusal(_words(415, f"content type {content_type!r} is not known; send {PROTOBUF} or {JSON}"))
    encoding = headers.get("content-encoding", "").strip().lower()
    if encoding not in ENCODINGS and encoding not in _PLAIN:
        desk.tally.refused(signal, "unknown content encoding")
        accepted = (("accept-encoding", "gzip, deflate"),)
        raise Refusal(_words(415, f"content encoding {encoding!r} is not known; send gzip", accepted))
    length = headers.get("content-length")
    found = Route(signal, content_type, encoding, None if length is None else int(length))
    if found.length is not None and found.length > desk.limits.request_bytes:
        raise Refusal(too_large(found, desk))
    return found


def export(found: Route, body: bytes, desk: Desk) -> Answer:
    """Take the body of a request and return the answer to it."""
    try:
        plain = body
        if found.encoding in ENCODINGS:
            plain = decompress(body, found.encoding, desk.limits.request_bytes)
        response = desk.take(found.signal, plain, as_json=found.as_json)
    except TooLarge:
        return too_large(found, desk)
    except BadEncoding as error:
        desk.tally.refused(found.signal, "bad compression")
        return _error(found, 400, _INVALID_ARGUMENT, str(error))
    except Malformed as error:
        return _error(found, 400, _INVALID_ARGUMENT, str(error))
    except Busy as error:
        return _error(found, 503, _UNAVAILABLE, str(error), retry_after_s=desk.limits.retry_after_s)
    return Answer(200, found.content_type, _encoded(found, response))


def too_large(found: Route, desk: Desk) -> Answer:
    """Return the answer to a body above the limit, after counting."""
    desk.tally.refused(found.signal, "too large")
    limit = f"{desk.limits.request_bytes:,} bytes after decompression"
    return _error(found, 413, _OUT_OF_RANGE, f"a request may have {limit}; send smaller batches", close=True)


def too_slow(found: Route, desk: Desk) -> Answer:
    """Return the answer to a body that does not come to its end, after counting."""
    desk.tally.refused(found.signal, "too slow")
    return _error(found, 408, _UNAVAILABLE, f"the body took more than {desk.limits.body_s:g} s", close=True)


def broken_off(found: Route, desk: Desk, reason: str) -> Answer:
    """Return the answer to a body that ends early or is badly chunked, after counting."""
    desk.tally.refused(found.signal, "broken off")
    return _error(found, 400, _INVALID_ARGUMENT, f"the body is not whole: {reason}", close=True)


def no_room(found: Route, desk: Desk) -> Answer:
    """Return the answer while too many bodies are on their way, after counting."""
    desk.tally.refused(found.signal, "too many bodies on their way")
    return _error(
        found,
        503,
        _UNAVAILABLE,
        "too many bodies are on their way",
        retry_after_s=desk.limits.retry_after_s,
        close=True,
    )


def bad_request(status: int, reason: str) -> Answer:
    """Return the answer to bytes that are no HTTP."""
    return Answer(status, TEXT, f"{reason}\n".encode(), close=True)


def _words(status: int, text: str, headers: Headers = ()) -> Answer:
    return Answer(status, TEXT, f"{text}\n".encode(), headers)


def _error(
    found: Route,
    status: int,
    code: int,
    message: str,
    *,
    retry_after_s: int | None = None,
    close: bool = False,
) -> Answer:
    headers = () if retry_after_s is None else (("retry-after", str(retry_after_s)),)
    body = _encoded(found, packages.status(code, message))
    return Answer(status, found.content_type, body, headers, close)


def _encoded(found: Route, message: Any) -> bytes:
    return json_requests.write(message) if found.as_json else bytes(message.SerializeToString())
