"""Where the store lives: an embedded engine or a server, read from a DSN."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from urllib.parse import parse_qsl, unquote, urlsplit

from pytest_otel_diag.errors import ConfigurationError, nearest
from pytest_otel_diag.secret import masked

MEMORY = ":memory:"
_SERVER_PORTS = {"clickhouse": 8123, "http": 8123, "clickhouses": 8443, "https": 8443}
_FORMS = "chdb://memory, chdb:///absolute/path or clickhouse://user:password@host:port/database"


@dataclass(frozen=True, slots=True)
class EmbeddedAddress:
    """chDB inside this process; ``path`` is ``:memory:`` or an absolute directory."""

    path: str

    def __str__(self) -> str:
        return "chdb://memory" if self.path == MEMORY else f"chdb://{self.path}"


@dataclass(frozen=True, slots=True)
class ServerAddress:
    """A ClickHouse server's HTTP interface. ``str()`` never shows the password."""

    host: str
    port: int
    secure: bool
    user: str = "default"
    password: str = field(default="", repr=False)
    database: str | None = None
    options: tuple[tuple[str, str], ...] = ()

    def __str__(self) -> str:
        scheme = "clickhouses" if self.secure else "clickhouse"
        host = f"[{self.host}]" if ":" in self.host else self.host
        return f"{scheme}://{self.user}@{host}:{self.port}/{self.database or ''}"


Address = EmbeddedAddress | ServerAddress


def parse_dsn(dsn: str) -> Address:
    """Return the address that *dsn* names; raises ConfigurationError with the forms that are understood."""
    try:
        parts = urlsplit(dsn)
        port = parts.port
    except ValueError as error:
        raise ConfigurationError(
            f"cannot read the telemetry DSN {masked(dsn)!r}: {error}; use {_FORMS}"
        ) from None
    if parts.scheme == "chdb":
        return _embedded(dsn, parts.netloc, unquote(parts.path))
    if parts.scheme not in _SERVER_PORTS:
        hint = nearest(parts.scheme, ["chdb", *_SERVER_PORTS]) if parts.scheme else ""
        raise ConfigurationError(
            f"telemetry DSN {masked(dsn)!r} has the scheme {parts.scheme!r}{hint or ''}; use {_FORMS}"
        )
    if not parts.hostname:
        raise ConfigurationError(f"telemetry DSN {masked(dsn)!r} names no host; use {_FORMS}")
    return ServerAddress(
        host=parts.hostname,
        port=port or _SERVER_PORTS[parts.scheme],
        secure=parts.scheme in {"clickhouses", "https"},
        user=unquote(parts.username or "default"),
        password=unquote(parts.password or ""),
        database=unquote(parts.path.strip("/")) or None,
        options=tuple(parse_qsl(parts.query, keep_blank_values=True)),
    )


def _embedded(dsn: str, netloc: str, path: str) -> EmbeddedAddress:
    if netloc == "memory" and path in {"", "/"}:
        return EmbeddedAddress(MEMORY)
    if netloc or not path.strip("/"):
        raise ConfigurationError(
            f"telemetry DSN {dsn!r} is neither in memory nor an absolute path; "
            "use chdb://memory or chdb:///absolute/path (three slashes)"
        )
    return EmbeddedAddress(str(Path(path).resolve()))
