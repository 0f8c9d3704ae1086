"""The flags of a live system, and the release of the demo that they identify.

pytest checks names and variants at collection, in synchronous code that may run inside an event loop. So a
separate thread reads the document once, with a time limit; each session refreshes it.
"""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass

from pytest_otel_diag import catalog
from pytest_otel_diag.catalog.compare import CatalogComparison, compare
from pytest_otel_diag.daemon import start_thread
from pytest_otel_diag.errors import FlagError, OtelDiagError
from pytest_otel_diag.flags.surface import FlagAddress
from pytest_otel_diag.model.flags import Flag, FlagDocument
from pytest_otel_diag.targets.live.options import AUTO

READ_TIMEOUT_S = 20.0
TRY_AGAIN_S = 15.0
"""How long the error of a failed read is reused, so that collecting many tests does not hang."""

OFF = "off"

Read = Callable[[], FlagDocument]


@dataclass(frozen=True)
class Found:
    """The flags of the system, compared with the release that was named or fits best."""

    flags: Mapping[str, Flag]
    comparison: CatalogComparison

    @property
    def demo(self) -> str:
        """The release, as ``3.0``."""
        return self.comparison.demo

    @property
    def normal(self) -> dict[str, str]:
        """Return the current variants of flags whose shipped default is not ``off``."""
        shipped = {period.name: period for period in catalog.generation(self.demo).flags.values()}
        return {
            name: flag.default_variant
            for name, flag in self.flags.items()
            if name in shipped and shipped[name].default != OFF
        }


class LiveDocument:
    """The document of the flags, read on first use; *read* blocks for a bounded time."""

    def __init__(
        self, read: Read, *, demo: str = AUTO, monotonic: Callable[[], float] = time.monotonic
    ) -> None:
        self._read = read
        self._demo = None if demo == AUTO else demo
        self._monotonic = monotonic
        self._lock = threading.Lock()
        self._found: Found | None = None
        self._failed: tuple[float, str] | None = None

    def found(self) -> Found:
        """Return the latest document; raises FlagError when it cannot be read."""
        with self._lock:
            if self._found is not None:
                return self._found
            if self._failed is not None and self._monotonic() < self._failed[0]:
                raise FlagError(self._failed[1])
            try:
                return self._take(self._read())
            except OtelDiagError as error:
                self._failed = (self._monotonic() + TRY_AGAIN_S, str(error))
                raise FlagError(str(error)) from error

    def take(self, document: FlagDocument) -> Found:
        """Store a document that the caller has read."""
        with self._lock:
            return self._take(document)

    def _take(self, document: FlagDocument) -> Found:
        self._found = Found(document.flags, compare(catalog.load(), document.flags, self._demo))
        return self._found

    @property
    def demo(self) -> str:
        """Return the release that was named or found; by default the newest complete one."""
        if self._demo is not None:
            return self._demo
        try:
            return self.found().demo
        except FlagError:
            return catalog.DEFAULT_DEMO


def reader(access: FlagAddress, *, timeout_s: float = READ_TIMEOUT_S) -> Read:
    """Return a function that reads the document of *access* from any thread, in an event loop or not."""
    return lambda: _read_in_thread(access, timeout_s)


def _read_in_thread(access: FlagAddress, timeout_s: float) -> FlagDocument:
    answer: list[FlagDocument] = []
    errors: list[Exception] = []

    def run() -> None:
        try:
            answer.append(asyncio.run(_read(access, timeout_s)))
        except Exception as error:
            errors.append(error)

    thread = start_thread(run, "otel-diag flags")
    thread.join(timeout_s + 1.0)  # the read limits itself; a surface that blocks its loop is abandoned
    if answer:
        return answer[0]
    error = errors[0] if errors else TimeoutError()
    if isinstance(error, OtelDiagError):
        raise error
    if isinstance(error, TimeoutError):
        raise FlagError(
            f"the flags at {access.control} did not answer within {timeout_s:g} s; check that the service "
            "runs, or name another place with --otel-diag-flags"
        )
    raise FlagError(f"the flags at {access.control} cannot be read: {type(error).__name__}: {error}")


async def _read(access: FlagAddress, timeout_s: float) -> FlagDocument:
    from pytest_otel_diag.flags.access import open_flags  # noqa: PLC0415 - imported on use

    flags = open_flags(access, now=time.time_ns)
    try:
        async with asyncio.timeout(timeout_s):
            return await flags.document()
    finally:
        await flags.aclose()
