"""Options of the shop in real time: where its telemetry goes and who answers its flags.

They resolve as all options do. The OTLP ones also read the environment of OpenTelemetry's own exporters
(OTEL_EXPORTER_OTLP_ENDPOINT and its siblings), after our names.
"""

from __future__ import annotations

import re

from pytest_otel_diag.config.options import Option

_DURATION = re.compile(r"(?:(\d+(?:\.\d+)?)h)?(?:(\d+(?:\.\d+)?)m)?(?:(\d+(?:\.\d+)?)s?)?")


def duration(text: str) -> float:
    """Return the seconds of ``90``, ``90s``, ``5m`` or ``1h30m``; raises ValueError for anything else."""
    matched = _DURATION.fullmatch(text.strip())
    if matched is None or not any(matched.groups()):
        raise ValueError("must be a time such as 90s, 5m or 1h30m")
    hours, minutes, seconds = (float(part or 0) for part in matched.groups())
    total = hours * 3600 + minutes * 60 + seconds
    if total <= 0:
        raise ValueError("must be longer than nothing")
    return total


def _above_zero(text: str) -> float:
    value = float(text)
    if not 0 < value < float("inf"):
        raise ValueError("must be a finite number above 0")
    return value


SHOP_OPTIONS: tuple[Option, ...] = (
    Option(
        "otlp",
        str,
        "",
        "address of the OTLP collector (default: this machine, the usual port of the protocol)",
        "URL",
        legacy_environment="OTEL_EXPORTER_OTLP_ENDPOINT",
        scale=1,
    ),
    Option(
        "otlp_protocol",
        str,
        "http/protobuf",
        "http/protobuf or grpc",
        "PROTOCOL",
        legacy_environment="OTEL_EXPORTER_OTLP_PROTOCOL",
        scale=1,
    ),
    Option(
        "otlp_headers",
        str,
        "",
        "headers of every request: key=value,key2=value2",
        "HEADERS",
        legacy_environment="OTEL_EXPORTER_OTLP_HEADERS",
        scale=1,
    ),
    Option(
        "otlp_compression",
        str,
        "none",
        "none or gzip",
        "COMPRESSION",
        legacy_environment="OTEL_EXPORTER_OTLP_COMPRESSION",
        scale=1,
    ),
    Option(
        "otlp_timeout_s",
        _above_zero,
        10.0,
        "time for one request, in seconds",
        "SECONDS",
        legacy_environment="OTEL_EXPORTER_OTLP_TIMEOUT",  # milliseconds
        scale=0.001,
    ),
    Option("flagd_address", str, "", "host:port of a flagd whose flags are obeyed", "HOST:PORT"),
)
