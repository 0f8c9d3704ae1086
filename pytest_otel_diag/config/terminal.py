"""What the environment says of the terminal; only config reads the environment."""

from __future__ import annotations

import os
from collections.abc import Mapping


def can_redraw(environment: Mapping[str, str] | None = None) -> bool:
    """Whether a terminal of this environment can move its cursor and is watched: no CI, no dumb terminal."""
    environ = os.environ if environment is None else environment
    return environ.get("TERM", "") not in ("", "dumb") and not environ.get("CI")
