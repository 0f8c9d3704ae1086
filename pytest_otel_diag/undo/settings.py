"""Settings of the undo of one session."""

from __future__ import annotations

from dataclasses import dataclass

from pytest_otel_diag.undo.guardian.client import OPENER
from pytest_otel_diag.undo.guardian.process import RETRY_S
from pytest_otel_diag.undo.verify import RestoreLimits


@dataclass(frozen=True)
class UndoSettings:
    """Settings of the undo; times are in seconds.

    ``lease_wait_s`` bounds the wait for another run. At ``deadline_s`` after the first write the guardian
    restores the flags although the run is alive, since it then hangs. ``keep`` leaves the fault on.
    ``opener`` names the function that opens a FlagAddress in another process, ``module:attribute``.
    ``limits`` are those of the surface unless given. The guardian retries for ``guardian_retry_s``.
    ``target`` is recorded in the journal.
    """

    lease_wait_s: float = 600.0
    deadline_s: float = 3600.0
    keep: bool = False
    opener: str = OPENER
    limits: RestoreLimits | None = None
    guardian_retry_s: float = RETRY_S
    target: str = ""
