"""Credentials are masked in every text that people or files get to see."""

import pytest

from pytest_otel_diag.secret import masked, masked_command


@pytest.mark.parametrize(
    ("words", "shown"),
    [
        (["x", "http://u:p@ss/w@rd@host:1/a"], "x http://***@host:1/a"),
        (["--url=clickhouse://u:p w@h/db"], "--url=clickhouse://***@h/db"),
        (["http://token@host"], "http://***@host"),
        (["--api-token", "abc", "-q"], "--api-token *** -q"),
        (["--password=abc,x=1", "a?api_key=abc&b=1"], "--password=***,x=1 a?api_key=***&b=1"),
        (["Authorization: Bearer abc"], "Authorization: ***"),
        (["-H", "X: Basic abc"], "-H X: Basic ***"),
        (["pytest", "-k", "cart", "tests"], "pytest -k cart tests"),
    ],
)
def test_credentials_in_a_command_line_are_masked(words, shown):
    assert masked_command(words) == shown


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("user:secret@host:8013", "***@host:8013"),
        ("ofrep:http://user:secret@host", "ofrep:http://***@host"),
        ("clickhouse://me:secret@host/db", "clickhouse://***@host/db"),
        ("configmap:namespace/name", "configmap:namespace/name"),
        ("file:/flags/a@b.json", "file:/flags/a@b.json"),
        ("host:8013", "host:8013"),
    ],
)
def test_logins_in_addresses_are_masked(text, shown):
    assert masked(text) == shown
