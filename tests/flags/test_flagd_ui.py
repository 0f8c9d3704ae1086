"""flagd-ui of each generation over real HTTP, with and without faults."""

import asyncio
import json
import socket
import threading
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from dataclasses import replace
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from typing import Any

import httpx
import pytest

from pytest_otel_diag.errors import ConfigurationError, FlagError, LostUpdate
from pytest_otel_diag.flags.surfaces.flagd_ui import FlagdUiSurface, open_surface
from pytest_otel_diag.flags.surfaces.read_back import RetryPolicy
from tests.support.deadlines import deadline_s
from tests.support.flagd_ui import GENERATIONS, Fault, FlagdUi, Generation
from tests.support.remote_flags import FLAG, ONE_LOOK, PATIENT, document, switched, variant

WRITERS: tuple[Generation, ...] = ("1.12", "3.0")
"""2.2 differs from 3.0 in how the file is written; the contract runs over it too."""

DEAF = (Fault.LOST, Fault.ERROR, Fault.UNAVAILABLE, Fault.PAGE, Fault.RESET)
"""Faults that lose a write."""
MUTE = (Fault.SLOW, Fault.ERROR_KEPT, Fault.TRUNCATED, Fault.HALF)
"""Faults that store a write without acknowledging it."""


@pytest.fixture(params=WRITERS)
def ui(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[FlagdUi]:
    with started(tmp_path, request.param) as ui:
        yield ui


@contextmanager
def started(folder: Path, generation: Generation) -> Iterator[FlagdUi]:
    path = folder / "demo.flagd.json"
    path.write_bytes(document())
    with FlagdUi(path, generation) as ui:
        yield ui


@pytest.fixture
async def surface(ui: FlagdUi) -> AsyncIterator[FlagdUiSurface]:
    async with closing(reached(ui.url)) as surface:
        yield surface


def reached(url: str, retry: RetryPolicy = PATIENT) -> FlagdUiSurface:
    """Return a surface whose requests time out only when no answer comes at all."""
    return FlagdUiSurface(url, retry=retry, timeout_s=deadline_s(10))


def impatient(url: str, tries: int = 100) -> FlagdUiSurface:
    """Return a surface for a flagd-ui that does not answer; *tries* outlast a slow machine."""
    return FlagdUiSurface(url, retry=replace(PATIENT, tries=tries), timeout_s=0.3)


@asynccontextmanager
async def closing(surface: FlagdUiSurface) -> AsyncIterator[FlagdUiSurface]:
    try:
        yield surface
    finally:
        await surface.aclose()


def posts(ui: FlagdUi) -> int:
    return sum(request.startswith("POST") for request in ui.requests)


async def post(ui: FlagdUi, body: Any) -> httpx.Response:
    async with httpx.AsyncClient() as client:
        return await client.post(f"{ui.url}/api/write-to-file", json=body)


@pytest.mark.parametrize("generation", GENERATIONS)
async def test_the_generation_is_found_by_its_routes_which_are_probed_once(
    tmp_path: Path, generation: Generation
) -> None:
    message = {"1.12": "1.12 to 2.0.2", "2.1": "2.1", "2.2": "2.2 or later", "3.0": "2.2 or later"}
    with started(tmp_path, generation) as ui:
        for url in (ui.url, ui.url.removesuffix("/feature"), f"{ui.url}/"):
            surface = reached(url)
            assert await surface.generation() == message[generation]
            asked = len(ui.requests)
            assert surface.same(await surface.read(), document())
            assert len(ui.requests) == asked + 1
            assert surface.identity == f"flagd-ui:http://localhost:{ui.port}/feature"
            await surface.aclose()


async def test_a_flagd_ui_without_a_base_path_is_found(tmp_path: Path) -> None:
    with serving({"/api/read": document(), "/api/read-file": document()}) as url:
        surface = reached(url)
        assert await surface.generation() == "2.2 or later"
        await surface.aclose()


async def test_a_read_only_generation_refuses_to_write_and_names_alternatives(tmp_path: Path) -> None:
    with started(tmp_path, "2.1") as ui:
        surface = reached(ui.url)
        raw = await surface.read()
        for write in (surface.write(switched(raw), expected=raw), surface.overwrite(raw)):
            with pytest.raises(FlagError, match=r"2\.1.*read-only") as refused:
                await write
            assert "src/flagd/demo.flagd.json" in str(refused.value)
            assert "configmap:NAMESPACE/flagd-config" in str(refused.value)
        assert posts(ui) == 0
        await surface.aclose()


async def test_a_write_is_in_the_file_in_the_shape_that_the_demo_ships(
    ui: FlagdUi, surface: FlagdUiSurface
) -> None:
    raw = await surface.read()
    await surface.write(switched(raw), expected=raw)
    kept = json.loads(ui.path.read_bytes())
    assert variant(ui.path.read_bytes()) == "50%"
    assert kept == json.loads(switched(document()))
    assert list(ui.path.parent.iterdir()) == [ui.path]


@pytest.mark.parametrize(
    "fault", [fault for fault in Fault if fault not in (Fault.LOST, Fault.LATE, Fault.OTHER, Fault.REFUSED)]
)
async def test_a_read_that_fails_once_or_twice_is_repeated(ui: FlagdUi, fault: Fault) -> None:
    ui.fail(fault, times=2, method="GET")
    async with closing(impatient(ui.url) if fault is Fault.SLOW else reached(ui.url)) as surface:
        assert surface.same(await surface.read(), document())
        assert await surface.generation() == ("1.12 to 2.0.2" if ui.generation == "1.12" else "2.2 or later")


@pytest.mark.parametrize(
    ("fault", "message"),
    [
        (Fault.ERROR, "answered 500"),
        (Fault.UNAVAILABLE, "the proxy runs, but flagd-ui behind it does not"),
        (Fault.SLOW, "did not answer within 0.3 s"),
        (Fault.RESET, "does not answer"),
        (Fault.TRUNCATED, "does not answer"),
        (Fault.HALF, "not with"),
    ],
)
async def test_a_read_that_always_fails_says_what_came(
    ui: FlagdUi, surface: FlagdUiSurface, fault: Fault, message: str
) -> None:
    ui.fail(fault, times=100)
    async with closing(impatient(ui.url, 3) if fault is Fault.SLOW else reached(ui.url)) as failing:
        with pytest.raises(FlagError, match=message):
            await failing.read()
    ui.well()
    assert surface.same(await surface.read(), document())


@pytest.mark.parametrize("fault", DEAF)
async def test_a_write_that_is_not_stored_is_sent_again(ui: FlagdUi, fault: Fault) -> None:
    async with closing(reached(ui.url, ONE_LOOK)) as surface:
        raw = await surface.read()
        ui.fail(fault, method="POST")
        await surface.write(switched(raw), expected=raw)
    assert variant(ui.path.read_bytes()) == "50%"
    assert posts(ui) == 2


@pytest.mark.parametrize("fault", MUTE)
async def test_a_write_that_is_stored_but_not_acknowledged_counts(ui: FlagdUi, fault: Fault) -> None:
    async with closing(impatient(ui.url) if fault is Fault.SLOW else reached(ui.url)) as surface:
        raw = await surface.read()
        ui.fail(fault, method="POST")
        await surface.write(switched(raw), expected=raw)
    assert variant(ui.path.read_bytes()) == "50%"
    assert posts(ui) == 1


async def test_a_late_write_is_waited_for(ui: FlagdUi, surface: FlagdUiSurface) -> None:
    raw = await surface.read()
    ui.fail(Fault.LATE, method="POST", delay_s=0.15)
    await surface.write(switched(raw), expected=raw)
    assert variant(ui.path.read_bytes()) == "50%"
    assert posts(ui) == 1


async def test_a_write_that_is_never_stored_is_given_up_after_some_attempts(ui: FlagdUi) -> None:
    async with closing(reached(ui.url, ONE_LOOK)) as surface:
        raw = await surface.read()
        ui.fail(Fault.LOST, method="POST", times=100)
        with pytest.raises(FlagError, match="does not keep what is written: after 3 writes") as failed:
            await surface.write(switched(raw), expected=raw)
    assert not isinstance(failed.value, LostUpdate)
    assert posts(ui) == ONE_LOOK.tries
    assert json.loads(ui.path.read_bytes()) == json.loads(document())


async def test_the_last_failure_is_reported_when_nothing_answers_after_a_write(ui: FlagdUi) -> None:
    async with closing(reached(ui.url, ONE_LOOK)) as surface:
        raw = await surface.read()
        ui.fail(Fault.ERROR_KEPT, method="POST", times=100)
        ui.fail(Fault.LOST, method="GET")  # the comparison before the write
        ui.fail(Fault.UNAVAILABLE, method="GET", times=10_000)
        with pytest.raises(FlagError, match=r"the last answer was: .*answered 500"):
            await surface.write(switched(raw), expected=raw)


async def test_an_external_change_after_our_write_is_named_by_its_flags(
    ui: FlagdUi, surface: FlagdUiSurface
) -> None:
    raw = await surface.read()
    ui.fail(Fault.OTHER, method="POST", other=switched(document(), "adFailure", "on"))
    with pytest.raises(LostUpdate, match=r"another client after our write .*adFailure"):
        await surface.write(switched(raw), expected=raw)
    assert variant(ui.path.read_bytes(), "adFailure") == "on"


async def test_an_external_change_before_our_write_is_left_alone(
    ui: FlagdUi, surface: FlagdUiSurface
) -> None:
    raw = await surface.read()
    theirs = switched(document(), "adFailure", "on")
    assert (await post(ui, {"data": json.loads(theirs)})).status_code == 200
    with pytest.raises(LostUpdate, match=r"changed by another client since it was read .*adFailure"):
        await surface.write(switched(raw), expected=raw)
    assert json.loads(ui.path.read_bytes()) == json.loads(theirs)


async def test_overwriting_replaces_any_document(ui: FlagdUi, surface: FlagdUiSurface) -> None:
    await surface.read()
    assert (await post(ui, {"data": {"flags": {}}})).status_code == 200
    await surface.overwrite(document())
    assert json.loads(ui.path.read_bytes()) == json.loads(document())


@pytest.mark.parametrize("generation", ["2.2", "3.0"])
async def test_edits_of_the_file_are_invisible_to_a_caching_flagd_ui(
    tmp_path: Path, generation: Generation
) -> None:
    """As in the demo: a write through flagd-ui reverts direct edits of the file."""
    with started(tmp_path, generation) as ui:
        surface = reached(ui.url)
        raw = await surface.read()
        ui.path.write_bytes(switched(document(), "adFailure", "on"))
        assert surface.same(await surface.read(), raw)
        await surface.write(switched(raw), expected=raw)
        assert variant(ui.path.read_bytes(), "adFailure") == "off"
        ui.path.write_bytes(switched(document(), "adFailure", "on"))
        ui.restart()
        assert variant(await surface.read(), "adFailure") == "on"
        await surface.aclose()


async def test_two_routes_that_disagree_are_a_stale_memory(tmp_path: Path) -> None:
    routes = {
        "/feature/api/read": document(),
        "/feature/api/read-file": switched(document(), "adFailure", "on"),
    }
    with serving(routes) as url:
        surface = reached(url)
        with pytest.raises(FlagError, match=r"two documents.*edited directly.*one place only"):
            await surface.read()
        routes["/feature/api/read-file"] = document()
        assert surface.same(await surface.read(), document())
        await surface.aclose()


async def test_rules_that_flagd_ui_hides_forbid_writing_them_back(tmp_path: Path) -> None:
    body = json.loads(document())
    body["$evaluators"] = {"mine": {"if": [True, "on", "off"]}}
    body["flags"]["adFailure"]["targeting"] = {"$ref": "mine"}
    path = tmp_path / "demo.flagd.json"
    path.write_text(json.dumps(body))
    with FlagdUi(path, "3.0") as ui:
        surface = reached(ui.url)
        with pytest.raises(FlagError, match=r"\$evaluators.*would break them.*file:PATH"):
            await surface.read()
        await surface.aclose()
    with FlagdUi(path, "1.12") as ui:  # which returns the whole file
        surface = reached(ui.url)
        raw = await surface.read()
        await surface.write(switched(raw), expected=raw)
        assert json.loads(path.read_bytes())["$evaluators"] == body["$evaluators"]
        await surface.aclose()


async def test_an_address_without_flagd_ui_says_what_else_works() -> None:
    with serving({}) as url:
        surface = reached(url)
        with pytest.raises(FlagError, match=r"there is no flagd-ui at .*before 1\.12.*file:PATH"):
            await surface.read()
        await surface.aclose()
    page = b"<!DOCTYPE html><html>a shop</html>"
    with serving(dict.fromkeys(("/feature/api/read", "/feature/api/read-file"), page)) as url:
        surface = reached(url)
        with pytest.raises(FlagError, match="there is no flagd-ui"):
            await surface.read()
        await surface.aclose()


@pytest.mark.parametrize("status", [401, 403])
async def test_a_login_in_front_of_it_is_explained(status: int) -> None:
    with serving({}, status=status) as url:
        surface = reached(url)
        with pytest.raises(FlagError, match=f"requires a login .{status}"):
            await surface.read()
        await surface.aclose()


async def test_a_document_that_is_refused_is_not_sent_again(ui: FlagdUi, surface: FlagdUiSurface) -> None:
    raw = await surface.read()
    ui.fail(Fault.REFUSED, method="POST")
    with pytest.raises(FlagError, match="refused the document with 413"):
        await surface.write(switched(raw), expected=raw)
    assert posts(ui) == 1
    assert json.loads(ui.path.read_bytes()) == json.loads(document())


async def test_another_generation_at_the_same_address_is_found(tmp_path: Path) -> None:
    with started(tmp_path, "1.12") as ui:
        surface = reached(ui.url)
        assert await surface.generation() == "1.12 to 2.0.2"
        ui.generation = "3.0"
        ui.restart()
        raw = await surface.read()
        ui.generation = "2.1"
        assert surface.same(await surface.read(), raw)
        await surface.aclose()


async def test_readers_at_the_same_time_see_whole_documents(tmp_path: Path) -> None:
    with started(tmp_path, "3.0") as ui:
        writer, reader = reached(ui.url), reached(ui.url)
        ended = asyncio.Event()
        seen: set[str] = set()

        async def read() -> None:
            while not ended.is_set():
                seen.add(variant(await reader.read()))

        async with asyncio.TaskGroup() as group:
            group.create_task(read())
            for chosen in ("50%", "off", "100%", "off"):
                raw = await writer.read()
                await writer.write(switched(raw, variant=chosen), expected=raw)
            ended.set()
        assert seen <= {"50%", "off", "100%"}
        await writer.aclose()
        await reader.aclose()


def test_an_address_is_one_place_however_it_is_spelt() -> None:
    spelt = (
        "http://127.0.0.1:80",
        "http://localhost/feature",
        "http://localhost./feature",
        "http://LOCALHOST//feature",
        "http://demo.localhost",
        "http://0.0.0.0",
        "http://127.9.8.7:80/",
        "http://127.1",
        "http://[::1]",
        "http://[::ffff:127.0.0.1]",
        f"http://{socket.gethostname()}",
        "http://LOCALHOST:80/feature/",
        "localhost:80",
    )
    assert len({open_surface(one).identity for one in spelt}) == 1
    assert open_surface("https://demo.example").identity == "flagd-ui:https://demo.example:443/feature"
    secret = open_surface("http://user:secret@demo.example:8080/feature")
    assert "secret" not in secret.name + secret.identity
    assert secret.lease() is None
    assert secret.write_timeout_s > 15
    with pytest.raises(ConfigurationError, match="is not an address"):
        open_surface("ftp://demo.example")


async def test_bad_writes_are_answered_as_the_demo_does(tmp_path: Path) -> None:
    for generation, status in (("1.12", 500), ("2.2", 400)):
        with started(tmp_path, generation) as ui:  # type: ignore[arg-type]  # the two are generations
            assert (await post(ui, {"flags": {}})).status_code == status
            assert ui.path.read_bytes() == document()
            assert (await post(ui, {"data": {"none": 1}})).status_code == 200
            ui.path.write_text("{")
            async with httpx.AsyncClient() as client:
                assert (await client.get(f"{ui.url}/api/read-file")).status_code == 500
                assert (await client.get(f"{ui.url}/other")).status_code == 404


@contextmanager
def serving(routes: dict[str, bytes], *, status: int = 404) -> Iterator[str]:
    """Serve fixed answers to GET; *status* for other paths."""

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.answer(200 if self.path in routes else status, routes.get(self.path, b"no"))

        def answer(self, code: int, body: bytes) -> None:
            self.send_response(code)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_: Any) -> None:
            pass

    server = HTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True)
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_address[1]}"
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


def test_the_flag_of_these_tests_is_off_in_the_document() -> None:
    assert variant(document(), FLAG) == "off"
