"""An analyzer that runs in a process of its own, as a client of the gateway."""

from __future__ import annotations

import asyncio
import json
import os
import sys
from collections.abc import Mapping
from dataclasses import fields
from typing import Any
from urllib.parse import urlsplit

from pytest_otel_diag.analyzers.agents.process import AgentProcess, Finished, Limits, Workplace, workplace
from pytest_otel_diag.config.settings import Settings
from pytest_otel_diag.daemon import start_daemon
from pytest_otel_diag.errors import AnalyzerError, ConfigurationError
from pytest_otel_diag.extras import require
from pytest_otel_diag.model.diagnosis import Diagnosis
from pytest_otel_diag.ports import Investigation
from pytest_otel_diag.runs.entry_points import shown
from pytest_otel_diag.runs.isolation import RESULT, START
from pytest_otel_diag.runs.manifest import AnalyzerIdentity
from pytest_otel_diag.sessions.ending import AnalyzerCrashed
from pytest_otel_diag.sessions.investigation.closed_line import Ended
from pytest_otel_diag.sessions.investigation.crash import TRACE_CHARS
from pytest_otel_diag.sessions.investigation.endings import diagnosis_of

_MOST_RESULT_BYTES = 50_000_000
_GRACE_S = 0.5
"""Between SIGTERM and SIGKILL; less than a session waits for an analyzer that it has cancelled."""


class IsolatedAnalyzer:
    """Runs the analyzer that *spec* names, Python code, in a process that nothing of this one reaches.

    The analyzer is not imported here: a process of its own is asked for ``identity`` at once, so that a wrong
    *spec* raises ConfigurationError before a fault is injected.
    """

    def __init__(self, spec: str, settings: Settings) -> None:
        self._spec = spec
        self._passed = tuple(name for name in settings.agent_env.split(",") if name)
        self._limits = Limits(memory_bytes=settings.agent_memory_mb << 20, grace_s=_GRACE_S)
        self.identity: AnalyzerIdentity = start_daemon(
            lambda: asyncio.run(self._identified()), "otel-diag isolated analyzer"
        ).result()

    async def diagnose(self, investigation: Investigation) -> Diagnosis:
        """Let the analyzer diagnose in a new process; raises what it raised."""
        gateway = require("pytest_otel_diag.gateway", "agents", "--otel-diag-isolate").shared_gateway()
        with workplace(self._passed) as place, gateway.access(investigation) as access:
            job = {"port": urlsplit(access.url).port, "token": access.token.reveal()}
            finished = await self._run(place, job)
            for stream, text in (("stdout", finished.stdout), ("stderr", finished.stderr)):
                if text:
                    await investigation.transcript.add("output", {"stream": stream, "text": text})
            return diagnosis_of(_ended(_result(place, finished)))

    def describe(self) -> Mapping[str, str]:
        """Return what the analyzer reports about itself."""
        return self.identity.details

    async def close(self) -> None:
        """Do nothing: each process closes its analyzer."""

    async def _identified(self) -> AnalyzerIdentity:
        with workplace(self._passed) as place:
            finished = await self._run(place, {"id": shown(self._spec)})
            try:
                answer = _result(place, finished)
            except AnalyzerCrashed as crash:
                text = f"analyzer {shown(self._spec)!r} cannot be opened: {crash}; {crash.trace}"
                raise ConfigurationError(text) from None
        if "error" in answer:
            raise ConfigurationError(str(answer["error"]))
        identity = AnalyzerIdentity.model_validate(answer["identity"])
        return identity.model_copy(update={"details": {**identity.details, "isolated": "on"}})

    async def _run(self, place: Workplace, job: Mapping[str, Any]) -> Finished:
        words = [sys.executable, "-I", "-c", START]
        text = json.dumps({"spec": self._spec, "path": _search_path(), **job})
        return await AgentProcess(words, place, limits=self._limits).run(text.encode())


def _search_path() -> list[str]:
    """Return where modules are searched, as the process with another working directory needs it."""
    return [os.path.abspath(entry) for entry in sys.path]  # noqa: PTH100 - '' is the working directory


def _result(place: Workplace, finished: Finished) -> Mapping[str, Any]:
    """Return the result that the process wrote; raises AnalyzerCrashed and AnalyzerError."""
    written = place.read(RESULT, _MOST_RESULT_BYTES)
    if written is None:
        how = f"exit code {finished.exit_code}"
        if finished.exit_code > 128:
            how = f"signal {finished.exit_code - 128}"
        text = f"the process of the analyzer ended with {how} and without an answer"
        raise AnalyzerCrashed(text, finished.stderr[-TRACE_CHARS:])
    try:
        result = json.loads(written)
    except ValueError:
        result = None
    if not isinstance(result, dict):
        raise AnalyzerError("the process of the analyzer wrote a result that cannot be read")
    return result


def _ended(result: Mapping[str, Any]) -> Ended:
    known = {field.name: str(result.get(field.name, "")) for field in fields(Ended)}
    return Ended(**known)
