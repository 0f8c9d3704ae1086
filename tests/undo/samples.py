"""Entries, owners and documents for tests of the undo."""

from __future__ import annotations

import json
from typing import Any

from pytest_otel_diag.flags.surface import FlagAccess
from pytest_otel_diag.undo.journal import Answer, Change, Entry
from pytest_otel_diag.undo.owner import Owner
from pytest_otel_diag.undo.processes import Process

OFF_ON = {"off": False, "on": True}


def document(**default: str) -> bytes:
    """Return a document of flags that are off or on, in a layout that a rewrite by JSON would not keep."""
    flags: dict[str, Any] = {
        key: {"state": "ENABLED", "variants": OFF_ON, "defaultVariant": variant}
        for key, variant in default.items()
    }
    return json.dumps({"flags": flags}, indent=3).replace('": ', '" :  ').encode() + b"\n\n"


def owner(pid: int = 4_194_000, **process: str) -> Owner:
    """Return an owner: a process of this machine that does not run, unless told otherwise."""
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
        access=FlagAccess(control="file:/flags/demo.json", served="ofrep:http://127.0.0.1:1"),
        owner=owner(),
        started_ns=1,
        deadline_ns=2,
        previous=document(a="off"),
        changes=(Change(key="a", variants=("on",), before=(Answer(variant="off"),)),),
    )
    return found.model_copy(update=update)
