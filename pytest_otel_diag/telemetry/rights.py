"""What the user of a server may do beyond what sessions need.

The guard refuses statements that reach outside of a session. On a server, a user of its own makes the server
refuse them as well: it reads the telemetry, and makes and drops the private databases of sessions.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence

PRIVATE_PREFIX = "otel_diag_view_"
"""How the names of sessions' private databases start."""

_GRANT = re.compile(r"GRANT (?P<rights>.+?) ON (?P<place>.+?) TO .*", re.DOTALL)
_WITH_COLUMNS = re.compile(r"\([^)]*\)")
_READING = frozenset({"SELECT", "SHOW", "SHOW DATABASES", "SHOW TABLES", "SHOW COLUMNS", "SHOW DICTIONARIES"})
_OWN = frozenset(
    {"CREATE DATABASE", "CREATE TABLE", "CREATE VIEW", "DROP DATABASE", "DROP TABLE", "DROP VIEW", "INSERT"}
)
_PLACELESS = frozenset({"TABLE ENGINE", "CREATE TEMPORARY TABLE"})


def excess(grants: Sequence[str], database: str) -> list[str]:
    """Return the rights among the lines of ``SHOW GRANTS`` that sessions over *database* do not need."""
    found: list[str] = []
    for line in grants:
        found.extend(_beyond(line, database))
    return found


def _beyond(line: str, database: str) -> Iterator[str]:
    match = _GRANT.match(line)
    if match is None:
        yield line  # a role, whose rights SHOW GRANTS does not list
        return
    place = match["place"].replace("`", "").replace("\\", "")
    for right in _WITH_COLUMNS.sub("", match["rights"]).split(","):
        if not _needed(right.strip(), place, database):
            yield f"{right.strip()} ON {place}"


def _needed(right: str, place: str, database: str) -> bool:
    held, _, _ = place.partition(".")
    if right in _PLACELESS:
        return True
    if held.startswith(PRIVATE_PREFIX):
        return right in _READING | _OWN
    return held in {database, "system", "INFORMATION_SCHEMA", "information_schema"} and right in _READING
