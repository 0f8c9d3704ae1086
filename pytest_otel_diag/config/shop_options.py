"""Options of the simulated shop in real time: where it sends telemetry and which flagd decides its flags.

They resolve like all options. Those for OTLP also read the environment variables of OpenTelemetry's own
exporters (OTEL_EXPORTER_OTLP_ENDPOINT and its siblings), after ours.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Self

from pytest_otel_diag.config.declaration import Option, above_zero, declared, option
from pytest_otel_diag.config.options import Resolved
from pytest_otel_diag.secret import SecretText, hidden


@dataclass(frozen=True, kw_only=True)
class RealTimeShopOptions:
    """The options of ``otel-diag shop run`` that the environment may set too."""

    otlp: SecretText = option(
        SecretText,
        SecretText(""),
        "address of the OTLP collector (default: this machine, the protocol's usual port)",
        metavar="URL",
        legacy_environment="OTEL_EXPORTER_OTLP_ENDPOINT",
    )
    otlp_protocol: str = option(
        str,
        "http/protobuf",
        "http/protobuf or grpc",
        metavar="PROTOCOL",
        legacy_environment="OTEL_EXPORTER_OTLP_PROTOCOL",
        alias="--protocol",
    )
    otlp_headers: SecretText = option(
        hidden,
        SecretText(""),
        "headers of every request: key=value,key2=value2",
        metavar="HEADERS",
        legacy_environment="OTEL_EXPORTER_OTLP_HEADERS",
        alias="--headers",
    )
    otlp_compression: str = option(
        str,
        "none",
        "none or gzip",
        metavar="COMPRESSION",
        legacy_environment="OTEL_EXPORTER_OTLP_COMPRESSION",
        alias="--compression",
    )
    otlp_timeout_s: float = option(
        above_zero(float),
        10.0,
        "time for one request, in seconds",
        metavar="SECONDS",
        legacy_environment="OTEL_EXPORTER_OTLP_TIMEOUT",  # milliseconds
        scale=0.001,
        alias="--timeout",
    )
    flagd_address: str = option(
        str, "", "host:port of the flagd that evaluates the flags", metavar="HOST:PORT", alias="--flagd"
    )

    @classmethod
    def of(cls, resolved: Mapping[str, Resolved]) -> Self:
        """Return the values of resolved options."""
        return cls(**{name: item.value for name, item in resolved.items()})


SHOP_OPTIONS: tuple[Option, ...] = declared(RealTimeShopOptions)
