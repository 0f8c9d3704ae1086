"""Put a diagnosis of OpenTelemetry systems under test: inject a fault, prove it, judge the answer.

The names in ``__all__`` are the public API, together with ``pytest_otel_diag.testing`` (contract suites for
adapters, helpers for tests) and ``pytest_otel_diag.catalog`` (the flags of the OpenTelemetry Demo as data).
Everything else is private and may change in any release.

Importing this package is cheap: every name loads its module when it is first used. pytest imports the package
at every start, because the plugin is part of it.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pytest_otel_diag.config.settings import Settings
    from pytest_otel_diag.errors import (
        AnalyzerError,
        BudgetExceeded,
        ConfigurationError,
        FlagError,
        OtelDiagError,
        QueryFailed,
        QueryLimitExceeded,
        QueryRejected,
        RecordingError,
        RestoreFailed,
        ScenarioError,
        ScenarioRejected,
        TelemetryError,
    )
    from pytest_otel_diag.model.diagnosis import (
        Anomaly,
        CriticalPath,
        Diagnosis,
        DiagnosticQuery,
        Evidence,
        Figure,
        Hypothesis,
        Mechanism,
        PathEdge,
        PathMetrics,
        RootCause,
        Signal,
        Usage,
    )
    from pytest_otel_diag.model.events import SessionEvent
    from pytest_otel_diag.model.flags import Flag, FlagChange, FlagDocument, ServedFlag
    from pytest_otel_diag.model.questions import (
        CallEdges,
        Latest,
        LogCounts,
        LogKinds,
        MetricLevels,
        OperationHealthOf,
        Question,
        ServiceHealthOf,
    )
    from pytest_otel_diag.model.scenario import (
        Disturbance,
        Environment,
        Expectation,
        ExpectedAnomaly,
        ExpectedRootCause,
        Fault,
        FaultStep,
        InvestigationStep,
        Scenario,
        Timing,
    )
    from pytest_otel_diag.model.session import Budget, SessionResult, Status
    from pytest_otel_diag.model.telemetry import (
        CallEdge,
        LogCount,
        LogKind,
        MetricLevel,
        OperationHealth,
        QueryLimits,
        ServiceHealth,
        Table,
        TelemetrySchema,
    )
    from pytest_otel_diag.model.verdict import Verdict
    from pytest_otel_diag.model.windows import Window
    from pytest_otel_diag.plugin.fixtures import Diagnose, FlagAccess, TelemetryAccess
    from pytest_otel_diag.ports import (
        Analyzer,
        Clock,
        FlagController,
        Guidance,
        Investigation,
        TableExporter,
        Target,
        TargetSession,
        Telemetry,
        Traffic,
        Transcript,
        report_waiting,
    )
    from pytest_otel_diag.runs.runner import PreparedScenario, Runner
    from pytest_otel_diag.scoring.assertions import DiagnosedSession, DiagnosisMissed, SessionNotScored
    from pytest_otel_diag.secret import SecretText

__version__ = "0.1.0"

__all__ = [
    "Analyzer",
    "AnalyzerError",
    "Anomaly",
    "Budget",
    "BudgetExceeded",
    "CallEdge",
    "CallEdges",
    "Clock",
    "ConfigurationError",
    "CriticalPath",
    "Diagnose",
    "DiagnosedSession",
    "Diagnosis",
    "DiagnosisMissed",
    "DiagnosticQuery",
    "Disturbance",
    "Environment",
    "Evidence",
    "Expectation",
    "ExpectedAnomaly",
    "ExpectedRootCause",
    "Fault",
    "FaultStep",
    "Figure",
    "Flag",
    "FlagAccess",
    "FlagChange",
    "FlagController",
    "FlagDocument",
    "FlagError",
    "Guidance",
    "Hypothesis",
    "Investigation",
    "InvestigationStep",
    "Latest",
    "LogCount",
    "LogCounts",
    "LogKind",
    "LogKinds",
    "Mechanism",
    "MetricLevel",
    "MetricLevels",
    "OperationHealth",
    "OperationHealthOf",
    "OtelDiagError",
    "PathEdge",
    "PathMetrics",
    "PreparedScenario",
    "QueryFailed",
    "QueryLimitExceeded",
    "QueryLimits",
    "QueryRejected",
    "Question",
    "RecordingError",
    "RestoreFailed",
    "RootCause",
    "Runner",
    "Scenario",
    "ScenarioError",
    "ScenarioRejected",
    "SecretText",
    "ServedFlag",
    "ServiceHealth",
    "ServiceHealthOf",
    "SessionEvent",
    "SessionNotScored",
    "SessionResult",
    "Settings",
    "Signal",
    "Status",
    "Table",
    "TableExporter",
    "Target",
    "TargetSession",
    "Telemetry",
    "TelemetryAccess",
    "TelemetryError",
    "TelemetrySchema",
    "Timing",
    "Traffic",
    "Transcript",
    "Usage",
    "Verdict",
    "Window",
    "__version__",
    "report_waiting",
]

# Where each name lives. The imports above say the same to type checkers; a test compares the two.
_MODULES = {
    "config.settings": ("Settings",),
    "errors": (
        "AnalyzerError",
        "BudgetExceeded",
        "ConfigurationError",
        "FlagError",
        "OtelDiagError",
        "QueryFailed",
        "QueryLimitExceeded",
        "QueryRejected",
        "RecordingError",
        "RestoreFailed",
        "ScenarioError",
        "ScenarioRejected",
        "TelemetryError",
    ),
    "model.diagnosis": (
        "Anomaly",
        "CriticalPath",
        "Diagnosis",
        "DiagnosticQuery",
        "Evidence",
        "Figure",
        "Hypothesis",
        "Mechanism",
        "PathEdge",
        "PathMetrics",
        "RootCause",
        "Signal",
        "Usage",
    ),
    "model.events": ("SessionEvent",),
    "model.flags": ("Flag", "FlagChange", "FlagDocument", "ServedFlag"),
    "model.questions": (
        "CallEdges",
        "Latest",
        "LogCounts",
        "LogKinds",
        "MetricLevels",
        "OperationHealthOf",
        "Question",
        "ServiceHealthOf",
    ),
    "model.scenario": (
        "Disturbance",
        "Environment",
        "Expectation",
        "ExpectedAnomaly",
        "ExpectedRootCause",
        "Fault",
        "FaultStep",
        "InvestigationStep",
        "Scenario",
        "Timing",
    ),
    "model.session": ("Budget", "SessionResult", "Status"),
    "model.telemetry": (
        "CallEdge",
        "LogCount",
        "LogKind",
        "MetricLevel",
        "OperationHealth",
        "QueryLimits",
        "ServiceHealth",
        "Table",
        "TelemetrySchema",
    ),
    "model.verdict": ("Verdict",),
    "model.windows": ("Window",),
    "plugin.fixtures": ("Diagnose", "FlagAccess", "TelemetryAccess"),
    "ports": (
        "Analyzer",
        "Clock",
        "FlagController",
        "Guidance",
        "Investigation",
        "TableExporter",
        "Target",
        "TargetSession",
        "Telemetry",
        "Traffic",
        "Transcript",
        "report_waiting",
    ),
    "runs.runner": ("PreparedScenario", "Runner"),
    "scoring.assertions": ("DiagnosedSession", "DiagnosisMissed", "SessionNotScored"),
    "secret": ("SecretText",),
}
_HOMES = {name: module for module, names in _MODULES.items() for name in names}

if not TYPE_CHECKING:  # type checkers would take every name to exist

    def __getattr__(name: str) -> object:
        """Import the module of a public name when the name is first used."""
        if name not in _HOMES:
            raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
        value: object = getattr(import_module(f"{__name__}.{_HOMES[name]}"), name)
        globals()[name] = value
        return value


def __dir__() -> list[str]:
    """List the public names, loaded or not."""
    return sorted({*globals(), *__all__})
