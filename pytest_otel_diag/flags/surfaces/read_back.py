"""Compare-and-write with read-back, for stores without locks, versions or atomic writes.

A web interface or a user's command may answer before it has stored the document, answer without storing it,
or store it without answering. So every write is read back, a write that was not stored is sent again a
bounded number of times, and a document that is neither the previous one nor ours means that another client
wrote. One race remains: a client that writes between our comparison and our write is overwritten.
"""

from __future__ import annotations

import asyncio
import time
from dataclasses import dataclass
from typing import Protocol

from pytest_otel_diag.errors import FlagError, LostUpdate
from pytest_otel_diag.flags.comparison import differing


class Uncertain(FlagError):
    """A request failed, and nobody knows whether it was carried out; it may be sent again."""


@dataclass(frozen=True)
class RetryPolicy:
    """How often and how long to retry: ``tries`` requests, each read back for ``kept_s`` every ``poll_s``.

    Times are in seconds. One write takes at most about ``tries`` × (``kept_s`` + the time of one request).
    """

    tries: int = 3
    kept_s: float = 5.0
    poll_s: float = 0.1


class DocumentStore(Protocol):
    """What :func:`replace` needs of a place that stores documents."""

    @property
    def name(self) -> str:
        """The name that errors show."""
        ...

    async def read(self) -> bytes:
        """Return the stored document; raises FlagError."""
        ...

    async def put(self, raw: bytes) -> None:
        """Send one write; raises Uncertain when it may have been stored, FlagError when it was refused."""
        ...

    def same(self, one: bytes, other: bytes) -> bool:
        """Return whether two texts are the same document."""
        ...


async def replace(store: DocumentStore, raw: bytes, *, expected: bytes | None, retry: RetryPolicy) -> None:
    """Write *raw* and return once it is read back; with *expected* None, overwrite any document.

    Raises LostUpdate when another client changed the document before or after the write, FlagError when the
    write is not stored after all retries.
    """
    if expected is not None:
        found = await store.read()
        if not store.same(found, expected):
            raise LostUpdate(
                f"{store.name} was changed by another client since it was read "
                f"({differing(expected, found)}); nothing was written. Stop the other writer (another run, "
                "the flagd-ui page, its scheduler, an editor of the file) and start again"
            )
    failure: FlagError | None = None
    for _ in range(retry.tries):
        try:
            await store.put(raw)
            failure = None
        except Uncertain as error:
            failure = error
        try:
            if await _stored(store, raw, expected, retry):
                return
        except Uncertain as error:
            failure = failure or error
    last = f"the last answer was: {failure}" if failure else "every write was acknowledged"
    raise FlagError(
        f"{store.name} does not keep what is written: after {retry.tries} writes it still holds another "
        f"document ({last}). A late write may still take effect; check with: otel-diag flags list"
    )


async def _stored(store: DocumentStore, raw: bytes, expected: bytes | None, retry: RetryPolicy) -> bool:
    """Poll until *raw* is read back; return False when the previous document still is.

    Raises Uncertain when no read succeeded, LostUpdate when another client wrote.
    """
    deadline_s = time.monotonic() + retry.kept_s
    unexpected = b""
    failure: FlagError | None = None
    seen = False
    while True:
        try:
            found = await store.read()
        except FlagError as error:
            failure = error
        else:
            seen = True
            if store.same(found, raw):
                return True
            if expected is not None and not store.same(found, expected):
                # Read the same twice, since a single read may show a document that is being written.
                if unexpected and store.same(found, unexpected):
                    raise LostUpdate(
                        f"{store.name} holds the document of another client after our write "
                        f"({differing(raw, found)}): it overwrote ours, or flagd-ui was restarted and reads "
                        "its initial document (a pod starts from its ConfigMap). Stop the other writer"
                    )
                unexpected = found
        if time.monotonic() >= deadline_s:
            if not seen and failure is not None:
                raise Uncertain(str(failure)) from failure
            return False
        await asyncio.sleep(retry.poll_s)
