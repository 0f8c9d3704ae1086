"""The endpoint of a collector, in the syntax of OpenTelemetry's OTLP exporters.

The values are text; only ``config`` reads the environment (OTEL_EXPORTER_OTLP_*).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal, cast, get_args
from urllib.parse import unquote, urlsplit

from pytest_otel_diag.errors import ConfigurationError, nearest
from pytest_otel_diag.secret import masked
from pytest_otel_diag.shop.realtime.encode import Signal

Protocol = Literal["http/protobuf", "grpc"]
Compression = Literal["none", "gzip"]

_DEFAULTS: Mapping[Protocol, str] = {
    "http/protobuf": "http://localhost:4318",
    "grpc": "http://localhost:4317",
}
_PORTS: Mapping[str, int] = {"http": 80, "https": 443}


@dataclass(frozen=True, slots=True)
class OtlpEndpoint:
    """A collector: ``url`` has a scheme and no trailing slash; ``timeout_s`` bounds one request."""

    url: str = field(repr=False)
    protocol: Protocol = "http/protobuf"
    headers: Mapping[str, str] = field(default_factory=dict, repr=False)
    compression: Compression = "none"
    timeout_s: float = 10.0

    @classmethod
    def parse(
        cls,
        url: str = "",
        *,
        protocol: str = "http/protobuf",
        headers: str = "",
        compression: str = "none",
        timeout_s: float = 10.0,
    ) -> OtlpEndpoint:
        """Return the endpoint for these texts; raises ConfigurationError that names the invalid one.

        An empty *url* means the protocol's default port on localhost. gRPC also accepts ``host:port``, which
        is unencrypted like ``http://``; ``https://`` uses TLS. *headers* are comma-separated, percent-encoded
        ``key=value`` pairs.
        """
        spoken = cast(Protocol, _chosen("protocol", protocol, get_args(Protocol)))
        packed = cast(Compression, _chosen("compression", compression, get_args(Compression)))
        return cls(_url(url or _DEFAULTS[spoken], spoken), spoken, parse_headers(headers), packed, timeout_s)

    @property
    def secure(self) -> bool:
        """Whether the connection is TLS."""
        return self.url.startswith("https://")

    @property
    def authority(self) -> str:
        """``host:port`` for gRPC."""
        parts = urlsplit(self.url)
        host = parts.hostname or ""
        return f"{f'[{host}]' if ':' in host else host}:{parts.port or _PORTS[parts.scheme]}"

    def path(self, signal: Signal) -> str:
        """Return the URL for requests of *signal* over HTTP."""
        return f"{self.url}/v1/{signal}"

    def __str__(self) -> str:
        return f"{masked(self.url)} ({self.protocol})"


def parse_headers(text: str) -> dict[str, str]:
    """Parse ``key=value,key2=value2`` into a mapping with lower-case keys and percent-decoded values."""
    headers: dict[str, str] = {}
    for number, pair in enumerate(filter(str.strip, text.split(",")), start=1):
        key, equals, value = pair.partition("=")
        key = unquote(key.strip()).lower()
        if not equals or not key:
            raise ConfigurationError(
                f"OTLP headers: entry {number} is not key=value (not shown, since it may be secret); "
                "write key=value,key2=value2, with a comma inside a value as %2C"
            )
        headers[key] = unquote(value.strip())
    return headers


def _chosen(what: str, value: str, allowed: tuple[str, ...]) -> str:
    if value not in allowed:
        raise ConfigurationError(
            f"OTLP {what} {value!r}: allowed are {', '.join(allowed)}{nearest(value, allowed)}"
        )
    return value


def _url(text: str, protocol: Protocol) -> str:
    url = text if "://" in text or protocol != "grpc" else f"http://{text}"
    try:
        parts = urlsplit(url)
        valid = parts.scheme in _PORTS and bool(parts.hostname) and parts.port != 0
    except ValueError:  # an invalid port
        valid = False
    if not valid:
        raise ConfigurationError(
            f"OTLP endpoint {text!r} is not an address; write {_DEFAULTS[protocol]} or https://collector.example"
            f"{'' if protocol == 'http/protobuf' else ' or host:port'}"
        )
    if protocol == "grpc" and parts.path.strip("/"):
        raise ConfigurationError(
            f"OTLP endpoint {text!r}: gRPC has no path; leave out {parts.path!r}, or choose http/protobuf"
        )
    return url.rstrip("/")
