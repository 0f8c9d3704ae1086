"""Who may enter: one token an access, and what the access holds while it lasts."""

from __future__ import annotations

import asyncio
import hashlib
import hmac
import threading
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Protocol
from weakref import WeakSet

from pytest_otel_diag.config import agent_access
from pytest_otel_diag.ports import Investigation
from pytest_otel_diag.secret import SecretText
from pytest_otel_diag.tools import Toolbox

_REVOKED_KEPT = 256
"""Digests of revoked tokens that are kept, to say why a late call is refused."""


@dataclass(frozen=True)
class Access:
    """What an agent gets: addresses and a token, valid while the access is open.

    ``url`` is the base of the JSON API, without a slash at the end, ``mcp_url`` the address of MCP.
    ``toolbox.submitted`` holds the diagnosis that the agent submitted.
    """

    url: str
    mcp_url: str
    token: SecretText
    toolbox: Toolbox


def environment(access: Access) -> dict[str, str]:
    """Return the environment variables in which an agent finds its access; one holds the token."""
    return {
        agent_access.URL: access.url,
        agent_access.MCP_URL: access.mcp_url,
        agent_access.TOKEN: access.token.reveal(),
    }


def _digest(token: bytes) -> bytes:
    return hashlib.sha256(token).digest()


class Connection(Protocol):
    """A connection of a client."""

    @property
    def closed(self) -> bool:
        """Whether it is closed, or about to be."""
        ...

    def admitted(self) -> None:
        """Record that the client has shown a valid token."""
        ...

    def end(self) -> None:
        """Close the connection, after the response that is being sent."""
        ...


@dataclass(eq=False)
class Lease:
    """One open access as the server sees it; what changes does so on the server's loop.

    ``tasks`` are the requests that run, ``calls`` the number of calls of tools so far, ``arriving_bytes`` the
    bytes of request bodies in memory. ``over`` says why the access has ended.
    """

    investigation: Investigation
    toolbox: Toolbox
    digest: bytes
    tasks: set[asyncio.Task[None]] = field(default_factory=set)
    connections: WeakSet[Connection] = field(default_factory=WeakSet)
    calls: int = 0
    arriving_bytes: int = 0
    over: str = ""


class Leases:
    """The open accesses, found by their tokens; used from any thread."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._open: tuple[Lease, ...] = ()
        self._revoked: deque[tuple[bytes, str]] = deque(maxlen=_REVOKED_KEPT)

    def __len__(self) -> int:
        return len(self._open)

    def all(self) -> Sequence[Lease]:
        """Return the open accesses."""
        return self._open

    def admit(self, investigation: Investigation, toolbox: Toolbox, token: SecretText) -> Lease:
        """Open an access under *token*."""
        lease = Lease(investigation, toolbox, _digest(token.reveal().encode()))
        with self._lock:
            self._open = (*self._open, lease)
        return lease

    def revoke(self, lease: Lease, why: str) -> None:
        """End an access; later calls are refused with *why*."""
        with self._lock:
            lease.over = why
            self._open = tuple(one for one in self._open if one is not lease)
            self._revoked.append((lease.digest, why))

    def find(self, token: bytes) -> tuple[Lease | None, str]:
        """Return the access of *token*, or None and why it has none.

        Compares with every token, so that the time does not depend on which one matches.
        """
        presented = _digest(token)
        found: Lease | None = None
        why = "the token is unknown; use the one in OTEL_DIAG_TOKEN"
        for lease in self._open:
            if hmac.compare_digest(lease.digest, presented):
                found = lease
        for digest, reason in tuple(self._revoked):
            if hmac.compare_digest(digest, presented):
                why = f"the token is revoked: {reason}"
        return found, why
