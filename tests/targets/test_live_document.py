"""The document of a live system: read once, in a separate thread, and compared with the catalog."""

import asyncio
import json
from pathlib import Path

import pytest

from pytest_otel_diag import catalog
from pytest_otel_diag.errors import ConfigurationError, FlagError
from pytest_otel_diag.flags import access as opening
from pytest_otel_diag.flags.surface import FlagAddress
from pytest_otel_diag.model.flags import FlagDocument
from pytest_otel_diag.targets.live import flags as live_document
from pytest_otel_diag.targets.live.flags import LiveDocument, reader
from pytest_otel_diag.targets.live.options import LiveOptions


def access(path: Path) -> FlagAddress:
    return FlagAddress(control=f"file:{path}", served="ofrep:http://127.0.0.1:1")


def document(tmp_path: Path, demo: str, **changed: str) -> Path:
    body = json.loads(catalog.demo_document(demo))
    for flag, variant in changed.items():
        body["flags"][flag]["defaultVariant"] = variant
    path = tmp_path / "demo.flagd.json"
    path.write_text(json.dumps(body))
    return path


@pytest.mark.parametrize(("demo", "found"), [("3.0", "3.0"), ("2.2", "2.2"), ("1.12", "1.12")])
def test_the_release_is_found_by_the_flags(tmp_path: Path, demo: str, found: str) -> None:
    live = LiveDocument(reader(access(document(tmp_path, demo))))
    assert live.demo == found
    assert set(live.found().flags) == set(json.loads(catalog.demo_document(demo))["flags"])


def test_a_named_release_is_not_guessed(tmp_path: Path) -> None:
    live = LiveDocument(reader(access(document(tmp_path, "3.0"))), demo="2.2")
    assert live.demo == "2.2"
    assert not live.found().comparison.guessed


def test_flags_shipped_with_another_default_are_normal_as_found(tmp_path: Path) -> None:
    path = document(tmp_path, "3.0", loadGeneratorVUs="25", paymentFailure="50%")
    found = LiveDocument(reader(access(path))).found()
    assert found.normal == {"loadGeneratorVUs": "25", "loadGeneratorTraffic": "on"}


async def test_it_is_read_inside_a_running_loop_too(tmp_path: Path) -> None:
    assert LiveDocument(reader(access(document(tmp_path, "3.0")))).found().demo == "3.0"


def test_it_is_read_once_and_sessions_bring_it_up_to_date(tmp_path: Path) -> None:
    path = document(tmp_path, "3.0")
    live = LiveDocument(reader(access(path)))
    first = live.found()
    path.unlink()
    assert live.found() is first
    flags = {key: flag for key, flag in first.flags.items() if key != "adFailure"}
    assert "adFailure" not in live.take(FlagDocument(raw=b"", flags=flags)).flags
    assert "adFailure" not in live.found().flags


def test_a_failed_read_is_reported_and_not_repeated_at_once(tmp_path: Path) -> None:
    reads, now_s = [], [0.0]

    def read() -> FlagDocument:
        reads.append(1)
        return reader(access(tmp_path / "missing.json"))()

    live = LiveDocument(read, monotonic=lambda: now_s[0])
    for _ in range(3):
        with pytest.raises(FlagError, match=r"missing\.json"):
            live.found()
    assert len(reads) == 1
    assert live.demo == catalog.DEFAULT_DEMO
    now_s[0] = live_document.TRY_AGAIN_S + 1
    with pytest.raises(FlagError):
        live.found()
    assert len(reads) == 2


class _Flags:
    """Flags whose document hangs, or breaks."""

    def __init__(self, error: Exception | None) -> None:
        self._error = error

    async def document(self) -> FlagDocument:
        if self._error is not None:
            raise self._error
        await asyncio.sleep(3600)
        raise AssertionError

    async def aclose(self) -> None:
        """Close nothing."""


def test_a_place_that_does_not_answer_is_given_up(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(opening, "open_flags", lambda *_, **__: _Flags(None))
    with pytest.raises(FlagError, match=r"did not answer within 0\.1 s"):
        reader(access(tmp_path), timeout_s=0.1)()


def test_unexpected_errors_are_reported_with_the_place(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(opening, "open_flags", lambda *_, **__: _Flags(ZeroDivisionError("odd")))
    with pytest.raises(FlagError, match="ZeroDivisionError: odd"):
        reader(access(tmp_path))()


def test_options_of_the_spec() -> None:
    assert LiveOptions.parse("") == LiveOptions()
    parsed = LiveOptions.parse("live:demo=3.0.1, fresh_s=5,wait_s=0,rate=2")
    assert parsed == LiveOptions(demo="3.0", fresh_s=5.0, wait_s=0.0, rate=2.0)
    assert LiveOptions.parse("demo=auto").demo == "auto"


@pytest.mark.parametrize(
    ("spec", "reason"),
    [
        ("dmo=3.0", "did you mean 'demo'"),
        ("demo=", "needs a value"),
        ("demo=9.9", "unknown demo release"),
        ("fresh_s=soon", "from 1 to 3600"),
        ("rate=1000", "from 0.05 to 20"),
    ],
)
def test_options_that_are_wrong_are_refused(spec: str, reason: str) -> None:
    with pytest.raises(ConfigurationError, match=reason):
        LiveOptions.parse(spec)
