"""Effects that outlive a fault's flag: restarts the service where possible, reports them otherwise."""

from __future__ import annotations

import asyncio
import shlex
from collections.abc import Iterator, Sequence
from contextlib import suppress

from pytest_otel_diag import catalog
from pytest_otel_diag.catalog.entries import Cleanup
from pytest_otel_diag.errors import ConfigurationError, ScenarioError
from pytest_otel_diag.model.scenario import Fault

PLACE = "{service}"
RESTART_TIMEOUT_S = 120.0
_TAIL = 300


class RestartCommand:
    """The user's command that restarts a service, run without a shell; *template* contains ``{service}``.

    Raises ConfigurationError for an invalid template.
    """

    def __init__(self, template: str, *, timeout_s: float = RESTART_TIMEOUT_S) -> None:
        try:
            self._words = shlex.split(template)
        except ValueError as error:
            raise ConfigurationError(
                f"--otel-diag-restart={template!r} cannot be split into words ({error}); quote it as in a "
                "shell"
            ) from None
        if not any(PLACE in word for word in self._words):
            raise ConfigurationError(
                f"--otel-diag-restart={template!r} does not name the service: write {PLACE} in place of its "
                "name, for example docker compose restart {service}"
            )
        self._timeout_s = timeout_s

    async def run(self, service: str) -> str:
        """Restart the service; return why that failed, empty on success."""
        words = [word.replace(PLACE, service) for word in self._words]
        try:
            process = await asyncio.create_subprocess_exec(
                *words,
                stdin=asyncio.subprocess.DEVNULL,
                stdout=asyncio.subprocess.PIPE,
                stderr=asyncio.subprocess.STDOUT,
            )
        except OSError as error:
            return f"{words[0]!r} cannot be started: {error.strerror or error}"
        try:
            async with asyncio.timeout(self._timeout_s):
                output, _ = await process.communicate()
        except TimeoutError:
            return f"{shlex.join(words)} took longer than {self._timeout_s:g} s"
        finally:
            if process.returncode is None:
                with suppress(ProcessLookupError):
                    process.kill()
                await process.wait()
        if process.returncode:
            tail = output.decode(errors="replace").strip()[-_TAIL:]
            return (
                f"{shlex.join(words)} failed with exit code {process.returncode}{': ' if tail else ''}{tail}"
            )
        return ""


class Residue:
    """Called with the faults of a session after a verified undo; returns sentences on residual effects."""

    def __init__(self, demo: str, command: RestartCommand | None) -> None:
        self._demo = demo
        self._command = command

    async def __call__(self, faults: Sequence[Fault]) -> tuple[str, ...]:
        """Restart each service that needs it once; never raises."""
        remaining: list[str] = []
        restarted: dict[str, str] = {}
        for fault, cleanup in self._left(faults):
            if cleanup.restart is None:
                remaining.append(f"{fault}: {cleanup.residue} {cleanup.reset}")
                continue
            service = catalog.service(cleanup.restart, self._demo)
            if self._command is None:
                remaining.append(
                    f"{fault}: {cleanup.residue} {cleanup.reset} Set --otel-diag-restart to restart "
                    f"{service} after such faults"
                )
                continue
            if service not in restarted:
                restarted[service] = await self._command.run(service)
            if restarted[service]:
                remaining.append(
                    f"{fault}: {cleanup.residue} {service} was not restarted: {restarted[service]}"
                )
        return tuple(remaining)

    def _left(self, faults: Sequence[Fault]) -> Iterator[tuple[Fault, Cleanup]]:
        for fault in faults:
            try:
                cleanup = catalog.flag(fault.flag).cleanup
            except ScenarioError:  # a custom flag of the user
                continue
            if cleanup is not None:
                yield fault, cleanup
