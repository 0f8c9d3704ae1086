"""What a check of an installation or a system found."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

CheckState = Literal["ok", "absent", "warning", "failed"]
"""Fine; optional and not installed; a session would run but something is odd; a session would not run."""


@dataclass(frozen=True)
class CheckResult:
    """One check. ``detail`` says what was found and, unless it is fine, how to fix it."""

    state: CheckState
    name: str
    detail: str
