"""Spellings of enumerations in the exporter's tables, evened out for every statement in this one place.

Exporter releases and other writers spell a status ``Error``, ``STATUS_CODE_ERROR``, ``ERROR``, ``error`` or
``2``, and a kind ``Server``, ``SPAN_KIND_SERVER``, ``SERVER`` or ``2``. A ``.sql`` file writes ``${status}``,
``${failed}`` and ``${kind}`` where it means these columns of ``otel_traces``.
"""

from __future__ import annotations

from collections.abc import Mapping

_STATUSES = {"Unset": ("UNSET", "0", ""), "Ok": ("OK", "1"), "Error": ("ERROR", "2")}
_KINDS = {
    "Internal": ("INTERNAL", "1"),
    "Server": ("SERVER", "2"),
    "Client": ("CLIENT", "3"),
    "Producer": ("PRODUCER", "4"),
    "Consumer": ("CONSUMER", "5"),
}


def _plain(column: str, prefix: str) -> str:
    return f"replaceOne(upper(toString({column})), '{prefix}', '')"


def _evened(column: str, prefix: str, names: Mapping[str, tuple[str, ...]], other: str) -> str:
    spelled = [(spelling, name) for name, spellings in names.items() for spelling in spellings]
    spellings, meant = (", ".join(f"'{pair[side]}'" for pair in spelled) for side in (0, 1))
    return f"transform({_plain(column, prefix)}, [{spellings}], [{meant}], {other})"


STATUS = _evened("StatusCode", "STATUS_CODE_", _STATUSES, "toString(StatusCode)")
"""``Unset``, ``Ok`` or ``Error``; an unknown spelling as it is, which counts as no error."""

FAILED = f"{_plain('StatusCode', 'STATUS_CODE_')} IN ('ERROR', '2')"
"""Whether the status is an error."""

KIND = _evened("SpanKind", "SPAN_KIND_", _KINDS, "''")
"""``Internal``, ``Server``, ``Client``, ``Producer`` or ``Consumer``; empty for any other."""

KNOWN_STATUSES = frozenset(
    prefix + spelling
    for spellings in _STATUSES.values()
    for spelling in spellings
    for prefix in ("", "STATUS_CODE_")
)
"""All spellings of a status, in upper case."""


def evened_out(sql: str) -> str:
    """Return the statement with expressions in place of ``${status}``, ``${failed}`` and ``${kind}``."""
    for name, expression in (("status", STATUS), ("failed", FAILED), ("kind", KIND)):
        sql = sql.replace(f"${{{name}}}", f"({expression})")
    return sql
