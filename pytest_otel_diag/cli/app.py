"""Commands and their arguments; the work is done by the modules beside this one."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from pytest_otel_diag.cli import catalog as catalog_command
from pytest_otel_diag.cli import doctor as doctor_command
from pytest_otel_diag.cli import flags as flags_command
from pytest_otel_diag.cli import heal as heal_command
from pytest_otel_diag.cli import init as init_command
from pytest_otel_diag.cli import receive as receive_command
from pytest_otel_diag.cli import record as record_command
from pytest_otel_diag.cli import recordings as recordings_command
from pytest_otel_diag.cli import report as report_command
from pytest_otel_diag.cli import run as run_command
from pytest_otel_diag.cli import scenarios as scenarios_command
from pytest_otel_diag.cli import self_test as self_test_command
from pytest_otel_diag.cli import shop as shop_command
from pytest_otel_diag.config.declaration import Option
from pytest_otel_diag.config.options import OPTIONS as ALL_OPTIONS
from pytest_otel_diag.config.options import resolve
from pytest_otel_diag.config.settings import Settings

app = typer.Typer(
    help="Prove whether a diagnosis of OpenTelemetry systems works.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)
recordings = typer.Typer(
    help="Recorded incidents: import, validate, list, shift, merge.", no_args_is_help=True
)
app.add_typer(recordings, name="recordings")
app.add_typer(catalog_command.app, name="catalog")
app.add_typer(shop_command.shop, name="shop")
app.add_typer(scenarios_command.app, name="scenarios")
app.add_typer(flags_command.app, name="flags")
app.command("init")(init_command.command)
app.command("receive")(receive_command.command)
app.command("record")(record_command.command)
app.command("self-test")(self_test_command.command)
app.command("heal")(heal_command.heal_command)
app.command("emergency-stop")(heal_command.emergency_stop_command)

Target = Annotated[str | None, typer.Option(help="System under fault: shop, live or replay:PATH.")]
Analyzer = Annotated[str | None, typer.Option(help="Diagnosis under test: a name or module:attribute.")]
Store = Annotated[str | None, typer.Option(help="ClickHouse DSN; embedded chDB without one.")]
Cache = Annotated[Path | None, typer.Option(help="Folder of imported recordings and embedded stores.")]


def settings(**given: object) -> Settings:
    """Return settings from the command line, the environment and defaults."""
    named: dict[str, Option] = {option.name: option for option in ALL_OPTIONS}
    command_line = {named[name].ini: value for name, value in given.items() if value is not None}
    return Settings.of(resolve(command_line, {}))


@recordings.command("import")
def import_(
    source: Annotated[Path, typer.Argument(help="Folder with cases.json and Parquet files.")],
    destination: Annotated[Path, typer.Argument(help="New folder for the recording.")],
) -> None:
    """Bring recorded incidents from another layout into the recording format."""
    recordings_command.import_recording(source, destination, typer.echo)


@recordings.command()
def validate(path: Annotated[Path, typer.Argument(help="A recording.")]) -> None:
    """Check checksums, columns and values; exit code 1 when something is wrong."""
    raise typer.Exit(recordings_command.validate(path, typer.echo))


@recordings.command("list")
def list_(
    path: Annotated[Path, typer.Argument(help="A recording, or a folder of recordings.")],
    incidents: Annotated[bool, typer.Option("--incidents", help="Name every incident.")] = False,
    cache: Cache = None,
) -> None:
    """Show what recordings hold."""
    recordings_command.show(path, settings(cache=cache).cache_dir(), typer.echo, incidents=incidents)


@recordings.command()
def shift(
    source: Annotated[Path, typer.Argument(help="A recording, or a folder of recordings.")],
    destination: Annotated[Path, typer.Argument(help="New folder.")],
    to: Annotated[str | None, typer.Option(help="Instant to begin at, as 2026-01-31T08:00:00Z.")] = None,
    anonymise_time: Annotated[
        bool, typer.Option("--anonymise-time", help="Begin with the year 2000.")
    ] = False,
    redact: Annotated[bool, typer.Option("--redact", help="Leave out what tells which flag was on.")] = False,
) -> None:
    """Copy recordings, every instant moved by one constant each, with or without what tells the answer."""
    wanted = record_command.shift_of(to, anonymise_time)
    recordings_command.rewrite(source, destination, wanted, redact, typer.echo)


@recordings.command()
def merge(
    source: Annotated[Path, typer.Argument(help="Folder of captured sessions.")],
    destination: Annotated[Path, typer.Argument(help="New folder for the recording.")],
) -> None:
    """Put captured sessions into one recording; each replays as it did alone."""
    recordings_command.merge(source, destination, typer.echo)


@app.command()
def run(
    target: Target = None,
    analyzer: Analyzer = None,
    scenario: Annotated[
        list[str] | None, typer.Option(help="Only scenarios whose id contains this text (repeatable).")
    ] = None,
    controls: Annotated[bool, typer.Option(help="Run the controls too.")] = True,
    repeat: Annotated[int | None, typer.Option(help="Run every scenario this many times.")] = None,
    reports: Annotated[Path | None, typer.Option(help="Folder that gets one folder a run.")] = None,
    store: Store = None,
    cache: Cache = None,
) -> None:
    """Diagnose every scenario of a target without pytest, and judge the run.

    Exit codes: 0 pass, 11 gate failed, 12 infrastructure, 13 inconclusive.
    """
    chosen = settings(
        target=target, analyzer=analyzer, repeat=repeat, reports=reports, store=store, cache=cache
    )
    raise typer.Exit(run_command.run(chosen, tuple(scenario or ()), controls, typer.echo))


@app.command()
def report(
    run_directory: Annotated[Path, typer.Argument(help="Folder of a run, for example reports/<run-id>.")],
    output: Annotated[str, typer.Option("--format", help="text, markdown, json or html.")] = "text",
) -> None:
    """Show a run again, or write it as a page."""
    report_command.report(run_directory, output, typer.echo)


@app.command()
def doctor(
    target: Target = None,
    analyzer: Analyzer = None,
    store: Store = None,
    cache: Cache = None,
    frontend: Annotated[str | None, typer.Option(help="live: where the frontend-proxy answers.")] = None,
    flags: Annotated[str | None, typer.Option(help="live: where flags are written.")] = None,
    flagd: Annotated[str | None, typer.Option(help="live: where flags are evaluated.")] = None,
    otlp_receiver: Annotated[str | None, typer.Option(help="live: addresses that take OTLP.")] = None,
    drive: Annotated[bool | None, typer.Option(help="live: whether traffic will be driven.")] = None,
    state: Annotated[Path | None, typer.Option(help="Folder of the journal, one a machine.")] = None,
) -> None:
    """Check this installation, the store and the target; exit code 1 when something would not work.

    Nothing is written to a live system.
    """
    chosen = settings(
        target=target,
        analyzer=analyzer,
        store=store,
        cache=cache,
        frontend=frontend,
        flags=flags,
        flagd=flagd,
        otlp_receiver=otlp_receiver,
        drive=drive,
        state=state,
    )
    raise typer.Exit(doctor_command.doctor(chosen, typer.echo))
