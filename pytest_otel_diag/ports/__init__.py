"""Ports: the Protocols between the layers. Adapters, built-in and third-party, implement them."""

from __future__ import annotations

from pytest_otel_diag.ports.analyzer import (
    Analyzer,
    DescribedAnalyzer,
    Guidance,
    Investigation,
    NoGuidance,
    NoTranscript,
    Person,
    PreparedAnalyzer,
    Transcript,
    asked_by,
)
from pytest_otel_diag.ports.clock import Clock
from pytest_otel_diag.ports.flags import FlagController
from pytest_otel_diag.ports.judge import JudgeFacts
from pytest_otel_diag.ports.target import Target, TargetSession, Traffic, report_waiting, waiting
from pytest_otel_diag.ports.telemetry import Sightings, TableExporter, Telemetry

__all__ = [
    "Analyzer",
    "Clock",
    "DescribedAnalyzer",
    "FlagController",
    "Guidance",
    "Investigation",
    "JudgeFacts",
    "NoGuidance",
    "NoTranscript",
    "Person",
    "PreparedAnalyzer",
    "Sightings",
    "TableExporter",
    "Target",
    "TargetSession",
    "Telemetry",
    "Traffic",
    "Transcript",
    "asked_by",
    "report_waiting",
    "waiting",
]
