"""Loads analyzers by entry-point name or ``module:attribute``; adapts functions and classes to the port."""

from __future__ import annotations

import asyncio
import inspect
from collections.abc import Awaitable, Callable, Mapping
from functools import partial
from typing import Any, Protocol

from pytest_otel_diag.daemon import in_daemon
from pytest_otel_diag.errors import ConfigurationError
from pytest_otel_diag.extras import install
from pytest_otel_diag.imports import named_object, remedy
from pytest_otel_diag.model.diagnosis import Diagnosis
from pytest_otel_diag.ports import Analyzer, DescribedAnalyzer, Investigation, PreparedAnalyzer

_SHAPES = "a class or object with diagnose(investigation), or a function of the investigation, sync or async"

_INSTALLED_BY = {"builtin": install("builtin")}
"""Name of an analyzer of this package → the command that installs what it needs."""


class EntryPointLike(Protocol):
    """The part of :class:`importlib.metadata.EntryPoint` that is used."""

    @property
    def name(self) -> str:
        """Name users write."""
        ...

    def load(self) -> Any:
        """Import the object."""
        ...


class CallableAnalyzer:
    """Adapts a function to the analyzer port.

    A sync function runs in a daemon thread without a running event loop, so it may block and may use
    ``asyncio.run(investigation.telemetry.query(...))``.
    """

    def __init__(self, call: Callable[[Investigation], Any]) -> None:
        self._call = call
        self.__wrapped__ = getattr(call, "__self__", call)  # for inspect.unwrap: what the user wrote

    async def diagnose(self, investigation: Investigation) -> Diagnosis:
        """Call the function; the session validates what it returns."""
        if inspect.iscoroutinefunction(self._call):
            return await self._call(investigation)  # type: ignore[no-any-return]  # validated by the session
        return await in_daemon(partial(_finish, self._call, investigation), "otel-diag sync analyzer")


def _finish(call: Callable[[Investigation], Any], investigation: Investigation) -> Any:
    result = call(investigation)
    return asyncio.run(_await(result)) if inspect.isawaitable(result) else result


async def _await(awaitable: Awaitable[Any]) -> Any:
    return await awaitable


def as_analyzer(obj: object) -> Analyzer:
    """Return *obj* as an analyzer; classes are instantiated without arguments.

    Raises ConfigurationError for anything that cannot be one.
    """
    if inspect.isclass(obj):
        return as_analyzer(_instance(obj))
    diagnose = getattr(obj, "diagnose", None)
    if callable(diagnose):
        _check_arity(diagnose, f"{type(obj).__name__}.diagnose")
        if inspect.iscoroutinefunction(diagnose) and isinstance(obj, Analyzer):
            return obj
        return CallableAnalyzer(diagnose)
    if callable(obj):
        _check_arity(obj, getattr(obj, "__name__", repr(obj)))
        return CallableAnalyzer(obj)
    raise ConfigurationError(f"{obj!r} ({type(obj).__name__}) is not an analyzer; pass {_SHAPES}")


def _instance(cls: type) -> object:
    if not callable(getattr(cls, "diagnose", None)) and "__call__" not in vars(cls):
        raise ConfigurationError(f"class {cls.__name__} is not an analyzer; pass {_SHAPES}")
    try:
        return cls()
    except Exception as error:
        raise ConfigurationError(
            f"cannot make the analyzer {cls.__name__}() without arguments: {error}; "
            "give defaults, or name an instance or a factory-made object instead of the class"
        ) from error


def _check_arity(call: Callable[..., Any], name: str) -> None:
    try:
        inspect.signature(call).bind(object())
    except TypeError as error:
        raise ConfigurationError(
            f"analyzer {name} cannot be called with one argument, the investigation: {error}"
        ) from error
    except ValueError:
        return  # a builtin without a signature: only calling it shows


def described(analyzer: Analyzer) -> DescribedAnalyzer:
    """Return the analyzer itself if it describes itself, else one that has nothing to add."""
    if isinstance(analyzer, DescribedAnalyzer):
        return analyzer
    return (
        _UndescribedPrepared(analyzer) if isinstance(analyzer, PreparedAnalyzer) else _Undescribed(analyzer)
    )


class _Undescribed:
    """An analyzer that holds nothing and reports nothing about itself."""

    def __init__(self, analyzer: Analyzer) -> None:
        self._analyzer = analyzer
        self.__wrapped__ = analyzer  # for inspect.unwrap: what the user wrote

    async def diagnose(self, investigation: Investigation) -> Diagnosis:
        """Let the analyzer diagnose."""
        return await self._analyzer.diagnose(investigation)

    def describe(self) -> Mapping[str, str]:
        """Return nothing."""
        return {}

    async def close(self) -> None:
        """Do nothing."""


class _UndescribedPrepared(_Undescribed):
    """The same for an analyzer that checks what it depends on."""

    def __init__(self, analyzer: PreparedAnalyzer) -> None:
        super().__init__(analyzer)
        self.prepare = analyzer.prepare


def from_entry_point(point: EntryPointLike) -> Analyzer:
    """Return the analyzer of an entry point; raises ConfigurationError that says what to install."""
    try:
        found = point.load()
    except Exception as error:
        install = _INSTALLED_BY.get(point.name, "")
        raise ConfigurationError(
            f"analyzer {point.name!r} is installed but cannot be imported: "
            f"{type(error).__name__}: {error}{remedy(error, install=install)}"
        ) from error
    return as_analyzer(found)


def from_module(spec: str) -> Analyzer:
    """Return the analyzer ``module:attribute`` (dots allowed).

    Raises ConfigurationError naming what was found and the nearest spelling.
    """
    return as_analyzer(named_object(spec))
