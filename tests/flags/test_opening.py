"""Texts open surfaces and readers; errors suggest the nearest spelling."""

import time

import pytest

from pytest_otel_diag.errors import ConfigurationError
from pytest_otel_diag.flags.access import READERS, SURFACES, open_flags, open_reader, open_surface
from pytest_otel_diag.flags.readers.flagd_grpc import FlagdGrpcReader
from pytest_otel_diag.flags.readers.flagd_http import FlagdHttpReader
from pytest_otel_diag.flags.readers.ofrep import OfrepReader
from pytest_otel_diag.flags.readers.probing import ProbingReader
from pytest_otel_diag.flags.surface import FlagAddress
from pytest_otel_diag.flags.surfaces.file import FileSurface


@pytest.mark.parametrize(
    "text",
    [
        "file:/x/demo.flagd.json",
        " /x/demo.flagd.json ",
        "./demo.flagd.json",
        "~/flags",
        "demo.flagd.json",
        "../x",
    ],
)
def test_a_path_is_a_file(text):
    assert isinstance(open_surface(text), FileSurface)


@pytest.mark.parametrize(
    ("text", "kind"),
    [
        ("ofrep:http://localhost:8016", OfrepReader),
        ("ofrep:localhost:8016", OfrepReader),
        ("flagd:http://localhost:8080/flagservice", FlagdHttpReader),
        ("grpc:localhost", FlagdGrpcReader),
        ("grpc:localhost:8013", FlagdGrpcReader),
        ("http://localhost:8080", ProbingReader),
        ("https://flags.example.test/x", ProbingReader),
        ("localhost:8013", ProbingReader),
        ("[::1]:8013", ProbingReader),
    ],
)
def test_readers_by_kind_and_by_address(text, kind):
    assert isinstance(open_reader(text), kind)


@pytest.mark.parametrize("kind", sorted(SURFACES))
def test_nothing_after_the_kind_of_a_place_is_refused(kind):
    with pytest.raises(ConfigurationError, match=f"nothing follows '{kind}'"):
        open_surface(f"{kind}: ")


@pytest.mark.parametrize("kind", sorted(READERS))
def test_nothing_after_the_kind_of_a_reader_is_refused(kind):
    with pytest.raises(ConfigurationError, match=f"nothing follows '{kind}'"):
        open_reader(f"{kind}:")


@pytest.mark.parametrize(
    ("text", "match"),
    [
        ("flagdui:http://localhost:8080/feature", r"did you mean 'flagd-ui'\?.*write file:PATH"),
        ("configmaps:otel-demo/flagd-config", "did you mean 'configmap'"),
        (
            "http://user:secret@localhost:8080/feature",
            r"'http://\*\*\*@localhost:8080/feature' is not a place to write flags",
        ),
        ("", "is not a place to write flags"),
    ],
)
def test_what_is_no_place_is_refused(text, match):
    with pytest.raises(ConfigurationError, match=match):
        open_surface(text)


@pytest.mark.parametrize(
    ("text", "match"),
    [
        ("offrep:http://localhost:8016", r"did you mean 'ofrep'\?.*write ofrep:URL"),
        ("localhost", "does not name a service that evaluates"),
        ("a/b:80", "does not name a service that evaluates"),
        ("", "does not name a service that evaluates"),
    ],
)
def test_what_evaluates_nothing_is_refused(text, match):
    with pytest.raises(ConfigurationError, match=match):
        open_reader(text)


@pytest.mark.parametrize(
    "text",
    ["file:/x/demo.flagd.json", "flagd-ui:http://user:secret@localhost:8080/feature", "command:cat a&b"],
)
def test_a_surface_names_the_text_that_opens_it_again(text):
    surface = open_surface(text)
    again = open_surface(surface.control)
    assert (again.identity, again.control) == (surface.identity, surface.control)


@pytest.mark.parametrize(
    "text",
    ["ofrep:localhost:8016", "flagd:http://localhost:8080/flagservice", "grpc:localhost", "localhost:8013"],
)
def test_a_reader_names_the_text_that_opens_it_again(text):
    reader = open_reader(text)
    again = open_reader(reader.address)
    assert (type(again), again.name, again.address) == (type(reader), reader.name, reader.address)


async def test_flags_remember_how_they_are_opened_from_anywhere(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    access = FlagAddress(control="demo.flagd.json", served="ofrep:http://localhost:8016")
    flags = open_flags(access, now=time.time_ns)
    assert flags.access == FlagAddress(control=f"file:{tmp_path}/demo.flagd.json", served=access.served)
    assert flags.identity == f"{tmp_path}/demo.flagd.json"
    assert flags.name == f"{tmp_path}/demo.flagd.json, served by OFREP at http://localhost:8016"
    await flags.aclose()
