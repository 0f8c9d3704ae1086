"""Objects that users name as ``module:attribute``, with errors that say what to correct."""

from __future__ import annotations

import importlib
from typing import Any

from pytest_otel_diag.errors import ConfigurationError, nearest


def remedy(error: Exception, *, asked: str = "", install: str = "") -> str:
    """Return what to do about a failed import, '' where the error says enough.

    *asked* is the module that the user named, *install* the command that brings what it needs.
    """
    if not isinstance(error, ModuleNotFoundError) or not error.name:
        return ""
    if asked == error.name or asked.startswith(f"{error.name}."):
        return "; check the spelling, and that its folder is on sys.path (pytest: pythonpath)"
    return f"; it needs the module {error.name!r}, which is not installed; run: " + (
        install or f"pip install with what provides {error.name!r}, or the analyzer's own optional extra"
    )


def named_object(spec: str, what: str = "analyzer") -> Any:
    """Return the object ``module:attribute`` (dots allowed); *what* it is begins the error message.

    Raises ConfigurationError naming what was found and the nearest spelling.
    """
    module_name, _, path = spec.partition(":")
    if not module_name or not path:
        raise ConfigurationError(f"{what} {spec!r} is not of the form module:attribute")
    try:
        found: Any = importlib.import_module(module_name)
    except Exception as error:
        raise ConfigurationError(
            f"{what} {spec!r}: cannot import module {module_name!r}: "
            f"{type(error).__name__}: {error}{remedy(error, asked=module_name)}"
        ) from error
    for part in path.split("."):
        try:
            found = getattr(found, part)
        except AttributeError:
            names = [name for name in dir(found) if not name.startswith("_")]
            raise ConfigurationError(
                f"{what} {spec!r}: {module_name!r} has no {path!r}{nearest(part, names)}"
            ) from None
    return found
