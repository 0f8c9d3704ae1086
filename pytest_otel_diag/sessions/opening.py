"""Opens the target for one session and closes it, whatever happened in between."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from contextlib import AbstractAsyncContextManager, AsyncExitStack
from types import TracebackType

from pytest_otel_diag.errors import RestoreFailed
from pytest_otel_diag.ports import Target, TargetSession, waiting
from pytest_otel_diag.sessions.ending import describe
from pytest_otel_diag.sessions.log import SessionLog
from pytest_otel_diag.sessions.settings import RECOVERY_COMMAND


async def open_target(
    target: Target,
    log: SessionLog,
    stack: AsyncExitStack,
    *,
    waits: Callable[[str], None],
    close_timeout_s: float,
) -> TargetSession:
    """Return the open target; *stack* closes it, within *close_timeout_s* wall seconds.

    *waits* gets the reason while the target waits to be opened, and '' once it no longer does. Raises what
    the target raises.
    """
    opened = target.open(log.plan.scenario, log.plan.session_id)
    listening = waiting.set(waits)
    try:
        system = await opened.__aenter__()
    except RestoreFailed as error:  # the fault of a killed run is still on and could not be turned off
        log.restore_failed(error, RECOVERY_COMMAND)
        raise
    finally:
        waiting.reset(listening)
        waits("")
    stack.push_async_exit(_Closing(opened, log, close_timeout_s, command_of(system)))
    log.attach(system)
    return system


def command_of(system: TargetSession) -> str:
    """Return the command that turns off a fault which an undo left on."""
    return system.recovery_command or RECOVERY_COMMAND


class _Closing:
    """Closes the target; an error there is recorded, since the session itself is over."""

    def __init__(
        self,
        opened: AbstractAsyncContextManager[TargetSession],
        log: SessionLog,
        timeout_s: float,
        recovery_command: str,
    ) -> None:
        self._opened = opened
        self._log = log
        self._timeout_s = timeout_s
        self._recovery_command = recovery_command

    async def __call__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> bool:
        """Close; never hide what ended the session."""
        try:
            async with asyncio.timeout(self._timeout_s):
                await self._opened.__aexit__(kind, error, trace)
        except RestoreFailed as problem:
            self._log.restore_failed(problem, self._recovery_command)
        except Exception as problem:
            self._log.remark(f"closing the target failed: {describe(problem)}")
        return False
