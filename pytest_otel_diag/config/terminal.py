"""Facts about the terminal that the environment states; only ``config`` reads the environment."""

from __future__ import annotations

import os
from collections.abc import Mapping


def can_redraw(environment: Mapping[str, str] | None = None) -> bool:
    """Whether output may be redrawn in place: on a terminal that can move its cursor, outside CI."""
    environ = os.environ if environment is None else environment
    return environ.get("TERM", "") not in ("", "dumb") and not environ.get("CI")
