"""Where requests of both protocols arrive: read, check, count, and put into the backlog."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from pytest_otel_diag.receiver import json_requests, packages
from pytest_otel_diag.receiver.backlog import Backlog, Delivery
from pytest_otel_diag.receiver.checks import Findings, check
from pytest_otel_diag.receiver.counts import Tally
from pytest_otel_diag.receiver.limits import Limits
from pytest_otel_diag.receiver.packages import Signal

FULL = "queue full"
STOPPING = "stopping"
MALFORMED = "malformed"

_REJECTED_FIELDS: dict[Signal, str] = {
    "traces": "rejected_spans",
    "logs": "rejected_log_records",
    "metrics": "rejected_data_points",
}


class Malformed(Exception):
    """The body is not what its content type says; the sender must not send it again."""


class Busy(Exception):
    """There is no room now; the sender should come again. ``stopping``: to somebody else."""

    def __init__(self, reason: str, *, stopping: bool) -> None:
        super().__init__(reason)
        self.stopping = stopping


@dataclass(frozen=True, slots=True)
class Desk:
    """Takes requests from any thread."""

    backlog: Backlog
    tally: Tally
    limits: Limits

    def take(self, signal: Signal, body: bytes, *, as_json: bool = False) -> Any:
        """Put a request's records into the backlog and return the ``Export…ServiceResponse``.

        *body* is plain, after decompression. The response tells of records that were rejected. Raises
        Malformed or Busy, after counting.
        """
        service = packages.services()[signal]
        message = self._read(signal, body, service.request, as_json=as_json)
        findings = check(signal, message, self.limits.expanded_bytes)
        self.tally.received(signal, findings.records)
        if as_json or findings.rejected:
            body = message.SerializeToString()
        self._put(Delivery(signal, body, findings.accepted, findings.weight + len(body)), findings)
        response = service.response()
        if findings.rejected:
            for reason, number in findings.rejected.items():
                self.tally.rejected(signal, number, reason)
            setattr(response.partial_success, _REJECTED_FIELDS[signal], sum(findings.rejected.values()))
            reasons = "; ".join(f"{number}: {reason}" for reason, number in findings.rejected.items())
            response.partial_success.error_message = f"records that cannot be stored: {reasons}"
        return response

    def _read(self, signal: Signal, body: bytes, request: Any, *, as_json: bool) -> Any:
        try:
            return json_requests.read(body, request) if as_json else request.FromString(body)
        except (ValueError, packages.decode_error()) as error:
            self.tally.refused(signal, MALFORMED)
            raise Malformed(f"the body is no Export request of {signal}: {error}") from error

    def _put(self, delivery: Delivery, findings: Findings) -> None:
        if not delivery.records or self.backlog.put(delivery):
            return
        stopping = self.backlog.closed
        self.tally.rejected(delivery.signal, findings.records, STOPPING if stopping else FULL)
        reason = "the receiver stops" if stopping else "the queue is full, the store cannot keep up"
        raise Busy(reason, stopping=stopping)
