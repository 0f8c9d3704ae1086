"""The OTLP export service behind both servers: parses, checks, counts and queues requests."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from pytest_otel_diag.receiver import otlp_json, packages
from pytest_otel_diag.receiver.backlog import Backlog, Delivery
from pytest_otel_diag.receiver.counts import Tally
from pytest_otel_diag.receiver.limits import Limits
from pytest_otel_diag.receiver.otlp_json import Reading
from pytest_otel_diag.receiver.packages import Signal
from pytest_otel_diag.receiver.recognition import plausible, wrong_signal, wrong_signal_of_json
from pytest_otel_diag.receiver.rows.checks import Findings, check
from pytest_otel_diag.receiver.utf8 import MOST_BYTES, repaired

FULL = "queue full"
STOPPING = "stopping"
UNAVAILABLE = "store unavailable"
MALFORMED = "malformed"
UNRECOGNISED = "nothing recognised"
ODD_VALUE = "value that its field cannot hold"

_REJECTED_FIELDS: dict[Signal, str] = {
    "traces": "rejected_spans",
    "logs": "rejected_log_records",
    "metrics": "rejected_data_points",
}


_BUSY = {
    STOPPING: "the receiver is stopping",
    UNAVAILABLE: "the store is unavailable",
    FULL: "the queue is full: the store is too slow",
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

        The response's ``partial_success`` reports rejected records, and a request in which nothing is
        recognised. Raises Malformed or Busy; everything is counted.
        """
        reading = self._read(signal, body, as_json=as_json)
        message = reading.message
        findings = check(signal, message, self.limits.expanded_bytes)
        if reading.rejected:
            findings.records += reading.rejected
            findings.rejected[ODD_VALUE] = reading.rejected
        response = packages.services()[signal].response()
        if not findings.records and (reading.unknown if as_json else body and not message.ListFields()):
            self.tally.refused(signal, UNRECOGNISED)
            named = f"; unknown fields: {', '.join(reading.unknown)}" if reading.unknown else ""
            response.partial_success.error_message = _sendable(
                f"no records of {signal} are in the request{named}"
            )
            return response
        self.tally.received(signal, findings.records)
        if reading.rewritten or findings.rejected:
            body = message.SerializeToString()
        self._enqueue(Delivery(signal, body, findings.accepted, findings.weight + len(body)), findings)
        if findings.rejected:
            for reason, number in findings.rejected.items():
                self.tally.rejected(signal, number, reason)
            setattr(response.partial_success, _REJECTED_FIELDS[signal], sum(findings.rejected.values()))
            response.partial_success.error_message = _sendable(_explained(findings, reading))
        return response

    def _read(self, signal: Signal, body: bytes, *, as_json: bool) -> Reading:
        """Return the request; raises Malformed for one that cannot be read or is of another signal."""
        request = packages.services()[signal].request
        try:
            reading = otlp_json.read(body, request) if as_json else _decoded(body, request)
        except (ValueError, packages.decode_error()) as error:
            elsewhere = "" if as_json else wrong_signal(signal, body)
            raise self._malformed(
                signal, elsewhere or f"the body is not an Export request of {signal}: {error}"
            ) from error
        if not plausible(signal, reading.message):
            find = wrong_signal_of_json(signal, reading.unknown) if as_json else wrong_signal(signal, body)
            if find:
                raise self._malformed(signal, find)
        return reading

    def _malformed(self, signal: Signal, message: str) -> Malformed:
        self.tally.refused(signal, MALFORMED)
        return Malformed(_sendable(message))

    def _enqueue(self, delivery: Delivery, findings: Findings) -> None:
        if not delivery.records or self.backlog.put(delivery):
            return
        stopping, held = self.backlog.closed, self.backlog.held
        reason = STOPPING if stopping else UNAVAILABLE if held else FULL
        self.tally.rejected(delivery.signal, findings.records, reason)
        raise Busy(_BUSY[reason], stopping=stopping)


def _decoded(body: bytes, request: Any) -> Reading:
    """Read a protobuf body; bytes in texts that are not UTF-8 are replaced."""
    try:
        return Reading(request.FromString(body))
    except packages.decode_error() as error:
        if "UTF-8" not in str(error) or len(body) > MOST_BYTES:
            raise
        return Reading(request.FromString(repaired(body, request.DESCRIPTOR)), rewritten=True)


def _sendable(text: str) -> str:
    """Return the text with ``?`` for half a character, which names of fields in JSON may hold."""
    return text.encode("utf-8", "replace").decode()


def _explained(findings: Findings, reading: Reading) -> str:
    """Return why records were rejected, with the first fields that hold odd values."""
    reasons = [f"{number}: {reason}" for reason, number in findings.rejected.items()]
    ignored = [f"ignored fields: {', '.join(reading.unknown)}"] if reading.unknown else []
    return f"records that cannot be stored: {'; '.join([*reasons, *reading.reasons, *ignored])}"
