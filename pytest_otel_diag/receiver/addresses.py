"""Parses the addresses a receiver listens on: ``http=HOST:PORT,grpc=HOST:PORT``."""

from __future__ import annotations

from dataclasses import dataclass
from urllib.parse import urlsplit

from pytest_otel_diag.errors import ConfigurationError, nearest

HTTP = "127.0.0.1:4318"
GRPC = "127.0.0.1:4317"

_FORM = "http=HOST:PORT,grpc=HOST:PORT (one of the two is enough), or off"


@dataclass(frozen=True, slots=True)
class Listen:
    """``HOST:PORT`` of each protocol, None for a disabled one; port 0 picks a free port."""

    http: str | None = HTTP
    grpc: str | None = GRPC

    def __str__(self) -> str:
        enabled = (("http", self.http), ("grpc", self.grpc))
        return ",".join(f"{name}={address}" for name, address in enabled if address is not None) or "off"


def parse_listen(text: str) -> Listen | None:
    """Return the addresses in *text*, None for ``off``; empty text means both protocols on 127.0.0.1.

    A protocol is disabled when *text* does not name it or sets it to ``off``. Raises ConfigurationError.
    """
    if not text.strip():
        return Listen()
    if text.strip().lower() == "off":
        return None
    found: dict[str, str | None] = {}
    for part in text.split(","):
        name, equals, address = (piece.strip() for piece in part.partition("="))
        if not equals or name not in {"http", "grpc"}:
            hint = nearest(name, ["http", "grpc", "off"])
            raise ConfigurationError(
                f"OTLP receiver {text!r}: cannot read {part.strip()!r}{hint}; use {_FORM}"
            )
        if name in found:
            raise ConfigurationError(f"OTLP receiver {text!r} names {name} twice; use {_FORM}")
        found[name] = None if address.lower() == "off" else address
        if found[name] is not None:
            split_address(address)
    listen = Listen(found.get("http"), found.get("grpc"))
    return None if listen == Listen(None, None) else listen


def split_address(address: str) -> tuple[str, int]:
    """Return host and port of ``HOST:PORT`` or ``[IPV6]:PORT``; raises ConfigurationError."""
    try:
        parts = urlsplit(f"//{address}")
        host, port = parts.hostname, parts.port
    except ValueError:
        host, port = None, None
    if not host or port is None or parts.netloc != address:
        raise ConfigurationError(
            f"cannot listen on {address!r}: use HOST:PORT, for example {HTTP} (this machine only), "
            "0.0.0.0:4318 (every interface) or [::1]:4318; port 0 picks a free port"
        )
    return host, port


def join_address(host: str, port: int) -> str:
    """Return ``HOST:PORT``, with brackets around IPv6."""
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"
