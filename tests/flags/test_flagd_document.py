"""A flagd document is evaluated, switched and put back as a real flagd would see it."""

import json
from itertools import count

import pytest

from pytest_otel_diag.flags.flagd_document import DocumentFlags, FlagdDocument
from pytest_otel_diag.testing.flag_contract import FlagControllerContract

FAILURE = {"state": "ENABLED", "variants": {"off": 0, "50%": 0.5, "100%": 1}, "defaultVariant": "off"}
SWITCH = {"state": "ENABLED", "variants": {"off": False, "on": True}, "defaultVariant": "off"}
ONE_PRODUCT = {**SWITCH, "targeting": {"if": [{"==": [{"var": "product_id"}, "P1"]}, "off", "off"]}}


def document(flags=None, **rest):
    body = {"flags": flags or {"payment": FAILURE, "ad": SWITCH, "catalog": ONE_PRODUCT}, **rest}
    return FlagdDocument(json.dumps(body, indent=2).encode())


class TestDocumentFlags(FlagControllerContract):
    @pytest.fixture
    def controller(self):
        ticks = count(1)
        return DocumentFlags(document(), now=lambda: next(ticks))

    @pytest.fixture
    def flag(self):
        return "payment"


def test_a_rule_of_targeting_is_switched_where_it_decides():
    flags = document()
    flags.change("catalog", "on")
    assert flags.evaluate("catalog", False, {"product_id": "P1"}) == (True, "on", "TARGETING_MATCH")
    assert flags.evaluate("catalog", False, {"product_id": "P2"}) == (False, "off", "TARGETING_MATCH")
