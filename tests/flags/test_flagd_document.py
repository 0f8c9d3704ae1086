"""A flagd document is evaluated, changed and restored as a real flagd would see it."""

import json
import sys
from itertools import count

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from openfeature.contrib.tools.flagd.core import FlagdCore
from openfeature.evaluation_context import EvaluationContext

from pytest_otel_diag.errors import ConfigurationError, FlagError, RestoreFailed
from pytest_otel_diag.flags import evaluator
from pytest_otel_diag.flags.document import DocumentFlags, FlagdDocument
from pytest_otel_diag.model.flags import FlagChange, FlagDocument
from pytest_otel_diag.testing.flag_contract import (
    FlagControllerContract,
    FlagDocumentContract,
    FlagRulesContract,
    Targeted,
)

FAILURE = {"state": "ENABLED", "variants": {"off": 0, "50%": 0.5, "100%": 1}, "defaultVariant": "off"}
SWITCH = {"state": "ENABLED", "variants": {"off": False, "on": True}, "defaultVariant": "off"}
FOR_P1 = {"==": [{"var": "product_id"}, "P1"]}
ONE_PRODUCT = {**SWITCH, "targeting": {"if": [FOR_P1, "off", "off"]}}
SHARED = {**SWITCH, "targeting": {"fractional": [["on", 10], ["off", 90]]}}
STANDARD = {"payment": FAILURE, "ad": SWITCH, "catalog": ONE_PRODUCT, "shared": SHARED}


def document(flags=None, **rest):
    return FlagdDocument(json.dumps({"flags": flags or STANDARD, **rest}, indent=2).encode())


class TestDocumentFlags(FlagControllerContract, FlagRulesContract, FlagDocumentContract):
    @pytest.fixture
    def controller(self):
        ticks = count(1)
        return DocumentFlags(document(), now=lambda: next(ticks))

    @pytest.fixture
    def flag(self):
        return "payment"

    @pytest.fixture
    def targeted(self):
        return Targeted("catalog", {"product_id": "P1"})

    @pytest.fixture
    def shared(self):
        return "shared"

    async def test_a_flag_with_a_rule_is_switched_and_witnessed_in_its_context(self, controller):
        before = await controller.document()
        await controller.apply(FlagChange(key="catalog", variant="on"))
        there = await controller.served("catalog", {"product_id": "P1"})
        assert (there.variant, there.value) == ("on", True)
        assert (await controller.served("catalog", {})).variant == "off"
        assert (await controller.document()).flags["catalog"].default_variant == "off"
        await controller.restore(before)
        assert (await controller.served("catalog", {"product_id": "P1"})).variant == "off"

    async def test_the_document_is_kept_when_the_one_to_restore_is_empty(self, controller):
        with pytest.raises(RestoreFailed, match=r"never truncate.*before the first change"):
            await controller.restore(FlagDocument(raw=b" \n", flags={}))
        assert "payment" in (await controller.document()).flags


def test_services_get_variants_by_default_and_by_rule():
    flags = document()
    assert flags.evaluate("payment", 0.0) == (0, "off", "STATIC")
    assert flags.evaluate("ad", False, {"product_id": "P1"}) == (False, "off", "STATIC")
    assert flags.evaluate("catalog", False, {"product_id": "P1"}) == (False, "off", "TARGETING_MATCH")
    flags.change("payment", "50%")
    flags.change("catalog", "on")
    assert flags.evaluate("payment", 0.0) == (0.5, "50%", "STATIC")
    assert flags.evaluate("catalog", False, {"product_id": "P1"}) == (True, "on", "TARGETING_MATCH")
    assert flags.evaluate("catalog", False, {"product_id": "P2"}) == (False, "off", "TARGETING_MATCH")


@pytest.mark.parametrize(
    ("key", "default"),
    [
        ("nothing", True),
        ("payment", "text"),
        ("payment", True),
        ("ad", 7),
        ("broken", False),
        ("unnamed", False),
        ("zero", False),
    ],
    ids=str,
)
def test_what_cannot_be_answered_gives_the_callers_default_as_an_error(key, default):
    flags = document(
        {
            **STANDARD,
            "broken": {**SWITCH, "targeting": {"no_such_operator": [1]}},
            "unnamed": {**SWITCH, "targeting": {"if": [True, "perhaps"]}},
            "zero": {**SWITCH, "targeting": {"if": [{"/": [1, 0]}, "on", "off"]}},
        }
    )
    for _ in range(2):
        assert flags.evaluate(key, default, {}) == (default, "", "ERROR")


def test_a_flag_without_a_default_variant_leaves_it_to_the_caller():
    flags = document({"a": {"state": "ENABLED", "variants": {"on": True}}})
    assert flags.evaluate("a", False) == (False, "", "DEFAULT")
    with pytest.raises(FlagError, match="has no variant for the context"):
        flags.answer("a")


def test_a_disabled_flag_answers_nothing_and_cannot_be_switched():
    flags = document({"a": {**SWITCH, "state": "DISABLED"}})
    assert not flags.flags["a"].enabled
    assert flags.evaluate("a", True) == (True, "", "DISABLED")
    with pytest.raises(FlagError, match="set its state to ENABLED"):
        flags.answer("a")
    with pytest.raises(FlagError, match="set its state to ENABLED"):
        flags.change("a", "on")


def test_values_keep_their_type_for_the_witness():
    flags = document(
        {
            "number": {"state": "ENABLED", "variants": {"off": 0, "on": 100}, "defaultVariant": "on"},
            "object": {"state": "ENABLED", "variants": {"a": {"n": 1}, "b": {}}, "defaultVariant": "a"},
            "text": {"state": "ENABLED", "variants": {"a": "x"}, "defaultVariant": "a"},
        }
    )
    assert [flags.answer(key) for key in flags.flags] == [("on", 100), ("a", {"n": 1}), ("a", "x")]
    assert isinstance(flags.answer("number")[1], int)
    assert flags.evaluate("number", 0.0).value == 100.0
    assert flags.evaluate("text", "y") == ("x", "a", "STATIC")


def test_a_rule_of_shares_gives_way_for_everybody_and_comes_back():
    flags = document()
    before = flags.raw
    users = [{"targetingKey": f"user-{n}"} for n in range(2000)]
    assert 150 <= sum(flags.evaluate("shared", False, user).value for user in users) <= 250
    for variant, value in (("on", True), ("off", False), ("on", True)):
        flags.change("shared", variant)
        assert {flags.evaluate("shared", not value, user) for user in users} == {(value, variant, "STATIC")}
    flags.restore(before)
    assert 150 <= sum(flags.evaluate("shared", False, user).value for user in users) <= 250


def test_shares_inside_a_choice_give_way_for_those_they_were_for():
    shares = {"fractional": [["on", 50], ["off", 50]]}
    flags = document({"a": {**SWITCH, "targeting": {"if": [FOR_P1, shares, "off"]}}})
    chosen = [{"targetingKey": f"user-{n}", "product_id": "P1"} for n in range(200)]
    assert {flags.evaluate("a", False, user).value for user in chosen} == {True, False}
    flags.change("a", "on")
    assert {flags.evaluate("a", False, user).value for user in chosen} == {True}
    assert flags.evaluate("a", True, {"product_id": "P2"}).value is False
    assert json.loads(flags.raw)["flags"]["a"]["targeting"]["if"] == [FOR_P1, "on", "off"]


def test_shares_that_several_flags_have_are_replaced_for_one_only():
    reference = {**SWITCH, "targeting": {"$ref": "shares"}}
    rules = {"shares": {"fractional": [["on", 0], ["off", 100]]}}
    flags = document({"a": reference, "b": reference}, **{"$evaluators": rules})
    flags.change("a", "on")
    context = {"targetingKey": "any"}
    assert (flags.evaluate("a", False, context).value, flags.evaluate("b", True, context).value) == (
        True,
        False,
    )
    assert json.loads(flags.raw)["$evaluators"] == rules


@pytest.mark.parametrize(
    "rule", [{"in": ["on", ["on"]]}, {"if": [True]}, {"if": "on"}, {"if": [True, "on"], "and": []}], ids=str
)
def test_other_rules_are_refused_with_the_remedy(rule):
    flags = document({"a": {**SWITCH, "targeting": rule}})
    before = flags.raw
    with pytest.raises(FlagError, match=r"'a'.*cannot be set to one variant.*remove it"):
        flags.change("a", "on")
    assert flags.raw == before
    flags.retarget("a", {"fractional": [["on", 1], ["off", 0]]})
    assert flags.evaluate("a", False, {"targetingKey": "any"}).value is True
    flags.retarget("a", None)
    flags.change("a", "on")
    assert flags.evaluate("a", False) == (True, "on", "STATIC")


def test_a_choice_of_rules_has_no_place_to_switch():
    nested = {"if": [FOR_P1, {"if": [True, "on", "off"]}, "off"]}
    flags = document({"a": {**SWITCH, "targeting": nested}})
    with pytest.raises(FlagError, match=r"first choice is .*not a variant"):
        flags.change("a", "on")
    assert flags.evaluate("a", False, {"product_id": "P1"}).value is True


NOT_P1 = {"!=": [{"var": "product_id"}, "P1"]}
P1, P2 = {"product_id": "P1"}, {"product_id": "P2"}


@pytest.mark.parametrize(
    ("rule", "context", "default", "choices", "others"),
    [
        ({"if": [FOR_P1, None, "off"]}, P1, "on", [None, "off"], "off"),
        ({"if": [FOR_P1, None, "off"]}, None, "on", [None, "off"], "off"),
        ({"if": [FOR_P1, None]}, P1, "on", [None], "on"),
        ({"if": [FOR_P1, None, None]}, P1, "on", [None, None], "on"),
        ({"if": [FOR_P1, "off"]}, P1, "off", ["on"], "off"),
        ({"if": [FOR_P1, "off"]}, None, "off", ["on"], "off"),
        ({"if": [FOR_P1, "off", None]}, P1, "off", ["on", None], "off"),
        ({"if": [NOT_P1, "off"]}, P1, "on", ["off"], "off"),
        ({"if": [NOT_P1, "off", None]}, P1, "on", ["off", None], "off"),
        ({"if": [NOT_P1, "off", "off"]}, P1, "off", ["off", "on"], "off"),
        ({"if": [NOT_P1, "off", FOR_P1, "off", "off"]}, P1, "off", ["off", FOR_P1, "on", "off"], "off"),
        ({"if": [FOR_P1, "off", "off"]}, {"product_id": "P3"}, "off", ["off", "on"], "on"),
    ],
    ids=str,
)
def test_a_rule_is_set_where_it_decides_and_defers_to_the_default(rule, context, default, choices, others):
    """A null, or a missing last variant, defers to the default variant."""
    flags = document({"a": {**SWITCH, "targeting": rule}})
    before = flags.raw
    flags.change("a", "on", context)
    changed = flags.flags["a"]
    assert (changed.default_variant, changed.targeting["if"][1:]) == (default, choices)
    assert flags.answer("a", context or P1)[0] == "on"
    assert flags.answer("a", P2)[0] == others
    flags.change("a", "off", context)
    assert flags.raw == before


def test_a_flag_whose_variants_have_several_types_answers_each():
    flags = document({"a": {**SWITCH, "variants": {"off": 0, "on": True, "text": "x", "shape": {"n": 1}}}})
    for variant, value in {"on": True, "text": "x", "shape": {"n": 1}, "off": 0}.items():
        flags.change("a", variant)
        assert flags.answer("a") == (variant, value)


def test_shared_rules_are_resolved_and_a_switched_flag_gets_its_own():
    rules = {"one product": {"if": [FOR_P1, "off", "off"]}}
    reference = {**SWITCH, "targeting": {"$ref": "one product"}}
    flags = document({"a": reference, "b": reference}, **{"$evaluators": rules})
    flags.change("a", "on")
    context = {"product_id": "P1"}
    assert flags.evaluate("a", False, context).value is True
    assert flags.evaluate("b", False, context).value is False
    assert json.loads(flags.raw)["$evaluators"] == rules


def test_what_is_not_known_is_refused_by_name_and_changes_nothing():
    flags = document()
    before = flags.raw
    for wrong, match in (
        (
            lambda: flags.change("paymnt", "off"),
            "no flag 'paymnt' \\(did you mean 'payment'.*known flags: payment, ad",
        ),
        (
            lambda: flags.change("payment", "50"),
            "no variant '50' \\(did you mean '50%'.*choose from off, 50%, 100%",
        ),
        (lambda: flags.answer("carts"), "no flag 'carts'"),
        (lambda: flags.retarget("carts", None), "no flag 'carts'"),
        (lambda: flags.restore(b"{}"), "no object 'flags'"),
    ):
        with pytest.raises(FlagError, match=match):
            wrong()
    assert flags.raw == before
    assert flags.evaluate("payment", 0.0).variant == "off"


def test_a_changed_document_keeps_order_indent_and_description():
    raw = b'{\n    "b": 1,\n    "flags": {\n        "x": {"description": "\xc3\xa4", "state": "ENABLED",'
    raw += b' "variants": {"off": false, "on": true}, "defaultVariant": "off"}\n    }\n}\n'
    flags = FlagdDocument(raw)
    flags.change("x", "on")
    text = flags.raw.decode()
    assert text.startswith('{\n    "b": 1,\n    "flags"')
    assert "ä" in text
    assert text.endswith("}\n")


def test_without_the_evaluator_the_remedy_is_named(monkeypatch):
    evaluator._library.cache_clear()
    monkeypatch.setitem(sys.modules, "openfeature.contrib.tools.flagd.core", None)
    with pytest.raises(ConfigurationError, match=r"pip install \"pytest-otel-diag\[shop\]\""):
        document()
    evaluator._library.cache_clear()


# Any document.

NAMES = st.text(min_size=1, max_size=8)
VALUES = st.one_of(st.booleans(), st.integers(-(2**53), 2**53), st.floats(-1e9, 1e9), st.text(max_size=6))
CONTEXTS = st.fixed_dictionaries(
    {},
    optional={
        "targetingKey": st.text(min_size=1, max_size=5),
        "country": st.sampled_from(["Canada", "United States", ""]),
        "version": st.sampled_from(["1.2.3", "v2", "none"]),
        "age": st.integers(0, 100),
    },
)


def rules(variants):
    variant = st.sampled_from(variants)
    condition = st.one_of(
        st.booleans(),
        st.builds(lambda c: {"==": [{"var": "country"}, c]}, st.sampled_from(["Canada", "x"])),
        st.builds(lambda c: {"starts_with": [{"var": "country"}, c]}, st.sampled_from(["Can", "x"])),
        st.builds(lambda c: {"ends_with": [{"var": "country"}, c]}, st.sampled_from(["States", "x"])),
        st.builds(lambda n: {">": [{"var": "age"}, n]}, st.integers(0, 100)),
        st.builds(lambda v: {"sem_ver": [{"var": "version"}, ">=", v]}, st.sampled_from(["1.0.0", "2.0.0"])),
        st.builds(lambda c: {"in": [{"var": "country"}, [c, "Canada"]]}, st.sampled_from(["x", "y"])),
    )
    share = st.lists(st.tuples(variant, st.integers(0, 100)).map(list), min_size=1, max_size=4)
    return st.one_of(
        st.builds(lambda c, a, b: {"if": [c, a, b]}, condition, variant, variant),
        st.builds(lambda c, a: {"if": [c, a]}, condition, variant),
        st.builds(lambda parts: {"fractional": parts}, share),
        st.builds(lambda parts: {"fractional": [{"var": "country"}, *parts]}, share),
        st.builds(lambda c, parts, a: {"if": [c, {"fractional": parts}, a]}, condition, share, variant),
    )


@st.composite
def flag_entries(draw):
    variants = draw(st.dictionaries(NAMES, VALUES, min_size=2, max_size=4))
    entry = {
        "state": "ENABLED",
        "variants": variants,
        "defaultVariant": draw(st.sampled_from(list(variants))),
    }
    if draw(st.booleans()):
        entry["targeting"] = draw(rules(list(variants)))
    if draw(st.booleans()):
        entry["description"] = draw(st.text(max_size=10))
    return entry


@st.composite
def documents(draw):
    flags = draw(st.dictionaries(NAMES, flag_entries(), min_size=1, max_size=3))
    body = {"$schema": "s", "flags": flags} if draw(st.booleans()) else {"flags": flags}
    indent = draw(st.sampled_from([None, 1, 2, 4, "\t"]))
    text = json.dumps(body, indent=indent, ensure_ascii=draw(st.booleans()))
    return (text + draw(st.sampled_from(["", "\n", "\n\n"]))).encode()


@settings(deadline=None)
@given(documents(), st.data())
def test_any_document_is_put_back_byte_for_byte(raw, data):
    flags = FlagdDocument(raw)
    key = data.draw(st.sampled_from(list(flags.flags)))
    variant = data.draw(st.sampled_from(list(flags.flags[key].variants)))
    before = flags.snapshot()
    try:
        flags.change(key, variant)
    except FlagError:
        assert flags.flags[key].targeting is not None
        assert flags.raw == raw
    else:
        others = [name for name in flags.flags if name != key]
        assert [flags.flags[name] for name in others] == [before.flags[name] for name in others]
        assert flags.flags[key].variants == before.flags[key].variants
    flags.restore(before.raw)
    assert flags.raw == raw
    assert flags.snapshot() == before


@settings(deadline=None)
@given(documents(), CONTEXTS)
def test_answers_are_those_of_the_evaluator_itself(raw, context):
    ours = FlagdDocument(raw)
    core = FlagdCore()
    body = json.loads(raw)["flags"]
    core.set_flags(
        {
            "flags": {
                key: {k: v for k, v in entry.items() if k != "description"} for key, entry in body.items()
            }
        }
    )
    where = EvaluationContext(context.get("targetingKey"), context)
    for key in ours.flags:
        for default, resolve in (
            (False, core.resolve_boolean_value),
            (7, core.resolve_integer_value),
            (0.5, core.resolve_float_value),
            ("text", core.resolve_string_value),
        ):
            try:
                theirs = resolve(key, default, where)
                wanted = (theirs.value, theirs.variant or "", str(theirs.reason))
            except Exception:
                wanted = (default, "", "ERROR")
            assert ours.evaluate(key, default, context) == wanted
            assert ours.evaluate(key, default, context) == wanted


NOW = {"var": "$flagd.timestamp"}


@pytest.mark.parametrize(
    "condition",
    [
        {">=": [NOW, 200]},
        {">=": [{"var": ["$flagd.timestamp", 0]}, 200]},
        {">=": [{"var": ["absent", NOW]}, 200]},
        {">=": [{"var": {"cat": ["$fl", "agd.timestamp"]}}, 200]},
    ],
)
def test_a_rule_about_time_is_evaluated_each_time(monkeypatch, condition):
    read = document({"sale": {**SWITCH, "targeting": {"if": [condition, "on", "off"]}}})
    moment = 100.0
    monkeypatch.setattr("time.time", lambda: moment)
    assert read.evaluate("sale", False).variant == "off"
    moment = 300.0
    assert read.evaluate("sale", False).variant == "on"


def test_a_rule_without_time_is_evaluated_once_for_a_context(monkeypatch):
    read = document()
    evaluated = []
    resolve = read._evaluator.resolve
    monkeypatch.setattr(read._evaluator, "resolve", lambda *asked: evaluated.append(asked) or resolve(*asked))
    for product in ("P1", "P2", "P1", "P2"):
        read.evaluate("catalog", False, {"product_id": product})
    assert len(evaluated) == 2
    read.evaluate("catalog", False, {"product_id": ["P1"]})
    read.evaluate("catalog", False, {"product_id": ["P1"]})
    assert len(evaluated) == 4, "a list in the context has no place in a table of answers"


def test_equal_values_of_other_types_are_another_context():
    rule = {"if": [{"in": ["1", {"cat": [{"var": "vip"}]}]}, "on", "off"]}
    read = document({"sale": {**SWITCH, "targeting": rule}})
    found = [read.evaluate("sale", False, {"vip": value}).variant for value in (1, True, 1)]
    assert found == ["on", "off", "on"]


def test_a_changed_rule_is_evaluated_anew():
    read = document()
    asked = ("catalog", False, {"product_id": "P1"})
    assert read.evaluate(*asked).variant == "off"
    read.change("catalog", "on")
    assert read.evaluate(*asked).variant == "on"
