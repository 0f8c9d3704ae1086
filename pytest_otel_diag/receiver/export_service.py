"""The OTLP export service behind both servers: parses, checks, counts and queues requests."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from pytest_otel_diag.receiver import otlp_json, packages
from pytest_otel_diag.receiver.backlog import Backlog, Delivery
from pytest_otel_diag.receiver.counts import Tally
from pytest_otel_diag.receiver.limits import Limits
from pytest_otel_diag.receiver.packages import Signal
from pytest_otel_diag.receiver.rows.checks import Findings, check

FULL = "queue full"
STOPPING = "stopping"
MALFORMED = "malformed"

_REJECTED_FIELDS: dict[Signal, str] = {
    "traces": "rejected_spans",
    "logs": "rejected_log_records",
    "metrics": "rejected_data_points",
}


class Malformed(Exception):
    """The body does not match its content type; sending it again is pointless."""


class Busy(Exception):
    """The request is not accepted now; the client should retry, elsewhere if ``stopping``."""

    def __init__(self, reason: str, *, stopping: bool) -> None:
        super().__init__(reason)
        self.stopping = stopping


@dataclass(frozen=True, slots=True)
class ExportService:
    """Handles export requests from any thread."""

    backlog: Backlog
    tally: Tally
    limits: Limits

    def export(self, signal: Signal, body: bytes, *, as_json: bool = False) -> Any:
        """Queue the records of a decompressed request and return the ``Export…ServiceResponse``.

        The response's ``partial_success`` reports rejected records. Raises Malformed or Busy; everything
        is counted.
        """
        service = packages.services()[signal]
        message = self._parsed(signal, body, service.request, as_json=as_json)
        findings = check(signal, message, self.limits.expanded_bytes)
        self.tally.received(signal, findings.records)
        if as_json or findings.rejected:
            body = message.SerializeToString()
        self._enqueue(Delivery(signal, body, findings.accepted, findings.weight + len(body)), findings)
        response = service.response()
        if findings.rejected:
            for reason, number in findings.rejected.items():
                self.tally.rejected(signal, number, reason)
            setattr(response.partial_success, _REJECTED_FIELDS[signal], sum(findings.rejected.values()))
            reasons = "; ".join(f"{number}: {reason}" for reason, number in findings.rejected.items())
            response.partial_success.error_message = f"records that cannot be stored: {reasons}"
        return response

    def _parsed(self, signal: Signal, body: bytes, request: Any, *, as_json: bool) -> Any:
        try:
            return otlp_json.read(body, request) if as_json else request.FromString(body)
        except (ValueError, packages.decode_error()) as error:
            self.tally.refused(signal, MALFORMED)
            raise Malformed(f"the body is not an Export request of {signal}: {error}") from error

    def _enqueue(self, delivery: Delivery, findings: Findings) -> None:
        if not delivery.records or self.backlog.put(delivery):
            return
        stopping = self.backlog.closed
        self.tally.rejected(delivery.signal, findings.records, STOPPING if stopping else FULL)
        reason = "the receiver is stopping" if stopping else "the queue is full: the store is too slow"
        raise Busy(reason, stopping=stopping)
