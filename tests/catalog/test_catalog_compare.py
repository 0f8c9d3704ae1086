"""A real document is compared with the release that fits it best."""

import json

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pytest_otel_diag import catalog
from pytest_otel_diag.catalog.compare import compare
from pytest_otel_diag.errors import ConfigurationError
from pytest_otel_diag.flags.document import FlagdDocument

DEMOS = catalog.load().demos()


def compared(document, demo=None):
    raw = document if isinstance(document, bytes) else json.dumps(document).encode()
    return compare(catalog.load(), FlagdDocument(raw).flags, demo)


def kinds(found):
    return {(item.kind, item.flag) for item in found.differences}


def body(demo="3.0"):
    return json.loads(catalog.demo_document(demo))


@pytest.mark.parametrize("demo", DEMOS)
def test_a_shipped_document_fits_its_release(demo):
    found = compared(catalog.demo_document(demo))
    assert found.same
    assert found.guessed
    assert not found.on
    assert demo in (found.demo, *found.alike)
    assert compared(catalog.demo_document(demo), demo).same


def test_releases_with_equal_flags_are_reported_together():
    found = compared(catalog.demo_document("1.10"))
    assert (found.demo, found.alike) == ("1.12", ("1.10", "1.11"))


@settings(deadline=None)
@given(st.sampled_from(DEMOS), st.data())
def test_switched_flags_are_on_and_do_not_change_the_fit(demo, data):
    document = FlagdDocument(catalog.demo_document(demo))
    flags = catalog.generation(demo).flags
    keys = data.draw(st.lists(st.sampled_from(list(flags)), unique=True, min_size=1))
    switched = set()
    for key in keys:
        others = [name for name in flags[key].variants if name != flags[key].default]
        variant = data.draw(st.sampled_from(others))
        document.change(flags[key].name, variant)
        switched.add(f"{flags[key].name}={variant}")
    found = compared(document.raw)
    assert demo in (found.demo, *found.alike)
    assert set(found.on) == switched
    assert kinds(found) == {("default", name.partition("=")[0]) for name in switched}


def test_every_kind_of_difference_is_named():
    document = body()
    flags = document["flags"]
    del flags["adFailure"]
    flags["loadGeneratorFloodHomepage"] = flags["kafkaQueueProblems"]
    flags["paymentCacheLeak"] = flags["adHighCpu"]
    flags["cartFailure"]["variants"]["90%"] = 0.95
    flags["emailMemoryLeak"]["variants"]["5x"] = 5
    flags["imageSlowLoad"]["state"] = "DISABLED"
    flags["paymentFailure"]["targeting"] = {"fractional": [["off", 1], ["100%", 1]]}
    flags["adManualGc"]["variants"]["on"] = 1
    flags["kafkaQueueProblems"] = {**flags["kafkaQueueProblems"], "defaultVariant": "on"}
    found = compared(document)
    assert found.demo == "3.0"
    assert kinds(found) == {
        ("missing", "adFailure"),
        ("unknown", "loadGeneratorFloodHomepage"),
        ("unknown", "paymentCacheLeak"),
        ("value", "cartFailure"),
        ("variants", "emailMemoryLeak"),
        ("state", "imageSlowLoad"),
        ("targeting", "paymentFailure"),
        ("value", "adManualGc"),
        ("default", "kafkaQueueProblems"),
    }
    notes = {item.flag: item.note for item in found.differences}
    assert notes["loadGeneratorFloodHomepage"] == "in 2.0, 2.1, 2.2, 3.1"
    assert notes["paymentCacheLeak"].startswith("in no release (did you mean 'payment")
    values = {(item.flag, item.expected, item.found) for item in found.differences if item.kind == "value"}
    assert values == {("cartFailure", "90% is 0.9", "90% is 0.95"), ("adManualGc", "on is true", "on is 1")}


def test_numbers_that_are_equal_for_flagd_are_equal():
    document = body()
    document["flags"]["paymentFailure"]["variants"]["100%"] = 1.0
    assert compared(document).same


def test_a_default_beside_a_rule_has_no_effect():
    document = body()
    document["flags"]["productCatalogFailure"]["defaultVariant"] = "on"
    (difference,) = compared(document).differences
    assert "has no effect" in difference.note
    assert compared(document).on == ()
    document["flags"]["productCatalogFailure"]["targeting"]["if"][1] = "on"
    assert compared(document).on == ("productCatalogFailure=on",)


def test_a_removed_rule_is_a_difference():
    document = body()
    del document["flags"]["productCatalogFailure"]["targeting"]
    (difference,) = compared(document).differences
    assert (difference.kind, difference.found) == ("targeting", "no rule")


def test_names_of_other_releases_and_spellings_are_recognised():
    document = {"flags": {"adServiceFailure": body("1.12")["flags"]["adServiceFailure"]}}
    old = compared(document, "3.0")
    assert {i.note for i in old.differences if i.kind == "unknown"} == {
        "'adFailure' by the name it has in 1.9, 1.10, 1.11, 1.12"
    }
    document = {"flags": {"ad_failure": body()["flags"]["adFailure"]}}
    assert {i.note for i in compared(document).differences if i.kind == "unknown"} == {"spelt 'adFailure'"}


def test_a_partial_document_fits_the_release_that_has_its_flags():
    flags = body("3.0")["flags"]
    part = {key: flags[key] for key in ("cartFailure", "loadGeneratorVUs", "adFailure")}
    assert compared({"flags": part}).demo == "3.0"


def test_an_unknown_release_is_refused():
    with pytest.raises(ConfigurationError, match="unknown demo release '7'"):
        compared(body(), "7")
