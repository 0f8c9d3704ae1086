"""Options of the target ``shop``, from its spec and a scenario's environment."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

from pytest_otel_diag.catalog import DEFAULT_DEMO
from pytest_otel_diag.errors import ConfigurationError
from pytest_otel_diag.model.scenario import Environment
from pytest_otel_diag.shop.variation import Variation
from pytest_otel_diag.targets.spec import parse_spec

MAX_USERS = 500
MAX_BROWSER_USERS = 50


@dataclass(frozen=True, slots=True)
class ShopOptions:
    """The default shop of a target, which scenarios may override.

    ``seed`` None leaves the seed to the plan of the run. ``reference_s`` are seconds of quiet telemetry
    before each session's baseline, ``settle_s`` the seconds before that, in which caches fill and users
    spread out.
    """

    demo: str = DEFAULT_DEMO
    users: int = 5
    browser_users: int = 1
    seed: int | None = None
    jitter: bool = False
    reference_s: float = 300.0
    settle_s: float = 60.0

    @classmethod
    def parse(cls, spec: str) -> ShopOptions:
        """Return the options of ``key=value,...``; raises ConfigurationError that names the mistake."""
        return cls(**parse_spec(spec, _READERS, target="shop", example=f"demo={DEFAULT_DEMO},users=5"))

    def variation(self, environment: Environment) -> Variation:
        """Return the shop that a scenario requests."""
        chosen = {key: value for key, value in environment.model_dump().items() if value is not None}
        options = replace(self, **chosen)
        return Variation(
            demo=options.demo,
            users=options.users,
            browser_users=options.browser_users,
            seed=options.seed or 0,
            jitter=options.jitter,
        )


def _whole(low: int, high: int) -> Callable[[str, str], int]:
    def read(key: str, text: str) -> int:
        if not text.isdecimal() or not low <= int(text) <= high:
            raise ConfigurationError(
                f"{key}={text!r} of the target shop is not a whole number from {low} to {high}"
            )
        return int(text)

    return read


def _seconds(key: str, text: str) -> float:
    try:
        value = float(text)
    except ValueError:
        value = -1.0
    if not 0.0 <= value <= 86_400.0:
        raise ConfigurationError(f"{key}={text!r} of the target shop is not a number of seconds up to a day")
    return value


def _text(key: str, text: str) -> str:  # noqa: ARG001 - the readers' signature
    return text


def _truth(key: str, text: str) -> bool:
    known = {
        "true": True,
        "yes": True,
        "on": True,
        "1": True,
        "false": False,
        "no": False,
        "off": False,
        "0": False,
    }
    if text.lower() not in known:
        raise ConfigurationError(f"{key}={text!r} of the target shop is neither true nor false")
    return known[text.lower()]


_READERS: dict[str, Callable[[str, str], Any]] = {
    "demo": _text,
    "users": _whole(1, MAX_USERS),
    "browser_users": _whole(0, MAX_BROWSER_USERS),
    "seed": _whole(0, 2**63 - 1),
    "jitter": _truth,
    "reference_s": _seconds,
    "settle_s": _seconds,
}
