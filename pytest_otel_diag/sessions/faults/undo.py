"""Restores the flags of a session and verifies that they answer as before."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping

from pytest_otel_diag.model.flags import FlagDocument
from pytest_otel_diag.model.session import Cleanup, Witness
from pytest_otel_diag.sessions.ending import describe
from pytest_otel_diag.sessions.faults.external_changes import ExternalChangeDetector
from pytest_otel_diag.sessions.faults.witness import FlagWitness


class FaultUndo:
    """Restores *document* and verifies that flags answer the variants *found* before the faults.

    Made before the first change, so that there is always something to restore.
    """

    def __init__(self, witness: FlagWitness, document: FlagDocument, found: Mapping[str, str]) -> None:
        self._witness = witness
        self._settings = witness.settings
        self._document = document
        self._found = dict(found)
        self._given_up = False
        self.interrupt: BaseException | None = None
        """The interrupt that arrived while the undo ran; the caller raises it afterwards."""
        self.proofs: tuple[Witness, ...] = ()
        """How the flags answered after the restore; empty before they were read."""

    def give_up(self) -> None:
        """Let the next interrupt end the undo: its time is over."""
        self._given_up = True

    async def run(self) -> Cleanup:
        """Restore the document, then read every flag back until it answers as before.

        Raises nothing before :meth:`give_up`. An interrupt in the middle does not stop the undo: the attempt
        is repeated and the interrupt kept in ``interrupt``.
        """
        failure = "no attempt was made"
        for _ in range(self._settings.undo_attempts):
            try:
                await self._witness.system.flags.restore(self._document)
                break
            except BaseException as error:  # every kind: leaving now would leave the fault on
                failure = describe(error)
                self._keep(error)
        else:
            return Cleanup(restored=False, verified=False, detail=f"restore failed: {failure}")
        return await self._verify()

    async def _verify(self) -> Cleanup:
        for _ in range(2):
            try:
                self.proofs = await self._witness.confirm(self._found)
            except BaseException as error:  # as above
                failure = describe(error)
                self._keep(error)
                continue
            wrong = [
                f"{proof.flag} should answer {proof.variant!r}, {proof.detail}"
                for proof in self.proofs
                if not proof.confirmed
            ]
            detail = "; ".join(wrong) or await self._other_flags()
            return Cleanup(restored=True, verified=not wrong, detail=detail)
        return Cleanup(restored=True, verified=False, detail=f"reading back failed: {failure}")

    async def _other_flags(self) -> str:
        """Return which other flags differ from *document*: the undo need not revert external changes."""
        detector = ExternalChangeDetector(self._witness, self._document)
        try:
            async with asyncio.timeout(self._settings.undo_timeout_s / 4):
                changed = await detector.check()
        except BaseException as error:  # as above; the session's own flags are proven
            self._keep(error)
            return ""
        if not changed.faults:
            return ""
        return f"other flags are not as they were found: {', '.join(changed.faults)}"

    def _keep(self, error: BaseException) -> None:
        if isinstance(error, Exception):
            return
        if self._given_up:
            raise error
        self.interrupt = error

    def remedy(self, cleanup: Cleanup) -> str:
        """Return what to do about an undo that failed: which flags, why, with which command."""
        flags = ", ".join(f"{key} (back to {variant!r})" for key, variant in self._found.items())
        return (
            f"A FAULT MAY STILL BE ON: {flags}: {cleanup.detail}. "
            f"Take it back with: {cleanup.recovery_command}, or by hand and read it back, "
            "before anything else runs on this target"
        )
