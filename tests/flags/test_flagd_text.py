"""Documents that flagd would refuse are refused with the name of the flag."""

import json

import pytest

from pytest_otel_diag.errors import FlagError
from pytest_otel_diag.flags import document_json, document_text
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
        (b"\xff\xfe{", "is not JSON.*Save it as JSON in UTF-8 without BOM"),
        (b'\xef\xbb\xbf{"flags": {}}', "byte order mark.*save the document as UTF-8 without BOM"),
        ('{"flags": {}}'.encode("utf-16"), "is not JSON"),
        (b'{"flags": {}, "x": ' + b"9" * 400 + b"}", "is too large"),
        (b'{"flags": {}, "x": 1e400}', "1e400 is too large"),
        (b'{"flags": {}, "x": ' + b"[" * 200 + b"]" * 200 + b"}", "deeper than the supported 150 levels"),
        ({"flags": {}, "metadata": ""}, "'metadata' must be an object, not ''"),
        ({"flags": {}, "$evaluators": []}, r"'\$evaluators' must be an object, not \[\]"),
        ({"flags": {}, "$evaluators": {"a": {}}}, r"the rule 'a' in '\$evaluators' is {}; flagd refuses"),
        ({"flags": {}, "METADATA": 5}, "'METADATA' must be an object, not 5"),
        ({"flags": {"a": {**GOOD, "metadata": []}}}, "flag 'a': 'metadata' must be an object"),
        ({"flags": {"a": {**GOOD, "source": 0}}}, "flag 'a': 'source' must be a string, not 0"),
        ({"flags": {"a": {**GOOD, "key": False}}}, "flag 'a': 'key' must be a string"),
        (b"[" * 100_000, "is not JSON"),
        ([], r"no object 'flags' \(it has: list\)"),
        ({}, r"no object 'flags' \(it has: nothing\)"),
        ({"flag": 1}, r"no object 'flags' \(it has: flag\)"),
        ({"flags": "a"}, "'flags' must be an object of flags, or an array of flags with a 'key', not 'a'"),
        ({"flags": [5]}, "flag '' must be an object, not 5"),
        ({"flags": {"a": 1}}, "flag 'a' must be an object, not 1"),
        ({"flags": {"a": {**GOOD, "state": 1}}}, "flag 'a': 'state' must be a string, not 1"),
        ({"flags": {"a": {**GOOD, "variants": []}}}, "flag 'a': 'variants' must be an object"),
        *(
            ({"flags": {"a": {**GOOD, "defaultVariant": no}}}, "'defaultVariant' must be a string")
            for no in (0, False, [], {})
        ),
        (
            {"flags": {"a": {"defaultVariant": "off"}}},
            "flag 'a' has the default variant 'off'; it has no variants",
        ),
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
    written = document_json.write(text.body, text.raw)
    assert document_text.parse(written).body == text.body and written.endswith(b"\n")


@pytest.mark.parametrize(
    ("flag", "why"),
    [
        (None, "it is null"),
        ({**GOOD, "variants": {"off": None}}, "its variant 'off' is null"),
        ({**GOOD, "variants": {"off": [1]}}, "its variant 'off' is an array"),
        ({"state": "ENABLED", "variants": {}}, "it has no variants"),
        ({"state": "DISABLED"}, "it has no variants"),
        ({**GOOD, "targeting": "x"}, "its rule is 'x'"),
        ({**GOOD, "targeting": [1]}, "its rule is .1., which is no object"),
        ({**GOOD, "targeting": True}, "its rule is True"),
        ({**GOOD, "targeting": {"$ref": "gone"}}, r"its rule refers to 'gone', which flagd does not find"),
        ({**GOOD, "targeting": {"if": [{"$ref": ["x"]}]}}, r"its rule refers to \['x'\]"),
        ({**GOOD, "STATE": "ENABLED"}, "it has one member more than once, as 'STATE', 'state'"),
        ({**GOOD, "metadata": {"flagSetId": ""}}, "its flag set has an empty name"),
    ],
)
def test_a_flag_that_flagd_takes_and_we_do_not_is_refused_once_it_is_used(flag, why):
    document = FlagdDocument(json.dumps({"flags": {"odd": flag, "a": GOOD}}).encode())
    with pytest.raises(FlagError, match=f"'odd'.*cannot be used: {why}"):
        document.change("odd", "on")
    document.change("a", "on")
    assert list(document.flags) == ["a"] and json.loads(document.raw)["flags"]["odd"] == flag


@pytest.mark.parametrize("name", ["\ud83d", "x\udc00"])
def test_half_a_character_in_a_name_costs_its_flag_only(name):
    document = FlagdDocument(json.dumps({"flags": {name: GOOD, "a": GOOD}}).encode())
    with pytest.raises(FlagError, match="cannot be used: it cannot be read"):
        document.change(name, "on")
    document.change("a", "on")
    assert list(document.flags) == ["a"] and json.loads(document.raw)["flags"][name] == GOOD


@pytest.mark.parametrize("state", ["enabled", "ON", "", None])
def test_every_state_but_disabled_is_enabled(state):
    document = FlagdDocument(json.dumps({"flags": {"a": {**GOOD, "state": state}}}).encode())
    document.change("a", "on")
    assert document.answer("a") == ("on", 1)
    assert json.loads(document.raw)["flags"]["a"]["state"] == state


def test_flags_in_an_array_are_changed_where_they_are():
    listed = [
        {"key": "b", **GOOD},
        {"key": "a", **GOOD},
        None,
        {"key": "a", **GOOD, "variants": {"off": 0, "x": 2}},
    ]
    document = FlagdDocument(json.dumps({"flags": listed}).encode())
    assert list(document.flags["a"].variants) == ["off", "x"], "the last one counts"
    document.change("a", "x")
    changed = json.loads(document.raw)["flags"]
    assert changed == [*listed[:3], {**listed[3], "defaultVariant": "x"}]
    assert document.answer("a") == ("x", 2)


def test_members_in_any_case_are_changed_where_they_are():
    flag = {"State": "ENABLED", "VARIANTS": {"off": 0, "on": 1}, "DefaultVariant": "off"}
    document = FlagdDocument(json.dumps({"Flags": {"a": flag}}).encode())
    document.change("a", "on")
    assert json.loads(document.raw) == {"Flags": {"a": {**flag, "DefaultVariant": "on"}}}


def test_a_flag_that_is_a_reference_is_written_out_when_it_is_changed():
    body = {"$evaluators": {"switch": GOOD}, "flags": {"a": {"$ref": "switch"}, "b": {"$ref": "switch"}}}
    document = FlagdDocument(json.dumps(body).encode())
    document.change("a", "on")
    assert [document.answer(key)[0] for key in "ab"] == ["on", "off"]
    whole = {"$evaluators": {"all": {"a": GOOD}}, "flags": {"$ref": "all"}}
    document = FlagdDocument(json.dumps(whole).encode())
    assert document.answer("a") == ("off", 0)
    with pytest.raises(FlagError, match="defined by a reference"):
        document.change("a", "on")
