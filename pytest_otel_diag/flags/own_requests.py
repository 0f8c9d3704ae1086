"""The mark of this package's own requests to flag services.

They would make spans in the telemetry that an analyzer reads. Each request therefore carries a W3C trace
context that is not sampled, so that proxies and services with a parent-based sampler (the default of
OpenTelemetry) record nothing, and always the same trace id, so that a session can hide the spans of those
that record all the same.
"""

from __future__ import annotations

from collections.abc import Mapping
from importlib import metadata

TRACE_ID = "6f74656c2d646961672d666c61677300"
"""``otel-diag-flags`` in hexadecimal, and a zero."""

_SPAN_ID = "6f74656c64696167"
_NOT_SAMPLED = "00"


def headers() -> Mapping[str, str]:
    """Return the headers (or gRPC metadata) of a request: ``user-agent`` and ``traceparent``."""
    return {
        "user-agent": f"pytest-otel-diag/{metadata.version('pytest-otel-diag')}",
        "traceparent": f"00-{TRACE_ID}-{_SPAN_ID}-{_NOT_SAMPLED}",
    }
