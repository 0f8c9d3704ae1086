"""Holds the lease that an environment stores itself, which keeps out runs on other hosts."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress

from pytest_otel_diag.errors import FlagError, Occupied
from pytest_otel_diag.flags.surface import RemoteLease
from pytest_otel_diag.undo.lease import Notify, Waiting
from pytest_otel_diag.undo.owner import Owner, dead_here

DURATION_S = 60.0
"""How long a lease lasts unless it is renewed, which happens three times in that time."""

_POLL_S = 1.0
_RELEASE_S = 10.0


class Renewal:
    """A remote lease while it is held: ``lost`` names its new holder, empty while it is ours.

    With ``keep`` it is not released at the end but expires: the fault is still on.
    """

    lost = ""
    keep = False


@asynccontextmanager
async def hold_remote_lease(
    lease: RemoteLease | None, owner: Owner, *, wait_s: float, notify: Notify, seconds: float = DURATION_S
) -> AsyncIterator[Renewal]:
    """Hold the environment's own lease and renew it while the block runs; None holds nothing.

    Takes over the lease of a run of this machine that has ended. Raises Occupied after *wait_s* seconds.
    """
    renewal = Renewal()
    if lease is None:
        yield renewal
        return
    await _acquire(lease, owner.label, Waiting(wait_s, notify), notify=notify, seconds=seconds)
    task = asyncio.get_running_loop().create_task(_renew(lease, owner.label, seconds, renewal))
    try:
        yield renewal
    finally:
        task.cancel()
        await asyncio.wait([task])
        if not renewal.keep:
            await _release(lease, owner.label, seconds, notify)


async def release_left(lease: RemoteLease | None, owner: Owner) -> None:
    """Release the lease that a dead *owner* left; a failure is ignored, since the lease expires anyway."""
    if lease is None:
        return
    with suppress(FlagError, OSError, TimeoutError):
        async with asyncio.timeout(_RELEASE_S):
            await lease.release(owner.label)


async def _release(lease: RemoteLease, label: str, seconds: float, notify: Notify) -> None:
    try:
        async with asyncio.timeout(_RELEASE_S):
            await lease.release(label)
    except (FlagError, OSError, TimeoutError) as error:
        notify(f"the lease of {label} could not be released ({error}); it expires after {seconds:g} s")


async def _acquire(
    lease: RemoteLease, label: str, waiting: Waiting, *, notify: Notify, seconds: float
) -> None:
    try:
        while (other := await lease.acquire(label, seconds=seconds)) is not None:
            if dead_here(other):
                notify(f"taking over the lease of {other}, which has ended")
                await lease.release(other)
                if await lease.acquire(label, seconds=seconds) is None:
                    return
            if waiting.over:
                raise Occupied(
                    f"the environment is held by {other} on another host or in another container; waited "
                    f"{waiting.waited_s:.0f} s. Wait for that run, or raise --otel-diag-lease-wait-s"
                )
            await waiting.pause(f"the environment is held by {other}", _POLL_S)
    finally:
        waiting.end()


async def _renew(lease: RemoteLease, label: str, seconds: float, renewal: Renewal) -> None:
    loop = asyncio.get_running_loop()
    expires_s = loop.time() + seconds
    while True:
        await asyncio.sleep(seconds / 3)
        begun_s = loop.time()
        try:
            async with asyncio.timeout(seconds / 3):
                other = await lease.acquire(label, seconds=seconds)
        except (FlagError, OSError, TimeoutError):
            if loop.time() > expires_s:
                renewal.lost = "an unknown holder, since it could not be renewed in time"
            continue
        renewal.lost = other or ""
        if other is None:
            expires_s = begun_s + seconds
