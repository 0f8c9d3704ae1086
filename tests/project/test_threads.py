"""Threads of this package do not lead to their work: an analyzer under test can list them."""

from __future__ import annotations

import ast
import threading
from pathlib import Path

import pytest_otel_diag
from pytest_otel_diag.daemon import start_thread

_SOURCE = Path(pytest_otel_diag.__file__).parent
_ALONE = {"daemon.py", "shop/realtime/export.py", "shop/realtime/flagd.py"}
"""The module that starts threads, and those of the shop in real time, which is a process of its own."""


def test_only_one_module_starts_threads_in_processes_that_run_analyzers():
    found = {
        path.relative_to(_SOURCE).as_posix()
        for path in _SOURCE.rglob("*.py")
        if "suites" not in path.parts
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8")))
        if isinstance(node, ast.Call) and ast.unparse(node.func) == "threading.Thread"
    }
    assert found == _ALONE


def test_a_running_thread_does_not_hold_its_work():
    begun, done, secret = threading.Event(), threading.Event(), object()
    seen = []

    def work(value=secret):
        begun.set()
        done.wait(10)
        seen.append(value)

    thread = start_thread(work, "a name")
    begun.wait(10)
    assert thread.daemon and thread.name == "a name"
    assert thread._args == ([],) and not hasattr(thread._target, "__self__")
    done.set()
    thread.join(10)
    assert seen == [secret]
