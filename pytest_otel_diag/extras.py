"""Imports of optional dependencies, with an error that says how to install them."""

from __future__ import annotations

import importlib
from typing import Any, Literal

from pytest_otel_diag.errors import ConfigurationError

Extra = Literal[
    "local",
    "embedded",
    "builtin",
    "shop",
    "otlp",
    "live",
    "kubernetes",
    "agents",
    "llm",
    "html",
    "allure",
    "xdist",
]
"""The extras of this package that ``pyproject.toml`` declares."""


def install(*extras: Extra) -> str:
    """Return the command that installs *extras*."""
    return f'pip install "pytest-otel-diag[{",".join(extras)}]"'


def require(module: str, extra: Extra, purpose: str, *, alternative: str = "") -> Any:
    """Import and return *module*, which *extra* installs.

    *purpose* begins the error message, for example ``"reading recordings"``; *alternative* ends it with what
    works without the extra. Raises ConfigurationError when the module cannot be imported.
    """
    try:
        return importlib.import_module(module)
    except ImportError as error:
        otherwise = f", or {alternative}" if alternative else ""
        raise ConfigurationError(
            f"{purpose} needs {module}, which cannot be imported ({error}); run: {install(extra)}{otherwise}"
        ) from error
