"""A target whose sessions stay open until the test ends, so that the test can look at what happened."""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import AbstractAsyncContextManager, AsyncExitStack, asynccontextmanager

from pytest_otel_diag.model.scenario import Fault, Scenario
from pytest_otel_diag.ports import Target, TargetSession


class KeepingTarget:
    """Does what *target* does, but leaves closing its sessions to :meth:`close`.

    An exclusive target holds one session, so there opening the next one closes the one before.

    A simulated system is gone with its session; a second one, opened for the test to look at, would be
    another system that never saw the fault.
    """

    def __init__(self, target: Target) -> None:
        self._target = self.wrapped = target
        self._stack = AsyncExitStack()
        self.name = target.name
        self.exclusive = target.exclusive
        self.seeded = target.seeded
        self.last: TargetSession | None = None

    def describe(self) -> Mapping[str, str]:
        """Return what the target says of itself."""
        return self._target.describe()

    def scenarios(self) -> Sequence[Scenario]:
        """Return the scenarios of the target."""
        return self._target.scenarios()

    def scenario_for(self, faults: Sequence[Fault]) -> Scenario | None:
        """Return what the target knows of the faults."""
        return self._target.scenario_for(faults)

    def validate(self, scenario: Scenario) -> Sequence[str]:
        """Return the mistakes that the target finds."""
        return self._target.validate(scenario)

    def open(self, scenario: Scenario, session_id: str) -> AbstractAsyncContextManager[TargetSession]:
        """Open the target; leaving the context closes nothing."""
        return self._open(scenario, session_id)

    @asynccontextmanager
    async def _open(self, scenario: Scenario, session_id: str) -> AsyncIterator[TargetSession]:
        if self.exclusive:
            await self.close()  # or the next session would wait for the one that is kept
        session = await self._stack.enter_async_context(self._target.open(scenario, session_id))
        self.last = session
        yield session

    async def close(self) -> None:
        """Close every session that was opened."""
        self.last = None
        await self._stack.aclose()
