"""Flags evaluated at a bare address, whose protocol the first request finds out.

Tries OFREP, flagd's own protocol over HTTP, the same below ``/flagservice`` (the demo's frontend), and gRPC
for addresses without ``http://`` (first for port 8013). The first protocol that answers is used from then on;
while none answers, each request tries again.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping

from pytest_otel_diag.errors import FlagError
from pytest_otel_diag.flags.http import base_url
from pytest_otel_diag.flags.readers.flagd_grpc import DEFAULT_PORT, FlagdGrpcReader
from pytest_otel_diag.flags.readers.flagd_http import FlagdHttpReader
from pytest_otel_diag.flags.readers.ofrep import OfrepReader
from pytest_otel_diag.flags.surface import FlagReader
from pytest_otel_diag.model.flags import FlagValue, ServedFlag
from pytest_otel_diag.secret import masked

_PROBE_TIMEOUT_S = 3.0


def open_reader(rest: str) -> ProbingReader:
    """Return a reader that probes *rest*; raises ConfigurationError for an invalid address."""
    return ProbingReader(rest)


class ProbingReader:
    """Evaluates flags at *address*; raises ConfigurationError for an invalid address."""

    def __init__(self, address: str) -> None:
        base_url(address, "flagd")
        self._address = address.strip().rstrip("/")
        self._chosen: FlagReader | None = None

    @property
    def address(self) -> str:
        """The ``FlagAddress.served`` that opens this reader again."""
        return self._address

    @property
    def name(self) -> str:
        """The name of the reader found, the address until then."""
        return self._chosen.name if self._chosen else masked(self._address)

    async def served(self, key: str, context: Mapping[str, FlagValue]) -> ServedFlag:
        """Evaluate the flag; raises FlagError, which lists the protocols tried when none answers."""
        return await (await self._reader()).served(key, context)

    async def served_all(self, context: Mapping[str, FlagValue]) -> Mapping[str, ServedFlag]:
        """Evaluate every flag; raises FlagError as :meth:`served`."""
        return await (await self._reader()).served_all(context)

    async def aclose(self) -> None:
        """Close the connections of the reader found."""
        if self._chosen is not None:
            await self._chosen.aclose()

    async def _reader(self) -> FlagReader:
        if self._chosen is not None:
            return self._chosen
        failures = []
        for make in self._candidates():
            candidate = make()
            try:
                await candidate.served_all({})
            except FlagError as error:
                failures.append(str(error).partition("; ")[0])
                await candidate.aclose()
                continue
            self._chosen = candidate
            return candidate
        tried = "; ".join(failures)
        raise FlagError(
            f"nothing at {masked(self._address)} evaluates flags ({tried}). Start flagd, or say what "
            "it is with ofrep:URL, flagd:URL or grpc:HOST:PORT"
        )

    def _candidates(self) -> Iterator[Callable[[], FlagReader]]:
        address = self._address
        bare = "://" not in address
        grpc_first = bare and address.rpartition(":")[2] == str(DEFAULT_PORT)
        if grpc_first:
            yield lambda: FlagdGrpcReader(address, timeout_s=_PROBE_TIMEOUT_S)
        yield lambda: OfrepReader(address, timeout_s=_PROBE_TIMEOUT_S)
        yield lambda: FlagdHttpReader(address, timeout_s=_PROBE_TIMEOUT_S)
        if not address.endswith("/flagservice"):
            yield lambda: FlagdHttpReader(f"{address}/flagservice", timeout_s=_PROBE_TIMEOUT_S)
        if bare and not grpc_first:
            yield lambda: FlagdGrpcReader(address, timeout_s=_PROBE_TIMEOUT_S)
