"""The contract over flagd-ui of each generation that can write, with the real flagd over its file."""

import json
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import httpx
import pytest

from pytest_otel_diag.flags.access import open_reader
from pytest_otel_diag.flags.comparison import same_json
from pytest_otel_diag.flags.controller import SurfaceFlags
from pytest_otel_diag.flags.surfaces.flagd_ui import FlagdUiSurface
from pytest_otel_diag.testing.flag_contract import (
    FlagControllerContract,
    FlagDocumentContract,
    FlagRulesContract,
    SurfaceContract,
    Targeted,
)
from tests.support.flagd import Flagd
from tests.support.flagd_ui import FlagdUi, Generation
from tests.support.remote_flags import FLAG, SHARED, TARGETED, document


@dataclass
class Place:
    ui: FlagdUi
    flagd: Flagd


class _Contract(FlagControllerContract, SurfaceContract):
    generation: Generation
    same = staticmethod(same_json)

    @pytest.fixture(scope="class")
    @classmethod
    def place(cls, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Place]:
        folder = tmp_path_factory.mktemp("flags")
        path = folder / "demo.flagd.json"
        path.write_bytes(document())
        log = tmp_path_factory.mktemp("log") / "flagd.log"
        with FlagdUi(path, cls.generation) as ui, Flagd(path, log) as flagd:
            yield Place(ui, flagd)

    @pytest.fixture
    async def surface(self, place: Place) -> AsyncIterator[FlagdUiSurface]:
        surface = FlagdUiSurface(place.ui.url)
        yield surface
        await surface.aclose()

    @pytest.fixture
    async def controller(self, place: Place, surface: FlagdUiSurface) -> AsyncIterator[SurfaceFlags]:
        reader = open_reader(f"ofrep:{place.flagd.ofrep}")
        controller = SurfaceFlags(surface, reader, now=time.time_ns)
        before = await controller.document()
        yield controller
        await controller.restore(before)
        await controller.aclose()

    @pytest.fixture
    def rewrite(self, place: Place) -> Callable[[bytes], Awaitable[None]]:
        route = "write-to-file"  # all of these have it

        async def write(raw: bytes) -> None:
            async with httpx.AsyncClient() as client:
                sent = {"data": json.loads(raw)}
                assert (await client.post(f"{place.ui.url}/api/{route}", json=sent)).status_code == 200

        return write

    @pytest.fixture
    def flag(self) -> str:
        return FLAG

    @pytest.fixture
    def targeted(self) -> Targeted:
        return TARGETED

    @pytest.fixture
    def shared(self) -> str:
        return SHARED


class TestOldest(_Contract):
    generation = "1.12"


class TestInPlace(_Contract):
    generation = "2.2"


class TestNewest(_Contract, FlagRulesContract, FlagDocumentContract):
    generation = "3.0"


async def test_the_file_keeps_the_shape_that_the_demo_ships(tmp_path: Path) -> None:
    path = tmp_path / "demo.flagd.json"
    path.write_bytes(document())
    with FlagdUi(path, "3.0") as ui:
        surface = FlagdUiSurface(ui.url)
        raw = await surface.read()
        await surface.write(raw, expected=raw)
        await surface.aclose()
    assert json.loads(path.read_bytes()) == json.loads(document())
