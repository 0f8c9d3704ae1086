"""Finds report writers by name, built-in and registered by other packages."""

from __future__ import annotations

from collections.abc import Iterable
from importlib import metadata

from pytest_otel_diag.errors import ConfigurationError, nearest
from pytest_otel_diag.reports.html import HtmlWriter
from pytest_otel_diag.reports.json_report import JsonWriter
from pytest_otel_diag.reports.markdown import MarkdownWriter
from pytest_otel_diag.reports.terminal import TextWriter
from pytest_otel_diag.runs.document import ReportWriter

GROUP = "pytest_otel_diag.report_writers"

_BUILT_IN: tuple[ReportWriter, ...] = (TextWriter(), MarkdownWriter(), HtmlWriter(), JsonWriter())


RUN_RENDERINGS = ("markdown", "html")
"""Names of the writers that render every run when it ends."""


def run_writers() -> tuple[ReportWriter, ...]:
    """Return the writers that render every run when it ends."""
    return report_writers(RUN_RENDERINGS)


def report_writers(names: Iterable[str]) -> tuple[ReportWriter, ...]:
    """Return the writers with these names in this order.

    Raises ConfigurationError for an unknown name or a writer that cannot be loaded.
    """
    built_in = {writer.name: writer for writer in _BUILT_IN}
    registered = {entry.name: entry for entry in metadata.entry_points(group=GROUP)}
    found = []
    for name in names:
        if name in built_in:
            found.append(built_in[name])
        elif name in registered:
            found.append(_load(registered[name]))
        else:
            known = [*built_in, *registered]
            raise ConfigurationError(
                f"no report writer {name!r}{nearest(name, known)}; choose from {', '.join(known)}"
            )
    return tuple(found)


def _load(entry: metadata.EntryPoint) -> ReportWriter:
    try:
        writer: ReportWriter = entry.load()()
    except Exception as problem:  # any error of a third-party package during its import
        raise ConfigurationError(
            f"report writer {entry.name!r} ({entry.value}) cannot be loaded: "
            f"{type(problem).__name__}: {problem}; update or uninstall the package that provides it"
        ) from problem
    return writer
