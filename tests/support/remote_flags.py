"""Shared by tests of flag surfaces: a document, ways to change it, and short retries."""

import json

from pytest_otel_diag import catalog
from pytest_otel_diag.flags.document import FlagdDocument
from pytest_otel_diag.flags.surfaces.read_back import RetryPolicy
from pytest_otel_diag.testing.flag_contract import Targeted

QUICK = RetryPolicy(tries=3, kept_s=0.4, poll_s=0.01)
FLAG = "paymentFailure"
TARGETED = Targeted("productCatalogFailure", {"product_id": "OLJCESPC7Z"}, {"product_id": "OTHER"})
SHARED = "dealtOut"


def document() -> bytes:
    """Return the demo's document with one more flag, whose rule deals its variants out."""
    body = json.loads(catalog.demo_document())
    body["flags"][SHARED] = {
        "state": "ENABLED",
        "variants": {"off": 0, "half": 0.5, "all": 1},
        "defaultVariant": "off",
        "targeting": {"fractional": [["off", 50], ["half", 30], ["all", 20]]},
    }
    return json.dumps(body, indent=2).encode()


def switched(raw: bytes, flag: str = FLAG, variant: str = "50%") -> bytes:
    """Return the document with one flag switched."""
    changed = FlagdDocument(raw)
    changed.change(flag, variant)
    return changed.raw


def variant(raw: bytes, flag: str = FLAG) -> str:
    """Return a flag's default variant in the document."""
    return FlagdDocument(raw).flags[flag].default_variant
