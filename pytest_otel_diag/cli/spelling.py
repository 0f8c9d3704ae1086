"""Spells options in messages as the command has them: ``--store`` for pytest's ``--otel-diag-store``."""

from __future__ import annotations

import re

_PARTS = re.compile(r"(?P<quoted>\bpytest\s[^;\n]*)|--otel-diag-")


def as_typed(text: str) -> str:
    """Return *text* with the command's spelling of options; quoted pytest commands stay as they are."""
    return _PARTS.sub(lambda found: found["quoted"] or "--", text)
