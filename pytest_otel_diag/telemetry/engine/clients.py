"""Clients of clickhouse-connect: of the embedded engine with what it can switch off, and of servers."""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import Any
from xml.sax.saxutils import escape

from pytest_otel_diag.errors import TelemetryUnavailable
from pytest_otel_diag.extras import install
from pytest_otel_diag.telemetry.dsn import MEMORY, EmbeddedAddress, ServerAddress
from pytest_otel_diag.telemetry.engine.leftovers import start_removing_dead_stores

CONNECT_TIMEOUT_S = 10
REPLY_TIMEOUT_S = 600

_CONFIGURATION = """
<clickhouse>
    <logger><level>none</level></logger>
    <users_config>{users}</users_config>
</clickhouse>
"""
_USERS = """
<clickhouse>
    <users>
        <default>
            <password></password>
            <networks><ip>::1</ip><ip>127.0.0.1</ip></networks>
            <profile>default</profile>
            <quota>default</quota>
            <access_management>0</access_management>
            <grants>
                <query>GRANT SHOW, SELECT, INSERT, ALTER, CREATE, DROP, TRUNCATE, OPTIMIZE ON *.*</query>
                <query>GRANT CREATE TEMPORARY TABLE ON *.*</query>
                <query>GRANT READ ON FILE</query>
                <query>GRANT TABLE ENGINE ON *</query>
            </grants>
        </default>
    </users>
    <profiles>
        <default>
            <allow_introspection_functions>0</allow_introspection_functions>
            <constraints>
                <allow_introspection_functions><readonly/></allow_introspection_functions>
            </constraints>
        </default>
    </profiles>
    <quotas><default/></quotas>
</clickhouse>
"""
"""What the engine's one user may do.

Without grants for them, URLs, other servers, object stores, databases of other kinds, executables,
dictionaries and statements of administration are out of reach. Files may be read, to load recordings.
"""


def embedded_client(address: EmbeddedAddress) -> Any:
    """Return a client of the embedded engine, which starts with the first one."""
    try:
        # importing chDB first distinguishes "not installed" from "locked"
        import chdb  # noqa: F401, PLC0415 - heavy, loaded on use
        import clickhouse_connect  # noqa: PLC0415
        import clickhouse_connect.driver.exceptions as driver  # noqa: PLC0415
    except ImportError as error:
        raise TelemetryUnavailable(
            f"the embedded engine is not installed ({error}); run: {install('embedded')}, "
            "or use a server's DSN"
        ) from error
    if address.path == MEMORY:
        start_removing_dead_stores()
    place: dict[str, Any] = {} if address.path == MEMORY else {"path": address.path}
    # Only the client that starts the engine needs the files; they may be gone once it runs.
    with tempfile.TemporaryDirectory(prefix="otel-diag-engine-") as folder:
        users, configuration = Path(folder, "users.xml"), Path(folder, "config.xml")
        users.write_text(_USERS, encoding="utf-8")
        configuration.write_text(_CONFIGURATION.format(users=escape(str(users))), encoding="utf-8")
        options = {"config-file": str(configuration)}
        try:
            return clickhouse_connect.get_client(
                interface="chdb", tz_mode="aware", chdb_options=options, **place
            )
        except driver.Error as error:
            raise TelemetryUnavailable(locked(address, str(error))) from error


def locked(address: EmbeddedAddress, reason: str) -> str:
    """Return why the engine did not start, and what to do."""
    if "already initialized" in reason:
        return (
            f"another part of this process already runs chDB on another path, so {address} cannot be opened; "
            "use that path, or a server's DSN"
        )
    if "EmbeddedServer: ." in reason:
        return (
            f"{address} is in use by another process (chDB locks a path for one process); "
            "wait for it, choose another path, or let one process own it and use clickhouse://host:port/database"
        )
    return f"{address} cannot be opened: {reason}"


def server_client(address: ServerAddress) -> Any:
    """Return a client of a server's HTTP interface; raises TelemetryUnavailable."""
    import clickhouse_connect  # noqa: PLC0415 - heavy, loaded on use
    import clickhouse_connect.driver.exceptions as driver  # noqa: PLC0415

    options: dict[str, Any] = dict(address.options)
    try:
        return clickhouse_connect.get_client(
            interface="https" if address.secure else "http",
            host=address.host,
            port=address.port,
            username=address.user,
            password=address.password,
            database=address.database,
            connect_timeout=CONNECT_TIMEOUT_S,
            send_receive_timeout=REPLY_TIMEOUT_S,
            autogenerate_session_id=False,
            query_retries=0,
            tz_mode="aware",
            **options,
        )
    except driver.DatabaseError as error:
        raise _refused(address, error) from error
    except (driver.Error, OSError, TypeError, ValueError) as error:
        raise TelemetryUnavailable(f"{address} cannot be opened: {error}; check the DSN's options") from error


def _refused(address: ServerAddress, error: Exception) -> TelemetryUnavailable:
    code = getattr(error, "code", None)
    if code == 81:  # UNKNOWN_DATABASE
        return TelemetryUnavailable(
            f"{address}: the server has no database {address.database!r}; name one it has, or none"
        )
    if code in {516, 192, 193, 194}:  # authentication and unknown users
        return TelemetryUnavailable(
            f"{address}: the server refused user or password; check the DSN's credentials"
        )
    return TelemetryUnavailable(
        f"{address} does not answer as a ClickHouse HTTP interface: {error}; check host and port "
        "(8123 for HTTP, 8443 for HTTPS, not 9000) and that the server runs"
    )
