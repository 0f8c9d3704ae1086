"""Telemetry whose queries wait until they are cancelled."""

from __future__ import annotations

import asyncio
import threading


class Hanging:
    """``begun`` and ``cancelled`` say how far a query has come; the rest is that of the inner telemetry."""

    def __init__(self, telemetry) -> None:
        self._inner = telemetry
        self.begun = threading.Event()
        self.cancelled = threading.Event()

    def __getattr__(self, name):
        return getattr(self._inner, name)

    async def query(self, sql, parameters=None, limits=None):
        self.begun.set()
        try:
            await asyncio.Event().wait()
        except asyncio.CancelledError:
            self.cancelled.set()
            raise
