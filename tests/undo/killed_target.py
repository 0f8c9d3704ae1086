"""The target ``killed`` of the kill matrix: flags in a file behind a real flagd, over a system in memory.

The system is the one of the sessions' tests; ``killed:shop`` takes the simulated shop and its embedded store.
The pytest processes of the matrix load the target through an entry point. The environment variable ``KILLED``
is its plan: JSON with ``document``, ``ofrep``, ``point`` (where to act), ``act`` (``wait``, or what to raise
there), ``deadline_s`` and ``folder`` (where test and session communicate by files).
"""

from __future__ import annotations

import asyncio
import json
import os
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

from pytest_otel_diag import catalog, ports
from pytest_otel_diag.flags.access import open_flags, open_reader
from pytest_otel_diag.flags.document import FlagdDocument
from pytest_otel_diag.flags.surface import FlagAddress
from pytest_otel_diag.flags.surfaces.file import FileSurface
from pytest_otel_diag.model.diagnosis import Diagnosis, RootCause
from pytest_otel_diag.model.questions import ServiceHealthOf
from pytest_otel_diag.targets.shop.options import ShopOptions
from pytest_otel_diag.targets.shop.target import ShopTarget
from pytest_otel_diag.undo.owner import Owner
from pytest_otel_diag.undo.session import GuardedFlags, guarded
from pytest_otel_diag.undo.settings import UndoSettings
from pytest_otel_diag.undo.verify import RestoreLimits
from tests.sessions.session_fakes import FakeTarget, scenario

PLAN: dict[str, Any] = json.loads(os.environ.get("KILLED", "{}"))
FOLDER = Path(PLAN.get("folder", "."))
POINTS = ("before the write", "before the witness", "impact wait", "analysis", "restore")

_DEMO = FlagdDocument(catalog.demo_document("3.0"))
_guarded: list[GuardedFlags] = []
_passed: list[str] = []


async def at(point: str) -> None:
    """Act once when this is the point of the plan: notify the test, then wait for it or raise."""
    if PLAN.get("point") != point or point in _passed:
        return
    _passed.append(point)
    reached = {"pid": os.getpid(), "guardian": _guarded[-1].guardian.pid if _guarded else None}
    beside = FOLDER / "reached.unfinished"
    beside.write_text(json.dumps(reached))
    beside.rename(FOLDER / "reached")
    if PLAN["act"] == "exception":
        raise RuntimeError(f"on purpose at: {point}")
    if PLAN["act"] == "assertion":
        raise AssertionError(f"on purpose at: {point}")
    until = time.monotonic() + 600
    while not (FOLDER / "go on").exists() and time.monotonic() < until:  # noqa: ASYNC110 - another process
        await asyncio.sleep(0.02)


class Surface(FileSurface):
    """The file, with points around its writes: the first injects the fault, the second undoes it."""

    writes = 0

    async def write(self, raw: bytes, *, expected: bytes) -> None:
        self.writes += 1
        await at("before the write" if self.writes == 1 else "restore")
        await super().write(raw, expected=expected)
        if self.writes == 1:
            await at("before the witness")


class Telemetry(ports.Telemetry):
    """The system's telemetry, with a point at the first question on services after the injection."""

    def __init__(self, inner: Any, flags: GuardedFlags) -> None:
        self._inner = inner
        self._flags = flags

    async def query(self, *arguments: Any) -> Any:
        return await self._inner.query(*arguments)

    async def schema(self) -> Any:
        return await self._inner.schema()

    async def ask(self, question: Any) -> Any:
        if isinstance(question, ServiceHealthOf) and self._flags.entry is not None:
            await at("impact wait")
        return await self._inner.ask(question)


class Flags:
    """The flags of the session; changes are copied to the system."""

    def __init__(self, real: GuardedFlags, system: Any) -> None:
        self._real = real
        self._system = system
        self.document, self.served = real.document, real.served

    async def apply(self, change: Any) -> None:
        await self._real.apply(change)
        await self._system.apply(change)

    async def restore(self, document: Any) -> None:
        await self._real.restore(document)
        await self._system.restore(document)


class InMemory(FakeTarget):
    """The system of the sessions' tests, for the one scenario of the matrix."""

    def scenario_for(self, faults: Any) -> Any:
        return scenario(*(f"{fault.flag}={fault.variant}" for fault in faults))

    @asynccontextmanager
    async def open(self, scenario: Any, session_id: str) -> AsyncIterator[Any]:
        async with super().open(scenario, session_id) as session:
            yield replace(
                session,
                flags=_InMemoryFlags(self.flags, self.original),
                normal={key: flag.default_variant for key, flag in _DEMO.flags.items()},
            )


class _InMemoryFlags:
    """Flags of the system in memory, which cannot read a document of flagd."""

    def __init__(self, inner: Any, original: bytes) -> None:
        self._original = original
        self._inner = inner
        self.apply = inner.apply

    async def restore(self, document: Any) -> None:
        await self._inner.restore(document.model_copy(update={"raw": self._original}))


class Target:
    """See the module."""

    name = "killed"
    exclusive = True

    def __init__(self, inner: Any, settings: Any) -> None:
        self._inner = inner
        self._settings = settings

    def __getattr__(self, name: str) -> Any:
        return getattr(self._inner, name)

    @classmethod
    def from_settings(cls, rest: str, *, settings: Any, worker: str) -> Target:
        if rest != "shop":
            return cls(InMemory(), settings)
        options = ShopOptions(users=2, browser_users=0, reference_s=30.0, settle_s=30.0)
        return cls(ShopTarget(options, cache_dir=settings.cache_dir()), settings)

    @asynccontextmanager
    async def open(self, scenario: Any, session_id: str) -> AsyncIterator[Any]:
        access = FlagAddress(control=f"file:{PLAN['document']}", served=f"ofrep:{PLAN['ofrep']}")
        real = open_flags(access, now=time.time_ns)
        real.surface = Surface(Path(PLAN["document"]))
        real.reader = open_reader(access.served.reveal())
        limits = RestoreLimits(write_timeout_s=2.0) if PLAN["act"] == "timeout" else RestoreLimits()
        undo = UndoSettings(
            lease_wait_s=self._settings.lease_wait_s,
            deadline_s=PLAN.get("deadline_s", 3600.0),
            limits=limits,
            keep=self._settings.skip_cleanup,
        )
        async with (
            self._inner.open(scenario, session_id) as session,
            guarded(
                real,
                owner=Owner.here(now_ns=time.time_ns(), run_id=PLAN.get("run", "")),
                state_dir=self._settings.state_dir(),
                settings=undo,
                notify=messages,
            ) as flags,
        ):
            _guarded.append(flags)
            await at("opened")
            yield replace(
                session,
                flags=Flags(flags, session.flags),
                telemetry=Telemetry(session.telemetry, flags),
            )
        await real.aclose()


def messages(text: str) -> None:
    with (FOLDER / "messages").open("a") as file:
        file.write(f"{text}\n")


async def analyzer(investigation: Any) -> Diagnosis:
    await at("analysis")
    return Diagnosis(detected=True, root_causes=(RootCause(service="payment", confidence=1.0),))
