"""Names of options as the command spells them: ``--store`` where pytest has ``--otel-diag-store``."""

from __future__ import annotations

import re

_PARTS = re.compile(r"(?P<quoted>\bpytest\s[^;\n]*)|--otel-diag-")


def as_typed(text: str) -> str:
    """Return *text* with the command's own names of options; what was typed for pytest stays as it is."""
    return _PARTS.sub(lambda found: found["quoted"] or "--", text)
