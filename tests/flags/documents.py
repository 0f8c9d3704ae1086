"""The document that the tests of controllers share, and the flags of it that play a part."""

import json

from pytest_otel_diag.testing.flag_contract import Targeted

SWITCH = {"state": "ENABLED", "variants": {"on": True, "off": False}, "defaultVariant": "off"}
FLAGS = {
    "paymentFailure": {
        "description": "shares of charges that fail",
        "state": "ENABLED",
        "variants": {"100%": 1, "95%": 0.95, "50%": 0.5, "off": 0},
        "defaultVariant": "off",
    },
    "adFailure": SWITCH,
    "productCatalogFailure": {
        **SWITCH,
        "targeting": {"if": [{"==": [{"var": "product_id"}, "OLJCESPC7Z"]}, "off", "off"]},
    },
    "dealtOut": {**SWITCH, "targeting": {"fractional": [["on", 50], ["off", 50]]}},
    "imageSlowLoad": {
        "state": "ENABLED",
        "variants": {"10sec": 10000, "5sec": 5000, "off": 0},
        "defaultVariant": "off",
    },
    "loadGeneratorVUs": {"state": "ENABLED", "variants": {"5": "5", "10": "10"}, "defaultVariant": "5"},
    "wholeFloat": {"state": "ENABLED", "variants": {"a": 1.0, "b": 2}, "defaultVariant": "a"},
    "shape": {"state": "ENABLED", "variants": {"a": {"n": 1, "x": 0.5}, "b": {}}, "defaultVariant": "a"},
    "asleep": {**SWITCH, "state": "DISABLED"},
    "broken": {**SWITCH, "targeting": {"if": [True, "no such variant"]}},
}
RAW = (
    json.dumps({"$schema": "https://flagd.dev/schema/v0/flags.json", "flags": FLAGS}, indent=2) + "\n"
).encode()
TARGETED = Targeted("productCatalogFailure", {"product_id": "OLJCESPC7Z"}, {"product_id": "other"})


def edited(raw=RAW, /, **changes):
    """Return the document with members of flags replaced: ``edited(adFailure={"defaultVariant": "on"})``."""
    body = json.loads(raw)
    for key, members in changes.items():
        body["flags"][key] = {**body["flags"].get(key, {}), **members}
    return json.dumps(body, indent=2).encode()
