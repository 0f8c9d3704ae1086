"""Entries, owners and documents for tests of the undo."""

from __future__ import annotations

import json
from typing import Any

from pytest_otel_diag.flags.comparison import same_json
from pytest_otel_diag.flags.document import FlagdDocument
from pytest_otel_diag.flags.surface import FlagAddress
from pytest_otel_diag.model.flags import ServedFlag
from pytest_otel_diag.undo.journal import Answer, Change, Entry
from pytest_otel_diag.undo.owner import Owner
from pytest_otel_diag.undo.processes import Process

OFF_ON = {"off": False, "on": True}


def document(**default: str) -> bytes:
    """Return a document of flags that are off or on, formatted as no JSON library would."""
    flags: dict[str, Any] = {
        key: {"state": "ENABLED", "variants": OFF_ON, "defaultVariant": variant}
        for key, variant in default.items()
    }
    return json.dumps({"flags": flags}, indent=3).replace('": ', '" :  ').encode() + b"\n\n"


class MemorySurface:
    """A surface that stores its document in memory."""

    name = identity = control = "memory"
    write_timeout_s = 1.0

    def __init__(self, raw: bytes = b"") -> None:
        self.raw = raw

    @property
    def flagd(self) -> FlagdDocument:
        """The document as flagd reads it."""
        return FlagdDocument(self.raw)

    async def describe(self) -> str:
        return self.name

    async def read(self) -> bytes:
        return self.raw

    async def write(self, raw: bytes, *, expected: bytes) -> None:
        assert self.raw == expected
        self.raw = raw

    async def overwrite(self, raw: bytes) -> None:
        self.raw = raw

    def same(self, one: bytes, other: bytes) -> bool:
        return same_json(one, other)

    def lease(self) -> None:
        return None

    def moved_from(self, identity: str) -> None:
        return None

    async def aclose(self) -> None:
        """Nothing is open."""


class MemoryReader:
    """Evaluates the document of a surface in memory."""

    name = address = "memory"

    def __init__(self, surface: MemorySurface) -> None:
        self.surface = surface

    async def served(self, key: str, context: Any) -> ServedFlag:
        variant, value = self.surface.flagd.answer(key, context)
        return ServedFlag(key=key, variant=variant, value=value, at_ns=1)

    async def served_all(self, context: Any) -> dict[str, ServedFlag]:
        return {key: await self.served(key, context) for key in self.surface.flagd.flags}

    async def aclose(self) -> None:
        """Nothing is open."""


def owner(pid: int = 4_194_000, **process: str) -> Owner:
    """Return an owner, by default a process of this machine that does not run."""
    me = Process.this()
    facts = {"host": me.host, "boot": me.boot, "namespace": me.namespace, "started": "1"} | process
    return Owner(
        process=Process(pid=pid, **facts),
        user="alice",
        command="pytest suites",
        since_ns=1_700_000_000 * 10**9,
    )


def entry(entry_id: str = "one", **update: Any) -> Entry:
    """Return an entry of a dead owner that set ``a`` on."""
    found = Entry(
        id=entry_id,
        identity="/flags/demo.json",
        access=FlagAddress(control="file:/flags/demo.json", served="ofrep:http://127.0.0.1:1"),
        owner=owner(),
        started_ns=1,
        deadline_ns=2,
        previous=document(a="off"),
        changes=(Change(key="a", variants=("on",), before=(Answer(variant="off"),)),),
    )
    return found.model_copy(update=update)
