"""The witness: reads flags back as they are served, until the answers last or the time is over."""

from __future__ import annotations

import asyncio
import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from pytest_otel_diag.errors import FlagError
from pytest_otel_diag.model.flags import FlagValue
from pytest_otel_diag.model.scenario import Fault
from pytest_otel_diag.model.session import Witness
from pytest_otel_diag.ports import TargetSession
from pytest_otel_diag.sessions.ending import describe
from pytest_otel_diag.sessions.settings import EngineSettings

NO_ANSWER = "no answer: "
"""Prefix of the detail of a proof whose last read failed."""

Contexts = Mapping[str, Mapping[str, FlagValue]]
"""Flag → the evaluation context in which its service asks, beyond ``EngineSettings.flag_context``."""


def contexts_of(faults: Iterable[Fault]) -> Contexts:
    """Return the contexts in which the services ask for the flags of the faults."""
    return {fault.flag: dict(fault.context) for fault in faults if fault.context}


class FlagWitness:
    """Asks the target what flags answer, each in the context in which its service asks."""

    def __init__(
        self, system: TargetSession, settings: EngineSettings, contexts: Contexts | None = None
    ) -> None:
        self.system = system
        self.settings = settings
        self.contexts: Contexts = contexts or {}

    def context_of(self, key: str) -> dict[str, FlagValue]:
        """Return the evaluation context in which the flag is asked."""
        return {**self.settings.flag_context, **self.contexts.get(key, {})}

    async def variant(self, key: str, probe: Mapping[str, FlagValue] | None = None) -> str:
        """Return the variant that the flag answers now, in its own context or in that of *probe*.

        Raises FlagError.
        """
        context = self.context_of(key) if probe is None else {**self.settings.flag_context, **probe}
        return (await self.system.flags.served(key, context)).variant

    async def variants(self, keys: Iterable[str]) -> dict[str, str]:
        """Return the variant that each flag answers now; raises FlagError."""
        return {key: await self.variant(key) for key in keys}

    async def confirm(self, wanted: Mapping[str, str]) -> tuple[Witness, ...]:
        """Read flags until each answers its wanted variant ``witness_reads`` times in a row.

        ``at_ns`` of a proof is the first read of that row: from then on the variant was in force. A read that
        fails counts as another answer. Returns after about ``witness_timeout_s`` seconds of the target's
        clock, or as many wall seconds when reads hang.
        """
        settings, wall = self.settings, asyncio.get_running_loop().time
        deadline = wall() + settings.witness_timeout_s + settings.witness_reads * settings.witness_poll_s
        rounds = settings.witness_reads + math.ceil(settings.witness_timeout_s / settings.witness_poll_s)
        rows = {key: _Row(key, variant) for key, variant in wanted.items()}
        for turn in range(rounds):
            if turn:
                await self.system.clock.sleep(settings.witness_poll_s)
            for row in rows.values():
                if row.count < settings.witness_reads:
                    await self._read(row)
            if all(row.count >= settings.witness_reads for row in rows.values()) or wall() > deadline:
                break
        return tuple(self._proof(row) for row in rows.values())

    async def _read(self, row: _Row) -> None:
        row.reads += 1
        try:
            async with asyncio.timeout(self.settings.witness_timeout_s):
                answer = await self.variant(row.key)
        except (FlagError, OSError, TimeoutError) as error:
            row.count, row.last = 0, f"{NO_ANSWER}{describe(error)}"
            return
        row.last = f"last answer: {answer!r}"
        if answer != row.wanted:
            row.count = 0
            return
        row.count += 1
        if row.count == 1:
            row.first_ns = self.system.clock.now()

    def _proof(self, row: _Row) -> Witness:
        confirmed = row.count >= self.settings.witness_reads
        return Witness(
            flag=row.key,
            variant=row.wanted,
            reads=row.reads,
            confirmed=confirmed,
            at_ns=row.first_ns or self.system.clock.now(),
            detail="" if confirmed else row.last,
        )


@dataclass
class _Row:
    """Reads of one flag: ``count`` is how many of the latest in a row answered ``wanted``."""

    key: str
    wanted: str
    count: int = 0
    reads: int = 0
    first_ns: int = 0
    last: str = f"{NO_ANSWER}the flag was not read"
