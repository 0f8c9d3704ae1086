"""Typed keys under which the plugin keeps its state on pytest's objects."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from collections.abc import Callable

    from pytest_otel_diag.config.settings import Settings
    from pytest_otel_diag.model.events import SessionEvent
    from pytest_otel_diag.model.session import SessionResult
    from pytest_otel_diag.plugin.retained_target import KeepingTarget
    from pytest_otel_diag.plugin.runtime import Runtime
    from pytest_otel_diag.plugin.xdist import WorkerSpool

SETTINGS: pytest.StashKey[Settings] = pytest.StashKey()
"""On the config: settings, resolved once."""

RUNTIME: pytest.StashKey[Runtime] = pytest.StashKey()
"""On the config: target, analyzers and the thread that runs sessions; made by the first use."""

EMIT: pytest.StashKey[Callable[[SessionEvent], None]] = pytest.StashKey()
"""On the config: reads the events of sessions, where progress is shown."""

MISTAKES: pytest.StashKey[str] = pytest.StashKey()
"""On an item of an xdist worker: what is wrong with its markers; it fails instead of running."""

KEPT: pytest.StashKey[KeepingTarget] = pytest.StashKey()
"""On an item: the target with its sessions still open, where the test wants to look at them."""

HELD: pytest.StashKey[bool] = pytest.StashKey()
"""On an item: it holds a target that takes one session at a time, to look at it or to set flags."""

SPOOL: pytest.StashKey[WorkerSpool] = pytest.StashKey()
"""On the config of an xdist worker: where ended sessions are kept until the controller has them."""

SESSIONS: pytest.StashKey[list[SessionResult]] = pytest.StashKey()
"""On an item: its sessions that ended, in order."""
