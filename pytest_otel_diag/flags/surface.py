"""What a place that holds flags has to offer: read and write, ask what is served, keep others out.

A :class:`Surface` reads and writes the whole flagd document, a :class:`FlagReader` evaluates flags as
services do. ``controller.SurfaceFlags`` makes one FlagController of the two, so a new place needs ``read``
and ``write``.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Protocol, runtime_checkable

from pytest_otel_diag.model.base import Model
from pytest_otel_diag.model.flags import FlagValue, ServedFlag


class FlagAccess(Model):
    """How the flags of a system are reached, as two texts that a journal can keep.

    ``control`` says where the document is written (``file:/path/demo.flagd.json``,
    ``flagd-ui:http://localhost:8080/feature``, ``configmap:namespace/name``, ``command:…``,
    ``class:module:attribute``), ``served`` where flags are evaluated (``ofrep:http://localhost:8016``,
    ``flagd:http://localhost:8080/flagservice``, ``grpc:localhost:8013``). ``opening`` reads both.
    """

    control: str
    served: str


class RemoteLease(Protocol):
    """Keeps runners on other hosts out, where the surface has a place for it."""

    async def acquire(self, owner: str, *, seconds: float) -> str | None:
        """Take it for *seconds*; return None when it is ours, else the name of who has it."""
        ...

    async def release(self, owner: str) -> None:
        """Give it back; does nothing when it is not *owner*'s."""
        ...


class Surface(Protocol):
    """A place that holds the whole flagd document.

    All methods raise FlagError that names the place and the way out. None blocks the event loop.
    """

    @property
    def name(self) -> str:
        """What errors and tables call the place."""
        ...

    @property
    def identity(self) -> str:
        """The same text for every process that reaches this place: a real path, a URL, a cluster's object."""
        ...

    async def read(self) -> bytes:
        """Return the document as it is written now."""
        ...

    async def write(self, raw: bytes, *, expected: bytes) -> None:
        """Replace the document as a whole, once it is the one that was *expected*; returns when it is kept.

        Raises LostUpdate when somebody else wrote in between: then nothing has changed, or what is there
        now is told. *raw* was checked as a flagd document.
        """
        ...

    def same(self, one: bytes, other: bytes) -> bool:
        """Whether two texts are the same document here (bytes, or JSON where the place formats itself)."""
        ...

    def lease(self) -> RemoteLease | None:
        """Return what keeps runners on other hosts out; None where the place has nothing for it."""
        ...

    async def aclose(self) -> None:
        """Release connections."""
        ...


@runtime_checkable
class Mendable(Protocol):
    """A place that can be given its document back although what is there now cannot be read as one."""

    async def mend(self, raw: bytes) -> None:
        """Replace whatever is there; raises FlagError when that fails."""
        ...


class FlagReader(Protocol):
    """Evaluates flags as the services of the system do."""

    @property
    def name(self) -> str:
        """What errors and tables call it."""
        ...

    async def served(self, key: str, context: Mapping[str, FlagValue]) -> ServedFlag:
        """Return what one flag answers now; raises FlagError (unknown flag, no answer)."""
        ...

    async def served_all(self, context: Mapping[str, FlagValue]) -> Mapping[str, ServedFlag]:
        """Return what every flag answers now; flags that answer nothing are left out."""
        ...

    async def aclose(self) -> None:
        """Release connections."""
        ...
