"""Opens the surface and the reader that the two texts of a FlagAddress name; each is imported on use.

``kind:rest`` names the kind and its argument. As a surface, a bare path means ``file:``. As a reader, a bare
address (``http://HOST:PORT``, ``HOST:PORT``) is probed for its protocol: see ``readers.probing``.
"""

from __future__ import annotations

import importlib
from collections.abc import Callable, Mapping
from typing import Any, cast

from pytest_otel_diag.errors import ConfigurationError, nearest
from pytest_otel_diag.flags.controller import SurfaceFlags
from pytest_otel_diag.flags.surface import FlagAddress, FlagReader, Surface
from pytest_otel_diag.model.base import Nanos
from pytest_otel_diag.secret import masked

_HERE = "pytest_otel_diag.flags"

SURFACES: Mapping[str, str] = {
    "file": f"{_HERE}.surfaces.file:open_surface",
    "flagd-ui": f"{_HERE}.surfaces.flagd_ui:open_surface",
    "configmap": f"{_HERE}.surfaces.config_map:open_surface",
    "command": f"{_HERE}.surfaces.command:open_surface",
    "class": f"{_HERE}.surfaces.command:open_class",
}
"""Kind of surface → ``module:factory``. The factory takes the text after ``kind:``."""

READERS: Mapping[str, str] = {
    "ofrep": f"{_HERE}.readers.ofrep:open_reader",
    "flagd": f"{_HERE}.readers.flagd_http:open_reader",
    "grpc": f"{_HERE}.readers.flagd_grpc:open_reader",
    "probe": f"{_HERE}.readers.probing:open_reader",
}
"""Kind of reader → ``module:factory``, the same."""

_WRITE_CONTROL = (
    "write file:PATH, flagd-ui:URL, configmap:NAMESPACE/NAME, command:… or class:module:attribute"
)
_WRITE_SERVED = "write ofrep:URL, flagd:URL, grpc:HOST:PORT, or a bare address, which is probed"


def open_surface(control: str) -> Surface:
    """Return the surface that *control* names; raises ConfigurationError. Connects to nothing yet."""
    kind, colon, rest = control.strip().partition(":")
    if not colon or kind not in SURFACES:
        if _is_path(control.strip()):
            kind, rest = "file", control.strip()
        else:
            raise ConfigurationError(
                f"flags: {masked(control)!r} is not a place to write flags to"
                f"{_guess(kind, SURFACES)}; {_WRITE_CONTROL}"
            )
    if not rest.strip():
        raise ConfigurationError(f"flags: nothing follows {kind!r}:; {_WRITE_CONTROL}")
    return cast(Surface, _factory(SURFACES[kind])(rest.strip()))


def open_reader(served: str) -> FlagReader:
    """Return the reader that *served* names; raises ConfigurationError. Connects to nothing yet."""
    kind, colon, rest = served.strip().partition(":")
    if kind in READERS and colon:
        if not rest.strip():
            raise ConfigurationError(f"flagd: nothing follows {kind!r}:; {_WRITE_SERVED}")
        return cast(FlagReader, _factory(READERS[kind])(rest.strip()))
    if _is_address(served.strip()):
        return cast(FlagReader, _factory(READERS["probe"])(served.strip()))
    raise ConfigurationError(
        f"flagd: {masked(served)!r} does not name a service that evaluates flags"
        f"{_guess(kind, READERS)}; {_WRITE_SERVED}"
    )


def open_flags(access: FlagAddress, *, now: Callable[[], Nanos]) -> SurfaceFlags:
    """Return the flags that *access* names; ``now`` returns UTC nanoseconds and dates the answers.

    Raises ConfigurationError.
    """
    return SurfaceFlags(open_surface(access.control.reveal()), open_reader(access.served.reveal()), now=now)


def _factory(place: str) -> Callable[[str], Any]:
    module, _, name = place.partition(":")
    factory: Callable[[str], Any] = getattr(importlib.import_module(module), name)
    return factory


def _guess(kind: str, known: Mapping[str, str]) -> str:
    return nearest(kind, [name for name in known if name != "probe"])


def _is_path(text: str) -> bool:
    return text.startswith(("/", "./", "../", "~")) or (
        text.endswith((".json", ".yaml", ".yml")) and "://" not in text
    )


def _is_address(text: str) -> bool:
    if text.startswith(("http://", "https://")):
        return True
    host, colon, rest = text.rpartition(":")
    return bool(colon and host) and rest.isdigit() and "/" not in host
