from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from pytest_otel_diag.errors import ConfigurationError
from pytest_otel_diag.flags.document import FlagdDocument
from pytest_otel_diag.shop.realtime.flag_file import FlagFileProvider
from pytest_otel_diag.shop.realtime.flagd import FlagdProvider, parse_address
from tests.support.deadlines import deadline_s
from tests.support.flagd_stand_in import FlagdStandIn

WAIT_S = deadline_s(10)


def document(payment: str = "off", product: str = "off", **more: object) -> bytes:
    flags = {
        "paymentFailure": {
            "state": "ENABLED",
            "variants": {"off": 0, "50%": 0.5, "100%": 1},
            "defaultVariant": payment,
        },
        "productFailure": {
            "state": "ENABLED",
            "variants": {"on": True, "off": False},
            "defaultVariant": "off",
            "targeting": {"if": [{"==": [{"var": "product_id"}, "OLJ"]}, product, "off"]},
        },
        "queue": {"state": "ENABLED", "variants": {"off": 0, "on": 100}, "defaultVariant": "on"},
        "title": {"state": "ENABLED", "variants": {"a": "A", "b": "B"}, "defaultVariant": "b"},
        "open": {"state": "ENABLED", "variants": {"on": 1}, "defaultVariant": None},
        "resting": {"state": "DISABLED", "variants": {"on": True, "off": False}, "defaultVariant": "on"},
    }
    return json.dumps({"flags": {**flags, **more}}).encode()


def eventually(true: Callable[[], bool]) -> bool:
    deadline = time.monotonic() + WAIT_S
    while not true():
        if time.monotonic() > deadline:
            return False
        time.sleep(0.01)
    return True


@pytest.fixture
def flagd() -> Iterator[FlagdStandIn]:
    server = FlagdStandIn(document())
    yield server
    server.stop()


@pytest.fixture
def notices() -> list[str]:
    return []


@pytest.fixture
def reader(flagd: FlagdStandIn, notices: list[str]) -> Iterator[FlagdProvider]:
    with FlagdProvider(
        flagd.address, monotonic=time.monotonic, notify=notices.append, deadline_s=5.0, retry_s=0.1
    ) as reader:
        assert reader.wait(WAIT_S)
        yield reader


def test_evaluations_have_the_requested_type(reader: FlagdProvider) -> None:
    assert reader.evaluate("paymentFailure", 0.0, {}) == (0.0, "off", "STATIC")
    assert reader.evaluate("queue", 0, {}) == (100, "on", "STATIC")
    assert reader.evaluate("queue", 0.0, {}) == (100.0, "on", "STATIC")
    assert reader.evaluate("title", "", {}) == ("B", "b", "STATIC")


def test_flags_with_rules_are_evaluated_each_time_in_the_context_of_the_request(
    flagd: FlagdStandIn, reader: FlagdProvider
) -> None:
    flagd.write(document(product="on"))
    assert eventually(lambda: reader.evaluate("productFailure", False, {"product_id": "OLJ"}).value is True)
    assert reader.evaluate("productFailure", False, {"product_id": "OLJ"}) == (True, "on", "TARGETING_MATCH")
    assert reader.evaluate("productFailure", False, {"product_id": "X"}) == (False, "off", "TARGETING_MATCH")
    assert reader.evaluate("productFailure", False, {"product_id": 5, "b": True}).value is False


def test_evaluations_that_flagd_cannot_make_return_the_default(
    reader: FlagdProvider, notices: list[str]
) -> None:
    assert reader.evaluate("noSuchFlag", 7, {}) == (7, "", "ERROR")
    assert reader.evaluate("title", 7, {}) == (7, "", "ERROR")
    assert reader.evaluate("resting", True, {}) == (True, "", "ERROR")
    assert reader.evaluate("open", 7, {}) == (7, "", "DEFAULT")
    assert notices == []


def test_a_static_evaluation_is_cached_until_a_change(flagd: FlagdStandIn, reader: FlagdProvider) -> None:
    for _ in range(50):
        assert reader.evaluate("paymentFailure", 0.0, {}).variant == "off"
    assert flagd.questions == 1
    flagd.write(document(payment="50%"))
    assert eventually(lambda: reader.evaluate("paymentFailure", 0.0, {}).value == 0.5)


def test_defaults_are_returned_without_waiting_until_flagd_is_available_again(
    flagd: FlagdStandIn, reader: FlagdProvider, notices: list[str]
) -> None:
    flagd.write(document(payment="100%"))
    assert eventually(lambda: reader.evaluate("paymentFailure", 0.0, {}).value == 1.0)
    flagd.stop()
    assert eventually(lambda: reader.evaluate("paymentFailure", 0.0, {}) == (0.0, "", "ERROR"))
    assert eventually(lambda: bool(notices))
    assert notices[0].startswith(f"flagd {flagd.address} is unavailable (")
    flagd.start()
    assert eventually(lambda: reader.evaluate("paymentFailure", 0.0, {}).value == 1.0)
    assert notices[1:] == [f"flagd {flagd.address} is available"]


def test_a_flagd_that_starts_late_is_used(notices: list[str]) -> None:
    server = FlagdStandIn(document(payment="50%"))
    server.stop()
    with FlagdProvider(
        server.address, monotonic=time.monotonic, notify=notices.append, retry_s=0.1
    ) as reader:
        assert not reader.wait(0.3)
        assert reader.evaluate("paymentFailure", 0.0, {}) == (0.0, "", "ERROR")
        server.start()
        assert reader.wait(WAIT_S)
        assert reader.evaluate("paymentFailure", 0.0, {}).variant == "50%"
    assert reader.evaluate("paymentFailure", 0.0, {}).reason == "ERROR"
    server.stop()


def test_a_hanging_flagd_is_not_called_for_a_while(flagd: FlagdStandIn) -> None:
    now_s = [0.0]
    with FlagdProvider(
        flagd.address, monotonic=lambda: now_s[0], notify=lambda _: None, deadline_s=0.05, retry_s=1.0
    ) as reader:
        assert reader.wait(WAIT_S)
        with flagd._service.lock:  # evaluations wait for this
            assert reader.evaluate("paymentFailure", 0.0, {}).reason == "ERROR"
        asked = flagd.questions
        assert reader.evaluate("paymentFailure", 0.0, {}).reason == "ERROR"
        assert flagd.questions <= asked + 1  # the hanging evaluation may have been counted meanwhile

        def later() -> bool:
            """Whether it answers after a pause; on a busy machine it may hang again, for the next pause."""
            now_s[0] += 1.5
            return reader.evaluate("paymentFailure", 0.0, {}).variant == "off"

        assert eventually(later)


@pytest.mark.parametrize(
    ("text", "address"),
    [
        ("flagd", "flagd:8013"),
        (" localhost:9000 ", "localhost:9000"),
        ("[::1]", "[::1]:8013"),
        ("[::1]:8013", "[::1]:8013"),
    ],
)
def test_addresses(text: str, address: str) -> None:
    assert parse_address(text) == address


@pytest.mark.parametrize("text", ["", ":8013", "http://flagd:8013", "flagd:http", "flagd:0", "flagd:70000"])
def test_an_invalid_address_is_rejected(text: str) -> None:
    with pytest.raises(ConfigurationError, match="write host:port, for example localhost:8013"):
        parse_address(text)


def replaced(path: Path, raw: bytes) -> None:
    new = path.with_suffix(".new")
    new.write_bytes(raw)
    new.replace(path)


def test_a_file_is_reloaded_when_it_changes(tmp_path: Path, notices: list[str]) -> None:
    path = tmp_path / "flags.json"
    path.write_bytes(document())
    flags = FlagFileProvider(path, FlagdDocument, notify=notices.append)
    assert flags.evaluate("paymentFailure", 0.0, {}).variant == "off"
    replaced(path, document(payment="100%"))
    assert flags.evaluate("paymentFailure", 0.0, {}).variant == "100%"
    path.write_bytes(document(payment="50%", product="on"))
    assert flags.evaluate("paymentFailure", 0.0, {}).variant == "50%"
    assert flags.evaluate("productFailure", False, {"product_id": "OLJ"}).value is True
    assert notices == [f"flag file {path} reloaded"] * 2


def test_an_invalid_file_leaves_the_flags_unchanged(tmp_path: Path, notices: list[str]) -> None:
    path = tmp_path / "flags.json"
    path.write_bytes(document(payment="50%"))
    flags = FlagFileProvider(path, FlagdDocument, notify=notices.append)
    for raw in (b"", b"{", document(payment="on")):
        replaced(path, raw)
        for _ in range(2):
            assert flags.evaluate("paymentFailure", 0.0, {}).variant == "50%"
    path.unlink()
    assert flags.evaluate("paymentFailure", 0.0, {}).variant == "50%"
    assert len(notices) == 4
    assert all(line.endswith("flags are unchanged") for line in notices)
    path.write_bytes(document(payment="100%"))
    assert flags.evaluate("paymentFailure", 0.0, {}).variant == "100%"


def test_an_invalid_file_at_the_start_is_an_error(tmp_path: Path) -> None:
    path = tmp_path / "flags.json"
    with pytest.raises(ConfigurationError, match="cannot be used"):
        FlagFileProvider(path, FlagdDocument, notify=print)
    path.write_bytes(b"[]")
    with pytest.raises(ConfigurationError, match="cannot be used"):
        FlagFileProvider(path, FlagdDocument, notify=print)
