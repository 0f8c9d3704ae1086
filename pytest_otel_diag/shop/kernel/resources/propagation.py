"""Trace context and baggage, which travel with requests and messages."""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple


class SpanContext(NamedTuple):
    """The span that a message or a link refers to; lower-case hex ids, both '' without a trace."""

    trace_id: str
    span_id: str


class RequestContext:
    """What a request carries from the caller to the callee.

    ``service`` is the service that sends it, ``trace_id`` and ``parent_id`` are lower-case hex ids of the
    trace and of the span that encloses the request ('' for none), ``baggage`` is propagated unchanged.
    """

    __slots__ = ("baggage", "parent_id", "service", "trace_id")

    def __init__(self, service: str, trace_id: str, parent_id: str, baggage: Mapping[str, str]) -> None:
        self.service = service
        self.trace_id = trace_id
        self.parent_id = parent_id
        self.baggage = baggage
