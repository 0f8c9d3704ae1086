"""Knobs of the undo of one session."""

from __future__ import annotations

from dataclasses import dataclass, field

from pytest_otel_diag.undo.guardian.client import OPENER
from pytest_otel_diag.undo.verify import Patience


@dataclass(frozen=True)
class UndoSettings:
    """Knobs of the undo.

    ``lease_wait_s`` bounds the wait for another run, ``deadline_s`` (from the first write on) is when the
    guardian takes the fault back although the run is there: it hangs. ``keep`` leaves the fault on.
    ``opener`` is what opens a FlagAccess in another process, ``module:attribute``.
    """

    lease_wait_s: float = 600.0
    deadline_s: float = 3600.0
    keep: bool = False
    opener: str = OPENER
    patience: Patience = field(default_factory=Patience)
    guardian_patience_s: float = 300.0
