"""Credentials are masked in every text that people or files get to see."""

import pytest

from pytest_otel_diag.secret import SecretText, cleaned, masked, masked_command


@pytest.mark.parametrize(
    ("words", "shown"),
    [
        (["x", "http://u:p@ss/w@rd@host:1/a"], "x http://***@host:1/a"),
        (["--url=clickhouse://u:p w@h/db"], "--url=clickhouse://***@h/db"),
        (["http://token@host"], "http://***@host"),
        (["--api-token", "abc", "-q"], "--api-token *** -q"),
        (["--password=abc,x=1", "a?api_key=abc&b=1"], "--password=***,x=1 a?api_key=***&b=1"),
        (["Authorization: Bearer abc"], "Authorization: ***"),
        (["-H", "X-Auth: abc"], "-H X-Auth: ***"),
        (["curl", "-u", "admin:abc", "--user=me:abc", "http://host"], "curl -u *** --user=*** http://host"),
        (["sh", "-c", "PASS=abc x"], "sh -c PASS=*** x"),
        (["sh", "-c", "curl -H 'X-Auth: abc d' host"], "sh -c curl -H 'X-Auth: ***' host"),
        (["sort", "-u", "names"], "sort -u names"),
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
        ("http:/user:secret@host", "***@host"),
        ("http://host/?auth=secret&key=secret#x", "http://host/?auth=***&key=***#x"),
        ("http://host/?a=1&password%3Dsecret", "http://host/?a=1&password%3D***"),
        ("Authorization: Token secret", "Authorization: ***"),
        ("{'Authorization': 'ApiKey secret'}", "{'Authorization': '***'}"),
        ("Cookie: a=secret; b=secret", "Cookie: ***"),
    ],
)
def test_logins_in_addresses_are_masked(text, shown):
    assert masked(text) == shown


@pytest.mark.parametrize("secret", ["s3cr/t wort", "s3cr%2Ft%20wort"])
@pytest.mark.parametrize("form", ["http://u:{}@host/", "restart -u me:{}", "http://host/?sig={}"])
def test_a_credential_is_removed_in_every_encoding(form, secret):
    SecretText(form.format(secret.replace(" ", "%20")))
    for spelling in ("s3cr/t%20wort", "s3cr%2Ft%20wort"):
        assert cleaned(f"no route to {spelling}!") == "no route to ***!"


@pytest.mark.parametrize(
    "part", ["A", "token", "//", "@//", "password ", "?key", "-u ", "a:", "Bearer ", "--token"]
)
def test_long_texts_take_linear_time(part):
    text = part * 20_000  # quadratic time would be minutes
    assert len(masked(text)) <= len(text) + 3 * 20_000
