"""DSNs: what is understood, what is refused, and that passwords never show."""

from __future__ import annotations

from urllib.parse import quote

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pytest_otel_diag.errors import ConfigurationError
from pytest_otel_diag.telemetry.dsn import MEMORY, EmbeddedAddress, ServerAddress, parse_dsn


@pytest.mark.parametrize("dsn", ["chdb://memory", "chdb://memory/"])
def test_memory(dsn):
    assert parse_dsn(dsn) == EmbeddedAddress(MEMORY)
    assert str(parse_dsn(dsn)) == "chdb://memory"


def test_a_path_is_absolute_and_unquoted(tmp_path):
    folder = tmp_path / "a b%ü"
    assert parse_dsn(f"chdb://{quote(str(folder))}") == EmbeddedAddress(str(folder.resolve()))


@pytest.mark.parametrize(
    ("dsn", "port", "secure"),
    [
        ("clickhouse://h", 8123, False),
        ("http://h", 8123, False),
        ("https://h", 8443, True),
        ("clickhouses://h:1", 1, True),
    ],
)
def test_ports_follow_the_scheme(dsn, port, secure):
    assert parse_dsn(dsn) == ServerAddress("h", port, secure)


def test_everything_of_a_server():
    address = parse_dsn("clickhouse://me:p%40ss@[::1]:9/my%20db?compress=lz4")
    assert address == ServerAddress("::1", 9, False, "me", "p@ss", "my db", (("compress", "lz4"),))
    assert str(address) == "clickhouse://me@[::1]:9/my db"
    assert "p@ss" not in repr(address)


@given(st.text(min_size=1), st.text(), st.text(st.characters(exclude_characters="/"), min_size=1))
def test_user_password_and_database_survive_quoting(user, password, database):
    dsn = f"clickhouse://{quote(user, safe='')}:{quote(password, safe='')}@h/{quote(database, safe='')}"
    address = parse_dsn(dsn)
    assert isinstance(address, ServerAddress)
    assert (address.user, address.password, address.database) == (user, password, database)


@pytest.mark.parametrize(
    ("dsn", "says"),
    [
        ("", "scheme ''"),
        ("chdb://elsewhere", "three slashes"),
        ("chdb:///", "three slashes"),
        ("chbd://memory", "did you mean 'chdb'"),
        ("clickhouse://", "names no host"),
        ("clickhouse://h:70000", "Port out of range"),
        ("clickhouse://h:port", "Port could not be cast"),
    ],
)
def test_what_cannot_be_read_says_what_can(dsn, says):
    with pytest.raises(ConfigurationError, match=r"chdb:///absolute/path") as caught:
        parse_dsn(dsn)
    assert says in str(caught.value)


def test_messages_hide_the_password():
    with pytest.raises(ConfigurationError) as caught:
        parse_dsn("clickhouse://me:hidden@h:70000/db")
    assert "hidden" not in str(caught.value)
    assert "://***@h" in str(caught.value)
