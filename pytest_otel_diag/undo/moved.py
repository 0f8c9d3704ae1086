"""A flag file that is another one at the undo than at the fault: its link leads elsewhere since.

The entry's identity is the real path that was written. When the path of the access leads to another file
by now, the old one still holds the fault, and flagd may still read it, or will once the link is back.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Protocol

from pytest_otel_diag.errors import FlagError, RestoreFailed
from pytest_otel_diag.flags.controller import SurfaceFlags
from pytest_otel_diag.flags.surfaces.file import FileSurface
from pytest_otel_diag.ports import FlagController
from pytest_otel_diag.undo.journal import Entry


class _Plan(Protocol):
    @property
    def raw(self) -> bytes:
        """What to write."""
        ...


def moved_to(entry: Entry, flags: FlagController) -> str:
    """Return the real path that the flags are at now, empty while it is the one of the entry."""
    if not (isinstance(flags, SurfaceFlags) and isinstance(flags.surface, FileSurface)):
        return ""
    now = flags.identity
    return now if Path(entry.identity).is_absolute() and now != entry.identity else ""


async def put_back_where_it_was(
    entry: Entry, flags: FlagController, plan: Callable[[bytes, bytes, Iterable[str]], _Plan]
) -> str:
    """Take the fault back in the file that it was written to; return what a person should know.

    Does nothing while that is the file of *flags*. Raises RestoreFailed when it cannot be written.
    """
    now = moved_to(entry, flags)
    if not now:
        return ""
    told = f"THE FLAG FILE WAS MOVED MEANWHILE: it is {now}, the fault was written to {entry.identity}"
    old = Path(entry.identity)
    if not await asyncio.to_thread(old.exists):
        return f"{told}, which is gone"
    surface = FileSurface(old)
    try:
        try:
            current = await surface.read()
        except FlagError:
            current = b""
        wanted = plan(entry.previous, current, entry.keys)
        if current:
            await surface.write(wanted.raw, expected=current)
        else:
            await surface.overwrite(wanted.raw)
    except FlagError as error:
        raise RestoreFailed(f"{told}, and cannot be put back there: {error}") from error
    return f"{told}; it was taken back in both. Restart flagd unless it follows the link"
