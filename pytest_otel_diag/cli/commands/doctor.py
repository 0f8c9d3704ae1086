"""``otel-diag doctor``: what would not work here, and how to fix it."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator

import typer

from pytest_otel_diag.cli.options import takes_settings
from pytest_otel_diag.cli.spelling import as_typed
from pytest_otel_diag.config.settings import Settings
from pytest_otel_diag.operations.checks import CheckResult, CheckState
from pytest_otel_diag.operations.installation_checks import installation_checks

_SHOWN: dict[CheckState, str] = {"ok": "ok", "absent": "-", "warning": "warn", "failed": "FAIL"}


@takes_settings(
    "target", "analyzer", "store", "cache", "frontend", "flags", "flagd", "otlp_receiver", "drive", "state"
)
def command(settings: Settings) -> None:
    """Check this installation, the store and the target; exit code 1 when something would not work.

    Nothing is written to a live system.
    """
    raise typer.Exit(asyncio.run(_run(settings)))


async def _run(settings: Settings) -> int:
    failed = False
    async for check in _checks(settings):  # printed one by one, so that a user sees what is being waited for
        typer.echo(f"{_SHOWN[check.state]:<6}{check.name:<12}{as_typed(check.detail)}")
        failed = failed or check.state == "failed"
    return int(failed)


async def _checks(settings: Settings) -> AsyncIterator[CheckResult]:
    for check in installation_checks(settings):
        yield check
    kind, _, rest = settings.target.partition(":")
    if kind == "live":
        from pytest_otel_diag.operations.live_checks import live_checks  # noqa: PLC0415 - heavy, rarely needed

        async for check in live_checks(rest, settings):
            yield check
