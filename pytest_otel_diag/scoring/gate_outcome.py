"""How the gate ends, and the exit codes that say so."""

from __future__ import annotations

from enum import StrEnum

EXIT_INTERRUPTED = 2
EXIT_FAIL = 11
EXIT_INFRASTRUCTURE = 12
EXIT_INCONCLUSIVE = 13


class GateOutcome(StrEnum):
    """Outcome of the gate. Only PASS is green; INFRASTRUCTURE and INTERRUPTED do not judge an analyzer."""

    PASS = "PASS"  # noqa: S105 (a verdict, not a password)
    FAIL = "FAIL"
    INCONCLUSIVE = "INCONCLUSIVE"
    INFRASTRUCTURE = "INFRASTRUCTURE"
    INTERRUPTED = "INTERRUPTED"

    @property
    def exit_code(self) -> int:
        """Process exit code, 0 for PASS."""
        return {
            GateOutcome.PASS: 0,
            GateOutcome.FAIL: EXIT_FAIL,
            GateOutcome.INFRASTRUCTURE: EXIT_INFRASTRUCTURE,
            GateOutcome.INCONCLUSIVE: EXIT_INCONCLUSIVE,
            GateOutcome.INTERRUPTED: EXIT_INTERRUPTED,
        }[self]
