"""Ports of the flags package: where a flagd document is stored, and who evaluates its flags.

A :class:`Surface` reads and writes the whole flagd document; a :class:`FlagReader` evaluates flags as the
services do. ``controller.SurfaceFlags`` combines the two into a FlagController.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Protocol

from pytest_otel_diag.model.base import Model
from pytest_otel_diag.model.flags import FlagValue, ServedFlag
from pytest_otel_diag.secret import SecretText


class FlagAddress(Model):
    """Where the flags of a system are written and evaluated.

    ``control`` names the surface (``file:/path/demo.flagd.json``,
    ``flagd-ui:http://localhost:8080/feature``, ``configmap:namespace/name``, ``command:…``,
    ``class:module:attribute``), ``served`` the reader (``ofrep:http://localhost:8016``,
    ``flagd:http://localhost:8080/flagservice``, ``grpc:localhost:8013``). Module ``access`` opens both.
    JSON shows both without credentials.
    """

    control: SecretText
    served: SecretText

    @property
    def complete(self) -> bool:
        """Whether credentials are there, so that it can be opened."""
        return self.control.complete and self.served.complete

    def completed_by(self, known: FlagAddress) -> FlagAddress:
        """Return this address with the credentials of *known*, where that is the same address."""
        same = (str(self.control), str(self.served)) == (str(known.control), str(known.served))
        return known if same else self


class RemoteLease(Protocol):
    """A lease stored with the flags, which keeps out runs on other hosts."""

    async def acquire(self, owner: str, *, seconds: float) -> str | None:
        """Take or renew the lease for *seconds*; return None on success, else the current holder."""
        ...

    async def release(self, owner: str) -> None:
        """Release the lease; does nothing unless *owner* holds it."""
        ...


class Surface(Protocol):
    """A place that stores the whole flagd document.

    Methods raise FlagError, which names the place and the remedy. None blocks the event loop.
    """

    @property
    def name(self) -> str:
        """The name that errors and tables show."""
        ...

    @property
    def identity(self) -> str:
        """The same text in every process that reaches this place: a real path, a URL, a cluster's object."""
        ...

    @property
    def control(self) -> str:
        """The ``FlagAddress.control`` that opens this place again, in any process and working directory."""
        ...

    @property
    def write_timeout_s(self) -> float:
        """The longest that one write may take, in seconds, when every attempt fails late."""
        ...

    async def describe(self) -> str:
        """Return the name with what the place reports about itself, such as the version of its API."""
        ...

    async def read(self) -> bytes:
        """Return the document as it is stored now."""
        ...

    async def write(self, raw: bytes, *, expected: bytes) -> None:
        """Replace the *expected* document as a whole; returns once the new one is stored.

        *raw* is a checked flagd document. Raises LostUpdate when another client changed the document: then
        either nothing was written, or the error says what is stored.
        """
        ...

    async def overwrite(self, raw: bytes) -> None:
        """Store *raw* whatever the place holds now, a damaged document or none included."""
        ...

    def same(self, one: bytes, other: bytes) -> bool:
        """Return whether two texts are the same document here: bytes, or JSON where the place reformats."""
        ...

    def lease(self) -> RemoteLease | None:
        """Return the lease that keeps out runs on other hosts; None where the place cannot store one."""
        ...

    def moved_from(self, identity: str) -> Moved | None:
        """Return where the document went when *identity* was this place's once and is not any more."""
        ...

    async def aclose(self) -> None:
        """Close connections."""
        ...


@dataclass(frozen=True)
class Moved:
    """A place whose address resolves to another document than before, as with a retargeted symlink.

    ``identity`` is the current one. ``former`` stores the document of before, None when that is gone.
    """

    identity: str
    former: Surface | None


class FlagReader(Protocol):
    """Evaluates flags as the services of the system do."""

    @property
    def name(self) -> str:
        """The name that errors and tables show."""
        ...

    @property
    def address(self) -> str:
        """The ``FlagAddress.served`` that opens this reader again."""
        ...

    async def served(self, key: str, context: Mapping[str, FlagValue]) -> ServedFlag:
        """Evaluate one flag; raises FlagError (unknown flag, no answer)."""
        ...

    async def served_all(self, context: Mapping[str, FlagValue]) -> Mapping[str, ServedFlag]:
        """Evaluate every flag; flags without a value (disabled, broken rule) are left out."""
        ...

    async def aclose(self) -> None:
        """Close connections."""
        ...
