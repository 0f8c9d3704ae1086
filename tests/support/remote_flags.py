"""Shared by tests of flag surfaces: a document, ways to change it, and retry policies."""

import json

from pytest_otel_diag import catalog
from pytest_otel_diag.flags.document import FlagdDocument
from pytest_otel_diag.flags.surfaces.read_back import RetryPolicy
from pytest_otel_diag.testing.flag_contract import Targeted
from tests.support.deadlines import deadline_s

PATIENT = RetryPolicy(tries=3, kept_s=deadline_s(10), poll_s=0.01)
"""For writes that are stored sooner or later: one attempt, read back as long as a slow machine needs."""
ONE_LOOK = RetryPolicy(tries=3, kept_s=0.0, poll_s=0.0)
"""For writes that are lost: each attempt is read back exactly once."""
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
