"""The ``otel_flags`` and ``otel_telemetry`` fixtures: a test's own hands on flags and telemetry."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import AsyncExitStack
from typing import Any

import pytest

from pytest_otel_diag.errors import ScenarioError
from pytest_otel_diag.model.base import Nanos
from pytest_otel_diag.model.flags import FlagChange, FlagDocument, FlagValue, ServedFlag
from pytest_otel_diag.model.scenario import Expectation, Scenario
from pytest_otel_diag.model.telemetry import QueryLimits, Table
from pytest_otel_diag.model.windows import NANOS_PER_SECOND
from pytest_otel_diag.plugin import scenarios
from pytest_otel_diag.plugin.diagnose import NO_SCENARIO
from pytest_otel_diag.plugin.loop_thread import Pending
from pytest_otel_diag.plugin.runtime import runtime_of
from pytest_otel_diag.plugin.stash import HELD, KEPT, SESSIONS
from pytest_otel_diag.ports import TargetSession


class OpenTarget:
    """The test's own session with the target, opened by the first use and closed after the test.

    Every call returns something to ``await``, or to call ``.result()`` on in a sync test.
    """

    def __init__(self, item: pytest.Item) -> None:
        self._item = item
        self._runtime = runtime_of(item.config)
        self._stack = AsyncExitStack()
        self._session: TargetSession | None = None
        self._before: FlagDocument | None = None

    async def session(self) -> TargetSession:
        """Return the open session, its clock at the end of the test's last diagnosis if there is one.

        On a simulated system that is the diagnosis' own session, after undo and recovery.
        """
        kept = self._item.stash.get(KEPT, None)
        if kept is not None and kept.last is not None:
            return kept.last
        if self._session is None:
            scenario, _ = scenarios.of_item(self._item, self._runtime.target)
            if scenario is None:
                scenario = Scenario(id=self._item.nodeid, expectation=Expectation(healthy=True))
                if self._runtime.target.validate(scenario):
                    raise ScenarioError(
                        f"target {self._runtime.target.name} opens for a scenario: {NO_SCENARIO}"
                    )
            scenario = self._runtime.prepared(scenario, test_id=self._item.nodeid)
            opened = self._runtime.target.open(scenario, f"access-{abs(hash(self._item.nodeid)):x}")
            self._session = await self._stack.enter_async_context(opened)
            self._item.stash[HELD] = self._runtime.target.exclusive
        await self._catch_up(self._session)
        return self._session

    async def document(self) -> TargetSession:
        """Return the open session with its flags noted for the restore after the test."""
        session = await self.session()
        if self._before is None:
            self._before = await session.flags.document()
            self._stack.push_async_callback(session.flags.restore, self._before)
        return session

    def close(self) -> None:
        """Restore the flags and close the session."""
        self._runtime.background.run(self._stack.aclose())

    def pending(self, coroutine: Any) -> Pending[Any]:
        """Run the coroutine in the background."""
        return self._runtime.background.submit(coroutine)

    async def _catch_up(self, session: TargetSession) -> None:
        windows = [result.windows.incident for result in self._item.stash.get(SESSIONS, [])]
        ends = [window.end_ns for window in windows if window is not None]
        if ends and session.clock.now() < max(ends):
            await session.clock.sleep((max(ends) - session.clock.now()) / NANOS_PER_SECOND)


class FlagAccess:
    """Flags of the target for one test; whatever the test sets is undone after it."""

    def __init__(self, opened: OpenTarget) -> None:
        self._opened = opened

    def set(self, key: str, variant: str) -> Pending[None]:
        """Set a flag to a variant; raises FlagError for unknown names."""
        return self._opened.pending(self._set(key, variant))

    def served(self, key: str, context: Mapping[str, FlagValue] | None = None) -> Pending[ServedFlag]:
        """Return what the flag answers when it is evaluated now."""
        return self._opened.pending(self._served(key, context or {}))

    def document(self) -> Pending[FlagDocument]:
        """Return all flags."""
        return self._opened.pending(self._document())

    async def _set(self, key: str, variant: str) -> None:
        session = await self._opened.document()
        await session.flags.apply(FlagChange(key=key, variant=variant))

    async def _served(self, key: str, context: Mapping[str, FlagValue]) -> ServedFlag:
        return await (await self._opened.session()).flags.served(key, context)

    async def _document(self) -> FlagDocument:
        return await (await self._opened.session()).flags.document()


class TelemetryAccess:
    """Telemetry of the target for one test: what had happened by the end of its last diagnosis."""

    def __init__(self, opened: OpenTarget) -> None:
        self._opened = opened

    def query(
        self, sql: str, parameters: Mapping[str, Any] | None = None, limits: QueryLimits | None = None
    ) -> Pending[Table]:
        """Run one SELECT, as an analyzer could."""
        return self._opened.pending(self._query(sql, parameters, limits))

    def now(self) -> Pending[Nanos]:
        """Return the instant up to which telemetry is visible."""
        return self._opened.pending(self._now())

    def advance(self, seconds: float) -> Pending[None]:
        """Let time pass on the target's clock."""
        return self._opened.pending(self._advance(seconds))

    async def _query(
        self, sql: str, parameters: Mapping[str, Any] | None, limits: QueryLimits | None
    ) -> Table:
        return await (await self._opened.session()).telemetry.query(sql, parameters, limits)

    async def _now(self) -> Nanos:
        return (await self._opened.session()).clock.now()

    async def _advance(self, seconds: float) -> None:
        await (await self._opened.session()).clock.sleep(seconds)
