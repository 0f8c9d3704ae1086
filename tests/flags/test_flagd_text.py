"""Documents that flagd would refuse are refused with the name of the flag."""

import json

import pytest

from pytest_otel_diag.errors import FlagError
from pytest_otel_diag.flags import document_text
from pytest_otel_diag.flags.document import FlagdDocument

GOOD = {"state": "ENABLED", "variants": {"off": 0, "on": 1}, "defaultVariant": "off"}


def refused(raw, match):
    with pytest.raises(FlagError, match=match):
        document_text.parse(raw if isinstance(raw, bytes) else json.dumps(raw).encode(), "demo.flagd.json")


@pytest.mark.parametrize("raw", [b"", b"  \n"])
def test_an_empty_document_is_refused_with_what_flagd_makes_of_it(raw):
    refused(raw, "demo.flagd.json is empty: a running flagd would keep its flags")


@pytest.mark.parametrize(
    ("raw", "match"),
    [
        (b"{", "is not JSON.*flagd would keep the flags it had"),
        (b'{"flags": {"a": NaN}}', "NaN is not a JSON number"),
        (b"\xff\xfe{", "is not UTF-8.*save it as UTF-8"),
        (b'\xef\xbb\xbf{"flags": {}}', "byte order mark.*save the document as UTF-8 without BOM"),
        ('{"flags": {}}'.encode("utf-16"), "is not UTF-8"),
        (b'{"flags": {}, "x": 1e400}', "1e400 is too large"),
        (b'{"flags": {}, "x": ' + b"[" * 200 + b"]" * 200 + b"}", "deeper than the supported 150 levels"),
        ({"flags": {}, "metadata": ""}, "'metadata' must be an object, not ''"),
        ({"flags": {}, "$evaluators": []}, "must be an object of named rules"),
        ({"flags": {"a": {**GOOD, "metadata": []}}}, "flag 'a': 'metadata' must be an object"),
        ({"flags": {"a": {**GOOD, "source": 0}}}, "flag 'a': 'source' must be a string, not 0"),
        ({"flags": {"a": {**GOOD, "key": False}}}, "flag 'a': 'key' must be a string"),
        (b"[" * 100_000, "is not JSON"),
        ([], r"no object 'flags' \(it has: list\)"),
        ({}, r"no object 'flags' \(it has: nothing\)"),
        ({"flag": 1}, r"no object 'flags' \(it has: flag\)"),
        ({"flags": []}, "no object 'flags'"),
        ({"flags": {}, "$evaluators": [1]}, "must be an object of named rules"),
        ({"flags": {"a": 1}}, "flag 'a' must be an object, not 1"),
        ({"flags": {"a": {**GOOD, "state": "ON"}}}, "flag 'a' has state 'ON'; choose from ENABLED, DISABLED"),
        ({"flags": {"a": {"variants": {"x": 1}}}}, "flag 'a' has state None"),
        ({"flags": {"a": {**GOOD, "variants": {}}}}, "flag 'a' needs 'variants'"),
        *(({"flags": {"a": {**GOOD, "defaultVariant": no}}}, "default variant") for no in (0, False, [], {})),
        ({"flags": {"a": {**GOOD, "defaultVariant": ["off"]}}}, "flag 'a' has the default variant"),
        ({"flags": {"a": {**GOOD, "targeting": {"$ref": ["x"]}}}}, "flag 'a' refers to the rule"),
        (
            {"flags": {"a": {**GOOD, "targeting": {"$ref": "usr"}}}, "$evaluators": {"user": {}}},
            "flag 'a' refers to the rule 'usr' \\(did you mean 'user'.*'\\$evaluators' has user",
        ),
        ({"flags": {"a": {**GOOD, "targeting": {"if": [{"$ref": "x"}]}}}}, "'\\$evaluators' has none"),
    ],
)
def test_the_error_names_place_value_and_remedy(raw, match):
    refused(raw, match)


def test_one_wrong_default_variant_refuses_the_whole_document():
    flags = {"payment": GOOD, "cart": {**GOOD, "defaultVariant": "onn"}}
    refused({"flags": flags}, "flag 'cart' has the default variant 'onn' .did you mean 'on'.*whole document")


def test_a_document_without_any_flag_is_a_document():
    assert document_text.parse(b'{"flags": {}}').flags == {}


@pytest.mark.parametrize("pair", ["\\ud83d", "\\udc00\\ud83d"])
def test_half_a_pair_of_escapes_is_written_as_it_can_be(pair):
    text = document_text.parse(b'{"flags": {}, "note": "' + pair.encode() + b'"}\n')
    written = document_text.write(text.body, text.raw)
    assert document_text.parse(written).body == text.body and written.endswith(b"\n")


@pytest.mark.parametrize(
    ("flag", "why"),
    [
        (None, "it is null"),
        ({**GOOD, "variants": {"off": None}}, "variants.off"),
        ({**GOOD, "targeting": "x"}, "targeting"),
        ({**GOOD, "targeting": [1]}, "targeting"),
        ({**GOOD, "targeting": True}, "targeting"),
    ],
)
def test_a_flag_that_flagd_takes_and_we_do_not_is_refused_once_it_is_used(flag, why):
    document = FlagdDocument(json.dumps({"flags": {"odd": flag, "a": GOOD}}).encode())
    with pytest.raises(FlagError, match=f"'odd'.*cannot be used: {why}"):
        document.change("odd", "on")
    document.change("a", "on")
    assert list(document.flags) == ["a"] and json.loads(document.raw)["flags"]["odd"] == flag
