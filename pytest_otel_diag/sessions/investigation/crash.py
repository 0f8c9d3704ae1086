"""Reports an analyzer that raised: one line as the reason, and the traceback of its own code."""

from __future__ import annotations

import traceback
from pathlib import Path, PurePath
from types import TracebackType

from pytest_otel_diag.daemon import ForeignExit
from pytest_otel_diag.errors import OtelDiagError
from pytest_otel_diag.sessions.ending import AnalyzerCrashed, describe, writable

TRACE_CHARS = 4000
"""Longest traceback that is kept in full; of a longer one the middle is left out."""

_MESSAGE_CHARS = 1000
_RUNNING = ("asyncio", "concurrent", "contextvars", "threading")
_PACKAGE = "pytest_otel_diag"
_ANALYZERS = f"{_PACKAGE}.analyzers"
"""The one package of ours with code of analyzers."""

_FOLDER = Path(__file__).parents[2]


def crashed(error: Exception) -> AnalyzerCrashed:
    """Return the error that ends the session: ``type: message (file.py:LINE in function)`` and the trace."""
    own = _own(error.__traceback__)
    text = shortened(" ".join(_message(error).split()))
    return AnalyzerCrashed(f"the analyzer raised {text}{_place(own)}", _formatted(error, own))


def shortened(text: str) -> str:
    """Return a message of the analyzer, cut where it is too long for a reason."""
    return text if len(text) <= _MESSAGE_CHARS else f"{text[:_MESSAGE_CHARS]}…"


def _message(error: Exception) -> str:
    """Return ``type: message``, for errors of this package too: the analyzer's author did not raise them."""
    text = describe(error)
    named = isinstance(error, OtelDiagError) and not isinstance(error, ForeignExit) and text
    return f"{type(error).__name__}: {text}" if named else text


def _own(trace: TracebackType | None) -> TracebackType | None:
    """Return the traceback without the leading frames of the code that runs the analyzer."""
    while trace is not None and (_ours(trace) or _within(trace, *_RUNNING)):
        trace = trace.tb_next
    return trace


def _place(own: TracebackType | None) -> str:
    """Return the deepest frame of the analyzer's own package, '' when it has none.

    Libraries and telemetry raise deeper; what helps is where the analyzer called them.
    """
    if own is None:
        return ""
    package, last, step = _module(own).partition(".")[0], own, own.tb_next
    while step is not None:
        if _module(step).partition(".")[0] == package and not _ours(step):
            last = step
        step = step.tb_next
    code = last.tb_frame.f_code
    return writable(f" ({PurePath(code.co_filename).name}:{last.tb_lineno} in {code.co_name})")


def _formatted(error: Exception, own: TracebackType | None) -> str:
    shown = traceback.TracebackException(type(error), error, own)
    _leave_ours_out(shown)
    text = writable("".join(shown.format())).rstrip()
    if len(text) <= TRACE_CHARS:
        return text
    gap = "\n  [...]\n"
    half = (TRACE_CHARS - len(gap)) // 2
    return f"{text[:half]}{gap}{text[-half:]}"


def _module(step: TracebackType) -> str:
    return str(step.tb_frame.f_globals.get("__name__", ""))


def _within(step: TracebackType, *packages: str) -> bool:
    name = _module(step)
    return any(name == package or name.startswith(f"{package}.") for package in packages)


def _ours(step: TracebackType) -> bool:
    return _within(step, _PACKAGE) and not _within(step, _ANALYZERS)


def _leave_ours_out(shown: traceback.TracebackException | None) -> None:
    """Remove the frames of this package, also from causes."""
    while shown is not None:
        kept = [frame for frame in shown.stack if not _our_file(Path(frame.filename))]
        shown.stack = traceback.StackSummary.from_list(kept)
        shown = shown.__cause__ or shown.__context__


def _our_file(file: Path) -> bool:
    return file.is_relative_to(_FOLDER) and not file.is_relative_to(_FOLDER / "analyzers")
