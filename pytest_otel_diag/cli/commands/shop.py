"""``otel-diag shop``: runs the simulated shop in real time."""

from __future__ import annotations

import secrets
from pathlib import Path
from typing import Annotated

import typer

from pytest_otel_diag.cli.options import takes_options
from pytest_otel_diag.config.declaration import duration
from pytest_otel_diag.config.options import resolve
from pytest_otel_diag.config.shop_options import SHOP_OPTIONS, RealTimeShopOptions
from pytest_otel_diag.errors import ConfigurationError
from pytest_otel_diag.extras import require

_SEEDS = 1_000_000

shop = typer.Typer(help="The simulated shop in real time, for your own collector.", no_args_is_help=True)


def _duration_s(text: str | None) -> float | None:
    try:
        return None if text is None else duration(text)
    except ValueError as error:
        raise ConfigurationError(f"--duration={text!r}: {error}") from None


@shop.command()
@takes_options(
    SHOP_OPTIONS, "options", lambda given: RealTimeShopOptions.of(resolve(given, {}, only=SHOP_OPTIONS))
)
def run(  # noqa: PLR0913 - parameters of a command are its options
    *,
    options: RealTimeShopOptions,
    flags: Annotated[
        Path | None, typer.Option(help="Obey this flagd document instead; it is read again when it changes.")
    ] = None,
    demo: Annotated[str, typer.Option(help="Release of the demo to simulate.")] = "3.0",
    users: Annotated[int, typer.Option(min=1, max=500, help="Virtual users.")] = 5,
    browser_users: Annotated[int, typer.Option(min=0, max=50, help="Virtual users with a browser.")] = 1,
    seed: Annotated[
        int | None,
        typer.Option(min=0, help="Seed of everything random, trace ids too; by default a new one each run."),
    ] = None,
    jitter: Annotated[bool, typer.Option(help="Let the seed vary the topology too.")] = False,
    length: Annotated[
        str | None,
        typer.Option("--duration", help="How long the shop runs, as 90s, 5m, 1h30m; by default endless."),
    ] = None,
    speed: Annotated[float, typer.Option(help="Seconds of the shop in one real second.")] = 1.0,
    every: Annotated[float, typer.Option(min=0.1, help="Seconds between two status lines.")] = 5.0,
) -> None:
    """Run the shop on the wall clock and send its telemetry as OTLP; Ctrl-C ends it with everything sent.

    Exit codes: 0 everything was sent, 1 some records were dropped, 2 the options are wrong.
    """
    require("simpy", "live", "the simulated shop in real time")
    from pytest_otel_diag.cli import real_time_shop  # noqa: PLC0415 - imports the simulation, only when it runs

    order = real_time_shop.Order(
        endpoint=real_time_shop.endpoint(options),
        variation=real_time_shop.Variation(
            demo, users, browser_users, secrets.randbelow(_SEEDS) if seed is None else seed, jitter
        ),
        flagd="" if flags else options.flagd_address,
        flag_file=flags,
        duration_s=_duration_s(length),
        speed=speed,
        every_s=every,
    )
    raise typer.Exit(real_time_shop.run(order, typer.echo))


@shop.command("flags")
def flags_(
    demo: Annotated[str, typer.Option(help="Release of the demo.")] = "3.0",
) -> None:
    """Print the flagd document of a release, every flag at its default: a file for ``run --flags``."""
    from pytest_otel_diag import catalog  # noqa: PLC0415 - reads and checks a long file

    typer.echo(catalog.demo_document(demo).decode(), nl=False)
