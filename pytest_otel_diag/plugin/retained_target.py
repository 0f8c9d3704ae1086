"""Keeps the sessions of a target open until the test ends, so that the test can look at the system."""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import AbstractAsyncContextManager, AsyncExitStack, asynccontextmanager

from pytest_otel_diag.model.scenario import Fault, Scenario
from pytest_otel_diag.ports import Target, TargetSession


class RetainedTarget:
    """Delegates to *target*, but leaves closing its sessions to :meth:`release`.

    A simulated system is gone once its session is closed; a second one, opened for the test to look at,
    would never have seen the fault. An exclusive target has one session at a time, so opening the next one
    closes the one before.
    """

    def __init__(self, target: Target) -> None:
        self._target = target
        self._stack = AsyncExitStack()
        self.name = target.name
        self.exclusive = target.exclusive
        self.seeded = target.seeded
        self.last: TargetSession | None = None

    @property
    def identity(self) -> object:
        """The identity of the target that is delegated to."""
        return self._target.identity

    def describe(self) -> Mapping[str, str]:
        """Return what the target reports about itself."""
        return self._target.describe()

    def scenarios(self) -> Sequence[Scenario]:
        """Return the scenarios of the target."""
        return self._target.scenarios()

    def scenario_for(self, faults: Sequence[Fault]) -> Scenario | None:
        """Return what the target knows about the faults."""
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
            await self.release()  # or the next session would wait for the retained one
        session = await self._stack.enter_async_context(self._target.open(scenario, session_id))
        self.last = session
        yield session

    def close(self) -> None:
        """Do nothing: the target belongs to the run, which closes it."""

    async def release(self) -> None:
        """Close every session that was opened."""
        self.last = None
        await self._stack.aclose()
