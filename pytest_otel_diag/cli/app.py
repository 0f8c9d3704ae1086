"""The ``otel-diag`` command, put together from the modules beside this one."""

from __future__ import annotations

from typing import Annotated

import typer

from pytest_otel_diag import __version__
from pytest_otel_diag.cli.commands import catalog as catalog_command
from pytest_otel_diag.cli.commands import doctor as doctor_command
from pytest_otel_diag.cli.commands import flags as flags_command
from pytest_otel_diag.cli.commands import heal as heal_command
from pytest_otel_diag.cli.commands import init as init_command
from pytest_otel_diag.cli.commands import investigate as investigate_command
from pytest_otel_diag.cli.commands import mcp_bridge as mcp_bridge_command
from pytest_otel_diag.cli.commands import receive as receive_command
from pytest_otel_diag.cli.commands import record as record_command
from pytest_otel_diag.cli.commands import recordings as recordings_command
from pytest_otel_diag.cli.commands import report as report_command
from pytest_otel_diag.cli.commands import run as run_command
from pytest_otel_diag.cli.commands import scenarios as scenarios_command
from pytest_otel_diag.cli.commands import self_test as self_test_command
from pytest_otel_diag.cli.commands import serve as serve_command
from pytest_otel_diag.cli.commands import shop as shop_command
from pytest_otel_diag.cli.commands import sql as sql_command
from pytest_otel_diag.cli.options import RUN_SETTINGS, Wanted, takes_settings
from pytest_otel_diag.config.settings import Settings

app = typer.Typer(
    help="Put a diagnosis of OpenTelemetry systems under test.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
)
app.add_typer(recordings_command.app, name="recordings")
app.add_typer(catalog_command.app, name="catalog")
app.add_typer(shop_command.shop, name="shop")
app.add_typer(scenarios_command.app, name="scenarios")
app.add_typer(flags_command.app, name="flags")
app.command("init")(init_command.command)
app.command("mcp-bridge")(mcp_bridge_command.command)
app.command("receive")(receive_command.command)
app.command("record")(record_command.command)
app.command("report")(report_command.command)
app.command("investigate")(investigate_command.command)
app.command("serve")(serve_command.command)
app.command("doctor")(doctor_command.command)
app.command("sql")(sql_command.command)
app.command("self-test")(self_test_command.command)
app.command("heal")(heal_command.heal_command)
app.command("emergency-stop")(heal_command.emergency_stop_command)


def _print_version(wanted: bool) -> None:
    if wanted:
        typer.echo(f"otel-diag {__version__}")
        raise typer.Exit


@app.callback()
def _options(
    version: Annotated[
        bool,
        typer.Option("--version", help="Print the version and exit.", callback=_print_version, is_eager=True),
    ] = False,
) -> None:
    """Options of the command itself."""


@app.command()
@takes_settings(*RUN_SETTINGS)
def run(
    settings: Settings,
    scenario: Wanted = None,
    controls: Annotated[bool, typer.Option(help="Run the controls too.")] = True,
) -> None:
    """Diagnose every scenario of a target without pytest, and judge the run by the gate.

    Exit codes: 0 pass, 11 gate failed, 12 infrastructure, 13 inconclusive.
    """
    raise typer.Exit(run_command.run(settings, tuple(scenario or ()), controls, typer.echo))
