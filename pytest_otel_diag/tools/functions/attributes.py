"""Chooses the attributes of a span or log line that help to explain it."""

from __future__ import annotations

from collections.abc import Sequence

from pytest_otel_diag.tools.cells import shortened

MOST = 12
"""Attributes of one span that are shown."""

_CHARACTERS = 200

# Prefixes of OpenTelemetry's semantic conventions: what describes the call and its failure comes first, what
# describes the runtime and its library not at all.
_FIRST = (
    "error",
    "exception",
    "http.response",
    "http.status",
    "rpc.grpc.status",
    "rpc.response",
    "db.response",
)
_NEXT = (
    "http.",
    "url.",
    "rpc.",
    "db.",
    "messaging.",
    "server.",
    "peer.",
    "net.peer.",
    "upstream_",
    "response_",
)
_LEFT_OUT = ("thread.", "code.", "telemetry.", "otel.", "process.", "sampler.", "busy_ns", "idle_ns")


def chosen(keys: Sequence[str], texts: Sequence[str]) -> dict[str, str]:
    """Return the attributes that matter most, shortened; an entry ``…`` counts those left out."""
    pairs = [
        (key, text) for key, text in zip(keys, texts, strict=True) if text and not key.startswith(_LEFT_OUT)
    ]
    pairs.sort(key=lambda pair: (_rank(pair[0]), pair[0]))
    found = {key: shortened(text, _CHARACTERS) for key, text in pairs[:MOST]}
    if len(pairs) > MOST:
        found["…"] = f"{len(pairs) - MOST} more"
    return found


def _rank(key: str) -> int:
    if key.startswith(_FIRST):
        return 0
    return 1 if key.startswith(_NEXT) else 2
