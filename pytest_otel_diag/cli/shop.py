"""``otel-diag shop``: the simulated shop in real time. The work is done in :mod:`.shop_run`."""

from __future__ import annotations

import secrets
from pathlib import Path
from typing import Annotated

import typer

from pytest_otel_diag.config.declaration import duration
from pytest_otel_diag.config.options import resolve
from pytest_otel_diag.config.shop_options import SHOP_OPTIONS
from pytest_otel_diag.errors import ConfigurationError

_SEEDS = 1_000_000

shop = typer.Typer(help="The simulated shop in real time, for your own collector.", no_args_is_help=True)


def _duration_s(text: str | None) -> float | None:
    try:
        return None if text is None else duration(text)
    except ValueError as error:
        raise ConfigurationError(f"--duration={text!r}: {error}") from None


@shop.command()
def run(  # noqa: PLR0913 - parameters of a command are its options
    *,
    otlp: Annotated[str | None, typer.Option(help="Collector, for example http://localhost:4318.")] = None,
    protocol: Annotated[
        str | None, typer.Option("--protocol", "--otlp-protocol", help="http/protobuf or grpc.")
    ] = None,
    headers: Annotated[
        str | None, typer.Option("--headers", "--otlp-headers", help="key=value,key2=value2")
    ] = None,
    compression: Annotated[
        str | None, typer.Option("--compression", "--otlp-compression", help="none or gzip.")
    ] = None,
    timeout: Annotated[
        float | None, typer.Option("--timeout", "--otlp-timeout-s", help="Seconds for one request.")
    ] = None,
    flagd: Annotated[
        str | None, typer.Option("--flagd", "--flagd-address", help="Obey the flagd at host:port.")
    ] = None,
    flags: Annotated[Path | None, typer.Option(help="Obey a flagd document; read when it changes.")] = None,
    demo: Annotated[str, typer.Option(help="Release of the demo to be like.")] = "3.0",
    users: Annotated[int, typer.Option(min=1, max=500, help="Virtual users.")] = 5,
    browser_users: Annotated[int, typer.Option(min=0, max=50, help="Virtual users with a browser.")] = 1,
    seed: Annotated[
        int | None,
        typer.Option(min=0, help="Decides everything drawn, ids of traces too; a new one each run without."),
    ] = None,
    jitter: Annotated[bool, typer.Option(help="Let the seed vary the topology too.")] = False,
    length: Annotated[
        str | None, typer.Option("--duration", help="Time of the shop, as 90s, 5m, 1h30m; endless without.")
    ] = None,
    speed: Annotated[float, typer.Option(help="Seconds of the shop in one real second.")] = 1.0,
    every: Annotated[float, typer.Option(min=0.1, help="Seconds between two status lines.")] = 5.0,
) -> None:
    """Run the shop on the wall clock and send its telemetry as OTLP; Ctrl-C ends it with everything sent.

    Exit codes: 0 everything was sent, 1 some of it was dropped, 2 something in the options is wrong.
    """
    from pytest_otel_diag.cli import shop_run  # noqa: PLC0415 - loads the shop, only when it runs

    given = {
        "otel_diag_otlp": otlp,
        "otel_diag_otlp_protocol": protocol,
        "otel_diag_otlp_headers": headers,
        "otel_diag_otlp_compression": compression,
        "otel_diag_otlp_timeout_s": timeout,
        "otel_diag_flagd_address": flagd,
    }
    options = {name: item.value for name, item in resolve(given, {}, only=SHOP_OPTIONS).items()}
    order = shop_run.Order(
        endpoint=shop_run.endpoint(options),
        variation=shop_run.Variation(
            demo, users, browser_users, secrets.randbelow(_SEEDS) if seed is None else seed, jitter
        ),
        flagd="" if flags else options["flagd_address"],
        flag_file=flags,
        duration_s=_duration_s(length),
        speed=speed,
        every_s=every,
    )
    raise typer.Exit(shop_run.run(order, typer.echo))


@shop.command("flags")
def flags_(
    demo: Annotated[str, typer.Option(help="Release of the demo.")] = "3.0",
) -> None:
    """Print the flagd document of a release, every flag at its default: a file for ``run --flags``."""
    from pytest_otel_diag import catalog  # noqa: PLC0415 - reads and checks a long file

    typer.echo(catalog.demo_document(demo).decode(), nl=False)
