"""Loads analyzers by entry-point name or ``module:attribute``; adapts functions and classes to the port."""

from __future__ import annotations

import asyncio
import importlib
import inspect
from collections.abc import Awaitable, Callable, Iterable
from functools import partial
from typing import Any, Protocol

from pytest_otel_diag.daemon import in_daemon
from pytest_otel_diag.errors import ConfigurationError, nearest
from pytest_otel_diag.extras import install
from pytest_otel_diag.model.diagnosis import Diagnosis
from pytest_otel_diag.ports import Analyzer, Investigation

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


def load_analyzer(spec: str, entry_points: Iterable[EntryPointLike]) -> Analyzer:
    """Return the analyzer named *spec*: an entry point, or ``module:attribute`` (dots allowed).

    Raises ConfigurationError naming what was found and the nearest spelling.
    """
    return as_analyzer(_from_module(spec) if ":" in spec else _from_entry_point(spec, entry_points))


def _from_entry_point(spec: str, entry_points: Iterable[EntryPointLike]) -> Any:
    by_name = {point.name: point for point in entry_points}
    if spec not in by_name:
        known = ", ".join(sorted(by_name)) or "none installed"
        raise ConfigurationError(
            f"no analyzer {spec!r}{nearest(spec, by_name)}; known: {known}; "
            "own ones are written module:attribute, for example mypkg.agents:diagnose"
        )
    try:
        return by_name[spec].load()
    except Exception as error:
        install = _INSTALLED_BY.get(spec, "")
        raise ConfigurationError(
            f"analyzer {spec!r} is installed but cannot be imported: "
            f"{type(error).__name__}: {error}{_remedy(error, install=install)}"
        ) from error


def _remedy(error: Exception, *, asked: str = "", install: str = "") -> str:
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


def _from_module(spec: str) -> Any:
    module_name, _, path = spec.partition(":")
    if not module_name or not path:
        raise ConfigurationError(f"analyzer {spec!r} is not of the form module:attribute")
    try:
        found: Any = importlib.import_module(module_name)
    except Exception as error:
        raise ConfigurationError(
            f"analyzer {spec!r}: cannot import module {module_name!r}: "
            f"{type(error).__name__}: {error}{_remedy(error, asked=module_name)}"
        ) from error
    for part in path.split("."):
        try:
            found = getattr(found, part)
        except AttributeError:
            names = [name for name in dir(found) if not name.startswith("_")]
            raise ConfigurationError(
                f"analyzer {spec!r}: {module_name!r} has no {path!r}{nearest(part, names)}"
            ) from None
    return found
