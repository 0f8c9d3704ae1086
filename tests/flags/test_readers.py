"""Readers when another service answers, or none, over real HTTP, gRPC and sockets."""

import asyncio
import json
import socket
import sys
import threading
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import grpc
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pytest_otel_diag.errors import ConfigurationError, FlagError
from pytest_otel_diag.flags import http
from pytest_otel_diag.flags.access import open_reader
from pytest_otel_diag.flags.controller import SurfaceFlags
from pytest_otel_diag.flags.http import HttpClient, HttpRefused
from pytest_otel_diag.flags.readers import flagd_grpc
from pytest_otel_diag.flags.readers.answers import FlagDisabled, NotEvaluated, UnknownFlag, number, plain
from pytest_otel_diag.flags.readers.flagd_grpc import FlagdGrpcReader
from pytest_otel_diag.flags.readers.flagd_http import FlagdHttpReader
from pytest_otel_diag.flags.readers.ofrep import OfrepReader
from pytest_otel_diag.flags.surfaces.file import FileSurface
from pytest_otel_diag.secret import masked
from tests.support.flagd_stand_in import FlagdStandIn

PAGE = b"<!DOCTYPE html><html><body>upstream connect error</body></html>"
JSON = "application/json"


@contextmanager
def serving(answer):
    """Serve ``answer(path, body) -> (status, content type, bytes)`` over HTTP; yield the URL."""

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_POST(self):
            body = self.rfile.read(int(self.headers.get("content-length", 0)))
            status, kind, content = answer(self.path, json.loads(body or b"{}"))
            self.send_response(status)
            self.send_header("content-type", kind)
            self.send_header("content-length", str(len(content)))
            self.end_headers()
            self.wfile.write(content)

        def do_GET(self):
            self.do_POST()

        def log_message(self, *arguments):
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever, args=(0.01,))
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_port}"
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


@contextmanager
def sending(raw, *, wait_s=0.0):
    """Answer every connection with *raw* after *wait_s*, and close it; yield the URL."""
    listener = socket.create_server(("127.0.0.1", 0))
    done = threading.Event()

    def serve():
        while not done.is_set():
            try:
                connection, _ = listener.accept()
            except OSError:
                return
            with connection:
                connection.recv(65536)
                done.wait(wait_s)
                connection.sendall(raw)

    thread = threading.Thread(target=serve)
    thread.start()
    try:
        yield f"http://127.0.0.1:{listener.getsockname()[1]}"
    finally:
        done.set()
        listener.shutdown(socket.SHUT_RDWR)
        listener.close()
        thread.join()


async def served(reader, key="adFailure", context=None):
    try:
        return await reader.served(key, context or {})
    finally:
        await reader.aclose()


async def refusal(reader, key="adFailure", context=None):
    with pytest.raises(FlagError) as caught:
        await served(reader, key, context)
    return str(caught.value)


HTTP_READERS = pytest.mark.parametrize("reader", [OfrepReader, FlagdHttpReader])


@HTTP_READERS
@pytest.mark.parametrize(
    ("status", "kind", "content", "match"),
    [
        (200, "text/html", PAGE, "an HTML page"),
        (503, "text/plain", b"upstream connect error or disconnect/reset before headers", "upstream connect"),
        (404, "text/html", PAGE, "404 with an HTML page"),
        (404, "text/plain", b"404 page not found", "404 page not found"),
        (500, JSON, b'{"error": "out of order"}', "out of order"),
        (200, JSON, b'{"flags": ', "not with"),
        (200, JSON, b"[1, 2]", "[1, 2]"),
        (200, "", b"", "an empty body"),
        (302, "text/html", b"", "302"),
    ],
    ids=str,
)
async def test_an_answer_that_is_not_flagds_is_quoted(reader, status, kind, content, match):
    with serving(lambda path, body: (status, kind, content)) as url:
        text = await refusal(reader(url))
        assert url in text
        assert "check the address" in text or "start flagd" in text
        assert match in text
        with pytest.raises(FlagError):
            await reader(url).served_all({})


@HTTP_READERS
async def test_a_refused_connection_says_to_start_flagd(reader):
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
    text = await refusal(reader(f"http://127.0.0.1:{port}"))
    assert f"127.0.0.1:{port}" in text
    assert "start flagd" in text


@HTTP_READERS
async def test_an_unknown_host_says_to_start_flagd(reader):
    assert "start flagd" in await refusal(reader("http://no-such-host.invalid:8016"))


@HTTP_READERS
async def test_an_answer_that_does_not_come_is_waited_for_a_bounded_time(reader):
    with sending(b"", wait_s=30) as url:
        assert "did not answer within 0.2 s" in await refusal(reader(url, timeout_s=0.2))


@HTTP_READERS
@pytest.mark.parametrize(
    "raw",
    [
        b"HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: 500\r\n\r\n{",
        b"HTTP/1.1 200 OK\r\ncontent-encoding: gzip\r\ncontent-length: 3\r\n\r\nabc",
        b"not HTTP at all\r\n\r\n",
        b"",
    ],
    ids=["truncated", "bad gzip", "not HTTP", "closed"],
)
async def test_a_broken_answer_is_no_answer(reader, raw):
    with sending(raw) as url:
        assert "does not answer" in await refusal(reader(url))


async def test_an_endless_answer_is_cut(monkeypatch):
    monkeypatch.setattr(http, "MAX_BODY_BYTES", 1000)
    with serving(lambda path, body: (200, JSON, b" " * 5000)) as url:
        assert "more than 1,000 bytes" in await refusal(OfrepReader(url))


def ofrep(flags, **errors):
    """An OFREP service of these flags."""

    def answer(path, body):
        key = path.rpartition("/flags")[2].strip("/")
        if not key:
            return 200, JSON, json.dumps({"flags": list(flags.values())}).encode()
        if key in errors:
            status, error = errors[key]
            return status, JSON, json.dumps(error).encode()
        if key not in flags:
            return 404, JSON, json.dumps({"key": key, "errorCode": "FLAG_NOT_FOUND"}).encode()
        return 200, JSON, json.dumps({**flags[key], "value": body["context"].get("say", "x")}).encode()

    return answer


async def test_ofrep_flags_are_asked_with_their_context_and_errors_name_the_code():
    flags = {"a b/ü": {"key": "a b/ü", "variant": "v"}, "plain": {"key": "plain", "variant": "v", "value": 1}}
    bad = {"errorCode": "TYPE_MISMATCH", "errorDetails": ""}
    service = ofrep(flags, worse=(400, bad), worst=(400, {"what": "is this"}))
    with serving(service) as url:
        assert (await served(OfrepReader(url), "plain", {"say": "hello"})).value == "hello"
        assert "TYPE_MISMATCH, without a reason" in await refusal(OfrepReader(url), "worse")
        assert "is this" in await refusal(OfrepReader(url), "worst")
        assert "did you mean 'plain'" in await refusal(OfrepReader(url), "plane")


@pytest.mark.parametrize(
    ("status", "kind", "body", "error", "match"),
    [
        (200, JSON, {"variant": "on", "value": True, "reason": "CACHED"}, None, ""),
        (200, JSON, {"variant": "on", "value": True, "reason": None}, None, ""),
        (200, JSON, {"variant": "on", "value": True, "key": "other"}, FlagError, "not an OFREP evaluation"),
        (200, JSON, {"variant": "on", "value": [1]}, NotEvaluated, r"the value \[1\]; supported are"),
        (200, JSON, {"variant": "on"}, NotEvaluated, "has no variant"),
        (200, JSON, {"value": True}, NotEvaluated, "has no variant"),
        (200, JSON, {"variant": "off", "value": False, "reason": "DISABLED"}, FlagDisabled, "is DISABLED"),
        (200, JSON, {"variant": "off", "value": False, "reason": "ERROR"}, NotEvaluated, "ERROR, without"),
        (200, JSON, {"errorCode": "PARSE_ERROR", "errorDetails": None}, NotEvaluated, "PARSE_ERROR, without"),
        (404, JSON, {"key": "adFailure"}, UnknownFlag, "serves no flag 'adFailure'"),
        (404, JSON, {"errorCode": "FLAG_NOT_FOUND", "errorDetails": "is Disabled"}, FlagDisabled, "DISABLED"),
        (404, "text/plain", "404 page not found", UnknownFlag, "serves no flag 'adFailure'.*known flags: b"),
        (304, JSON, None, FlagError, "answered 304"),
    ],
    ids=str,
)
async def test_odd_ofrep_answers(status, kind, body, error, match):
    def answer(path, asked):
        if path.endswith("/flags"):
            return 200, JSON, json.dumps({"flags": [1, {"key": "b", "variant": "x", "value": 1}]}).encode()
        content = b"" if body is None else json.dumps(body).encode() if kind == JSON else body.encode()
        return status, kind, content

    with serving(answer) as url:
        if error is None:
            assert (await served(OfrepReader(url))).variant == "on"
        else:
            with pytest.raises(error, match=match):
                await served(OfrepReader(url))


@pytest.mark.parametrize(("value", "variant"), [(1, "on"), (1.0, "on"), (0, "off"), (True, ""), (7, "")])
async def test_an_ofrep_answer_without_a_variant_is_named_by_its_value(value, variant, tmp_path):
    path = tmp_path / "demo.flagd.json"
    flag = {"state": "ENABLED", "variants": {"on": 1, "off": 0}, "defaultVariant": "off"}
    path.write_text(json.dumps({"flags": {"adFailure": flag}}))
    with serving(lambda asked, body: (200, JSON, json.dumps({"value": value}).encode())) as url:
        flags = SurfaceFlags(FileSurface(path), OfrepReader(url), now=lambda: 1)
        await flags.document()
        if variant:
            assert (await flags.served("adFailure", {})).variant == variant
        else:
            with pytest.raises(NotEvaluated, match="has no variant"):
                await flags.served("adFailure", {})
        await flags.aclose()


async def test_odd_flags_among_all_flags_are_left_out():
    odd = [1, {"variant": "on"}, {"key": "a", "variant": "on"}, {"key": "b", "variant": "on", "value": [1]}]
    odd += [{"key": "c", "errorCode": "GENERAL"}, {"key": "d", "variant": "on", "value": 0}]
    with serving(lambda path, body: (200, JSON, json.dumps({"flags": odd}).encode())) as url:
        reader = OfrepReader(url)
        assert list(await reader.served_all({})) == ["d"]
        await reader.aclose()


async def test_an_unknown_flag_is_reported_even_without_known_names():
    def answer(path, body):
        found = {"errorCode": "FLAG_NOT_FOUND"} if path.endswith("/nothing") else {"flags": [1]}
        return 404 if "errorCode" in found else 200, JSON, json.dumps(found).encode()

    with serving(answer) as url:
        with pytest.raises(UnknownFlag, match=r"serves no flag 'nothing'$"):
            await served(OfrepReader(url), "nothing")
        with pytest.raises(FlagError, match="not an OFREP evaluation"):
            await OfrepReader(url).served_all({})


def connect(everything, **single):
    """flagd's protocol as JSON: ``everything`` for ResolveAll, ``single`` by method."""

    def answer(path, body):
        method = path.rpartition("/")[2]
        if method == "ResolveAll":
            return 200, JSON, json.dumps(everything).encode()
        status, found = single.get(
            method, (400, {"code": "invalid_argument", "message": "Type mismatch error"})
        )
        return status, JSON, json.dumps(found).encode()

    return answer


ONE = {"flags": {"adFailure": {"reason": "STATIC", "variant": "on", "doubleValue": 100}}}


@pytest.mark.parametrize(
    ("value", "expected"), [("100", 100), (100, 100), (0.5, 0.5), ("0.5", 0.5), (-3.0, -3), ("-3", -3)]
)
async def test_numbers_come_as_text_too(value, expected):
    with serving(connect(ONE, ResolveFloat=(200, {"value": value, "variant": "on"}))) as url:
        answer = await served(FlagdHttpReader(url))
        assert (answer.value, type(answer.value)) == (expected, type(expected))


async def test_a_zero_that_is_left_out_of_a_message_is_a_zero():
    with serving(connect(ONE, ResolveFloat=(200, {"variant": "on"}))) as url:
        assert (await served(FlagdHttpReader(url))).value == 0


@pytest.mark.parametrize(
    ("everything", "single", "match"),
    [
        (ONE, {"ResolveFloat": (200, {"value": "x", "variant": "on"})}, "which is not a float"),
        (ONE, {"ResolveFloat": (200, {"value": 1})}, "has no variant"),
        (ONE, {"ResolveFloat": (500, {"code": "unknown", "message": "General error"})}, "General error"),
        (
            ONE,
            {"ResolveFloat": (404, {"code": "not_found", "message": "Flag not found"})},
            "has no variant",
        ),
        (ONE, {"ResolveFloat": (404, {"code": "not_found", "message": "Flag is disabled"})}, "DISABLED"),
        (ONE, {}, "invalid_argument, Type mismatch"),
        ({}, {"ResolveBoolean": (404, {"code": "not_found", "message": ""})}, "serves no flag 'adFailure'$"),
        ({"flags": [1]}, {}, "not an evaluation of flagd"),
        ({"flags": {"a": 1}}, {}, "not an evaluation of flagd"),
        ({"flags": {"adFailure": {"variant": "on"}}}, {}, "invalid_argument"),
    ],
    ids=str,
)
async def test_refusals_of_flagd_over_http_are_reported(everything, single, match):
    with serving(connect(everything, **single)) as url, pytest.raises(FlagError, match=match):
        await served(FlagdHttpReader(url))


# gRPC.

RAW = json.dumps(
    {
        "flags": {
            "adFailure": {
                "state": "ENABLED",
                "variants": {"on": True, "off": False},
                "defaultVariant": "off",
            },
        }
    }
).encode()


async def test_a_grpc_service_that_is_not_flagd_is_reported():
    server = grpc.server(ThreadPoolExecutor(1))
    port = server.add_insecure_port("127.0.0.1:0")
    server.start()
    try:
        text = await refusal(FlagdGrpcReader(f"127.0.0.1:{port}"))
        assert "UNIMPLEMENTED" in text
        assert "8013" in text
    finally:
        server.stop(None).wait()
    flagd = FlagdStandIn(RAW)  # answers for single flags only
    try:
        assert "UNIMPLEMENTED" in await refusal(FlagdGrpcReader(flagd.address))
    finally:
        flagd.stop()


async def test_an_answer_over_grpc_that_is_no_message_is_an_error_and_no_value():
    """As with a compressed answer that is not decompressed, which happened with flagd."""

    class Garbage(grpc.GenericRpcHandler):
        def service(self, details):
            return grpc.unary_unary_rpc_method_handler(lambda request, context: b"\x1f\x8b\x08\x00")

    server = grpc.server(ThreadPoolExecutor(1), handlers=[Garbage()])
    port = server.add_insecure_port("127.0.0.1:0")
    server.start()
    try:
        assert "undecodable message; try again" in await refusal(FlagdGrpcReader(f"127.0.0.1:{port}"))
    finally:
        server.stop(None).wait()


async def test_a_grpc_request_without_an_answer_is_bounded():
    with sending(b"", wait_s=30) as url:
        text = await refusal(FlagdGrpcReader(url.removeprefix("http://"), timeout_s=0.3))
        assert "does not answer (DEADLINE_EXCEEDED" in text


@pytest.mark.parametrize("text", ["", "host:0", "host:70000", "http://host:1", "host:port", ":80", "a/b:1"])
def test_what_is_no_address_for_grpc_is_refused(text):
    with pytest.raises(ConfigurationError, match="grpc:HOST:PORT"):
        flagd_grpc.parse_address(text)


def test_the_usual_port_of_grpc_is_known():
    assert flagd_grpc.parse_address("flagd") == "flagd:8013"
    assert flagd_grpc.parse_address("//flagd:9 ") == "flagd:9"
    assert flagd_grpc.parse_address("[::1]") == "[::1]:8013"


# Addresses.


@pytest.mark.parametrize(
    "text", ["ftp://host", "http://", "http://host:x", "host/a b", "http://h?x=1", "http://h#f", ""]
)
def test_what_is_no_url_is_refused(text):
    with pytest.raises(ConfigurationError, match=r"is not an address; write http://HOST:PORT"):
        OfrepReader(text)


def test_passwords_are_never_shown():
    client = HttpClient("http://user:secret@host:1/x/", remedy="")
    assert client.name == "http://***@host:1/x"
    with pytest.raises(ConfigurationError) as caught:
        HttpClient("ftp://user:secret@host", remedy="")
    assert "secret" not in str(caught.value)
    assert masked("user:secret@host:8013") == "***@host:8013"


async def test_passwords_are_not_shown_in_errors_either():
    with pytest.raises(HttpRefused) as caught:
        await HttpClient("http://user:secret@127.0.0.1:1", remedy="try").get("x")
    assert "secret" not in str(caught.value)


async def test_get_and_the_address_itself():
    with serving(lambda path, body: (200, "text/plain", path.encode())) as url:
        client = HttpClient(f"{url}/base/", remedy="")
        assert (await client.get("/a", {"x-y": "z"})).body == b"/base/a"
        assert (await client.get("")).body == b"/base"
        await client.aclose()
        await client.aclose()
        assert (await client.get("b")).body == b"/base/b"
        await client.aclose()


def test_a_client_of_a_loop_that_has_ended_is_left_behind():
    with serving(lambda path, body: (200, "text/plain", b"x")) as url:
        client = HttpClient(url, remedy="")
        for _ in range(2):
            assert asyncio.run(client.get("")).body == b"x"
        asyncio.run(client.aclose())


# Probing.


async def test_a_frontend_that_forwards_flagd_is_found_below_its_path():
    def answer(path, body):
        if path.startswith("/flagservice/"):
            found = {"value": 100, "variant": "on"}
            return connect(ONE, ResolveFloat=(200, found))(path, body)
        return 404, "text/html", PAGE

    with serving(answer) as url:
        reader = open_reader(url)
        assert reader.name == url
        assert (await reader.served("adFailure", {})).value == 100
        assert reader.name == f"flagd at {url}/flagservice"
        assert list(await reader.served_all({})) == ["adFailure"]
        await reader.aclose()


async def test_a_probe_that_finds_nothing_lists_what_was_tried_and_tries_again():
    answers = {"now": (503, "text/plain", b"starting")}
    with serving(lambda path, body: answers["now"]) as url:
        reader = open_reader(url)
        with pytest.raises(FlagError) as caught:
            await reader.served("adFailure", {})
        text = str(caught.value)
        assert text.startswith(f"nothing at {url} evaluates flags (")
        assert text.count("answered 503") == 3
        assert "ofrep:URL, flagd:URL or grpc:HOST:PORT" in text
        bulk = {"flags": [{"key": "adFailure", "variant": "on", "value": True}]}
        answers["now"] = (200, JSON, json.dumps(bulk).encode())
        assert (await reader.served_all({}))["adFailure"].value is True
        await reader.aclose()


async def test_nothing_to_close_before_something_was_found():
    await open_reader("http://127.0.0.1:1").aclose()
    await FlagdGrpcReader("127.0.0.1:1").aclose()


async def test_the_port_of_grpc_is_tried_over_grpc_first(monkeypatch):
    tried = []

    async def refuse(self, context):
        tried.append(type(self).__name__)
        raise FlagError("no; really")

    for kind in (FlagdGrpcReader, OfrepReader, FlagdHttpReader):
        monkeypatch.setattr(kind, "served_all", refuse)
    for address, first, count in (
        ("host:8013", "FlagdGrpcReader", 4),
        ("host:80", "OfrepReader", 4),
        ("http://host:8013/flagservice", "OfrepReader", 2),
    ):
        tried.clear()
        with pytest.raises(FlagError, match=r"\(no; no"):
            await open_reader(address).served("x", {})
        assert (tried[0], len(tried)) == (first, count)


# Values and missing parts.


@given(st.one_of(st.integers(-(2**53), 2**53), st.floats(allow_nan=False, allow_infinity=False)))
def test_a_number_survives_every_way_of_writing_it(value):
    for written in (value, float(value), str(value), repr(float(value))):
        found = number(written)
        assert found == value
        assert isinstance(found, int) == (float(value).is_integer())


@pytest.mark.parametrize("value", [True, None, "x", "", {}, [1]])
def test_what_is_no_number_is_none(value):
    assert number(value) is None


def test_whole_floats_in_objects_are_integers():
    assert (
        json.dumps(plain({"a": [1.0, 0.5, {"b": 2.0}], "c": "1.0"}))
        == '{"a": [1, 0.5, {"b": 2}], "c": "1.0"}'
    )


@pytest.mark.parametrize(
    ("module", "make"),
    [("httpx", lambda: OfrepReader("http://host:1")), ("grpc", lambda: FlagdGrpcReader("host:1"))],
)
def test_a_missing_package_names_the_extra(monkeypatch, module, make):
    flagd_grpc._library.cache_clear()
    monkeypatch.setitem(sys.modules, module, None)
    with pytest.raises(ConfigurationError, match=r'pip install "pytest-otel-diag\[live\]"'):
        make()
    flagd_grpc._library.cache_clear()
