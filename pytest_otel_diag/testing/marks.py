"""Shorthands for marking tests."""

from __future__ import annotations

import pytest


def each_variant(flag: str, *variants: str) -> pytest.MarkDecorator:
    """Run a test once for each variant of a flag; the test takes it as ``variant``."""
    return pytest.mark.parametrize(
        "variant", [pytest.param(name, marks=pytest.mark.otel_flag(flag, variant=name)) for name in variants]
    )
