"""The port to the flags of a target."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Protocol

from pytest_otel_diag.model.flags import FlagChange, FlagDocument, FlagValue, ServedFlag


class FlagController(Protocol):
    """Reads, changes and restores the flags of a target."""

    async def document(self) -> FlagDocument:
        """Return all flags, with the exact bytes for a later restore; raises FlagError."""
        ...

    async def apply(self, change: FlagChange) -> None:
        """Set one flag; raises FlagError for an unknown flag or variant."""
        ...

    async def restore(self, document: FlagDocument) -> None:
        """Write the document back byte for byte; raises RestoreFailed."""
        ...

    async def served(self, key: str, context: Mapping[str, FlagValue]) -> ServedFlag:
        """Return what services get for the flag now, in this evaluation context; raises FlagError."""
        ...
