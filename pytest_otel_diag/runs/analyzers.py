"""Opens analyzers in this process, and says what identifies them."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from typing import Any, Protocol, cast

from pytest_otel_diag.config.settings import Settings
from pytest_otel_diag.errors import ConfigurationError, nearest
from pytest_otel_diag.extras import install
from pytest_otel_diag.ports import Analyzer, DescribedAnalyzer
from pytest_otel_diag.runs.entry_points import Named, known_schemes
from pytest_otel_diag.runs.manifest import AnalyzerIdentity, analyzer_identity
from pytest_otel_diag.sessions.investigation.loading import described, from_entry_point, from_module


class AnalyzerFactory(Protocol):
    """What an entry point of the group ``pytest_otel_diag.analyzer_schemes`` provides."""

    def __call__(self, rest: str, settings: Settings) -> DescribedAnalyzer:
        """Return the analyzer for the setting ``analyzer=SCHEME:rest``.

        Raises ConfigurationError for what can be known to be wrong before a fault is injected.
        """
        ...


def open_in_process(named: Named, settings: Settings) -> DescribedAnalyzer:
    """Return an analyzer; raises ConfigurationError."""
    if named.point is None:
        return described(_of_module(named.rest))
    if not named.scheme:
        return described(from_entry_point(named.point))
    try:
        factory: AnalyzerFactory = named.point.load()
    except ModuleNotFoundError as error:
        raise ConfigurationError(
            f"analyzers {named.scheme}:… need the package {error.name!r}; run: {install('agents', 'llm')}"
        ) from error
    return factory(named.rest, settings)


def _of_module(spec: str) -> Analyzer:
    try:
        return from_module(spec)
    except ConfigurationError as error:
        missing = isinstance(error.__cause__, ModuleNotFoundError)
        module = spec.partition(":")[0]
        hint = nearest(module, known_schemes()) if missing else ""
        if not hint:
            raise
        raise ConfigurationError(f"{error}; it is no scheme of agents either{hint}") from error


def identity_of(analyzer_id: str, analyzer: DescribedAnalyzer) -> AnalyzerIdentity:
    """Return module, version and source hash of what the user wrote, and what it reports about itself."""
    written = inspect.unwrap(cast("Callable[..., Any]", analyzer))
    return analyzer_identity(analyzer_id, written, analyzer.describe())
