"""Receives OTLP over HTTP and gRPC and writes it to a telemetry store."""

from pytest_otel_diag.receiver.addresses import Listen, parse_listen
from pytest_otel_diag.receiver.counts import Counts, SignalCounts
from pytest_otel_diag.receiver.limits import Limits
from pytest_otel_diag.receiver.receiver import Receiver

__all__ = ["Counts", "Limits", "Listen", "Receiver", "SignalCounts", "parse_listen"]
