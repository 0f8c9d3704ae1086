"""Spellings of names: case and separators do not matter."""

from __future__ import annotations

import re

_SEPARATORS = re.compile(r"[\W_]+")


def folded(name: str) -> str:
    """Return *name* without case and separators: ``payment_failure`` and ``paymentFailure`` are one."""
    return _SEPARATORS.sub("", name).casefold()
