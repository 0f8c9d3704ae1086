"""The only door to litellm: its import, in a thread and an event loop of its own, and its tables of models.

litellm keeps connections for each event loop and never closes those of loops that have ended. Sessions come
and go with a loop each, so all calls of the process run on one loop that stays.
"""

from __future__ import annotations

import asyncio
import logging
import threading
from collections.abc import Coroutine
from importlib import metadata
from typing import Any, TypeVar

from packaging.version import InvalidVersion, Version

from pytest_otel_diag.config.provider_keys import hide_provider_keys, keep_litellm_offline
from pytest_otel_diag.daemon import start_thread
from pytest_otel_diag.errors import ConfigurationError
from pytest_otel_diag.extras import install, require

T = TypeVar("T")

_FIRST_SOUND = Version("1.83.7")
_STOLEN = {Version("1.82.7"), Version("1.82.8")}


def installed_version() -> str:
    """Return the version of litellm without importing it.

    Raises ConfigurationError where it is missing, or is a version that must not be imported: two releases
    were published with a stolen token and send credentials away when they are imported.
    """
    try:
        text = metadata.version("litellm")
        version = Version(text)
    except (metadata.PackageNotFoundError, InvalidVersion) as error:
        raise ConfigurationError(f"llm: needs litellm ({error}); run: {install('llm')}") from error
    if version in _STOLEN:
        raise ConfigurationError(
            f"litellm {text} is a compromised release that steals credentials when it is imported "
            "(BerriAI/litellm #24512): uninstall it, look for a litellm_init.pth in site-packages, replace "
            f"every key that this machine holds, then run: {install('llm')}"
        )
    if version < _FIRST_SOUND:
        raise ConfigurationError(
            f"litellm {text} has known security holes (CVE-2026-42208 and others); at least {_FIRST_SOUND} "
            f"is needed, run: {install('llm')}"
        )
    return text


class LitellmDoor:
    """Imports litellm with the first call, and runs every call on a loop of its own."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._module: Any = None
        self._loop: asyncio.AbstractEventLoop | None = None

    @property
    def loaded(self) -> bool:
        """Whether litellm has been imported, which takes seconds."""
        return self._module is not None

    def module(self) -> Any:
        """Return litellm; blocks while it is imported. Raises ConfigurationError where it cannot be."""
        with self._lock:
            if self._module is None:
                installed_version()
                hide_provider_keys()
                keep_litellm_offline()
                logging.getLogger("LiteLLM").setLevel(logging.CRITICAL)
                module = require("litellm", "llm", "llm:MODEL")
                module.suppress_debug_info = True  # otherwise it prints advertisements to the terminal
                self._module = module
            return self._module

    async def run(self, call: Coroutine[Any, Any, T]) -> T:
        """Await *call* on the loop of the door; cancelling the wait cancels it."""
        future = asyncio.run_coroutine_threadsafe(call, self._running())
        return await asyncio.wrap_future(future)

    def _running(self) -> asyncio.AbstractEventLoop:
        with self._lock:
            if self._loop is None:
                self._loop = asyncio.new_event_loop()
                start_thread(self._loop.run_forever, "otel-diag litellm")
            return self._loop


DOOR = LitellmDoor()
"""The door of this process."""
