"""The options and how they resolve: command line > environment > ini > default, with the source kept.

Standard library only: the plugin's entry module reads this table at every pytest start.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from pytest_otel_diag.errors import ConfigurationError, nearest

Source = Literal["command line", "environment", "ini", "default"]


@dataclass(frozen=True, slots=True)
class Option:
    """One option.

    ``scale`` converts the unit of a legacy environment name into the option's unit; ``inverted`` says that
    the legacy name means the opposite.
    """

    name: str
    parse: Callable[[str], Any]
    default: Any
    help: str
    metavar: str = "VALUE"
    flag: bool = False
    legacy_environment: str | None = None
    scale: float = 1.0
    inverted: bool = False

    @property
    def cli(self) -> str:
        """Command-line spelling."""
        return f"--otel-diag-{self.name.replace('_', '-')}"

    @property
    def ini(self) -> str:
        """Spelling in pytest's ini files, and the destination on the command line."""
        return f"otel_diag_{self.name}"

    @property
    def environment(self) -> str:
        """Name of the environment variable."""
        return f"OTEL_DIAG_{self.name.upper()}"


@dataclass(frozen=True, slots=True)
class Resolved:
    """The value of an option, where it came from, and the spelling it had there."""

    value: Any
    source: Source
    spelling: str


def _positive(kind: type[int] | type[float]) -> Callable[[str], Any]:
    def parse(text: str) -> int | float:
        value = kind(text)
        if not 0 < value < float("inf"):
            raise ValueError("must be a finite number above 0")
        return value

    parse.__name__ = f"number above 0 ({kind.__name__})"
    return parse


def _ratio(text: str) -> float:
    value = float(text)
    if not 0 <= value <= 1:
        raise ValueError("must be a ratio between 0 and 1")
    return value


def _share(text: str) -> float:
    value = float(text)
    if not 0 < value <= 1:
        raise ValueError("must be a ratio above 0 and up to 1")
    return value


def _choice(*allowed: str) -> Callable[[str], str]:
    def parse(text: str) -> str:
        if text not in allowed:
            raise ValueError(f"allowed are {', '.join(allowed)}{nearest(text, allowed)}")
        return text

    parse.__name__ = "one of " + ", ".join(allowed)
    return parse


def _boolean(text: str) -> bool:
    spellings = {"1": True, "true": True, "yes": True, "on": True}
    spellings |= {"0": False, "false": False, "no": False, "off": False, "": False}
    try:
        return spellings[text.strip().lower()]
    except KeyError:
        raise ValueError("allowed are true, false, yes, no, on, off, 1, 0") from None


OPTIONS: tuple[Option, ...] = (
    Option(
        "target",
        str,
        "shop",
        "system under fault: shop, shop:demo=2.2,users=25, live (a running demo), or replay:PATH",
        "SPEC",
    ),
    Option("analyzer", str, "builtin", "diagnosis under test: a registered name or module:attribute", "SPEC"),
    Option("repeat", _positive(int), 1, "run every diagnosis this many times", "N"),
    Option("gate", _boolean, False, "judge the run as a whole and set the exit code", flag=True),
    Option(
        "inconclusive",
        _choice("fail", "pass"),
        "fail",
        "whether an INCONCLUSIVE gate fails the run",
        "fail|pass",
    ),
    Option("store", str, "", "ClickHouse DSN; empty means embedded chDB with a cache on disk", "DSN"),
    Option("cache", str, "", "folder of imported recordings and embedded stores", "DIR"),
    Option("reports", str, "reports", "folder that gets one folder a run", "DIR"),
    Option(
        "progress",
        _choice("auto", "plain", "live", "off"),
        "auto",
        "what is shown while sessions run: drawn in place on a terminal, plain lines elsewhere",
        "auto|plain|live|off",
    ),
    Option("seed", int, 0, "seed handed to target and analyzer", "N"),
    Option("budget_time_s", _positive(float), 600.0, "time an analyzer may take, in seconds", "SECONDS"),
    Option("budget_queries", _positive(int), 200, "queries an analyzer may send", "N"),
    Option("budget_cost_usd", _positive(float), 1.0, "money an analyzer may spend, in US dollars", "USD"),
    Option(
        "impact_timeout_s",
        _positive(float),
        None,
        "longest wait for visible impact, in seconds (default: the scenario's)",
        "SECONDS",
        legacy_environment="FEATURE_FLAG_WAIT_TIME",
    ),
    Option(
        "impact_poll_s",
        _positive(float),
        None,
        "pause between two looks at telemetry, in seconds (default: the scenario's)",
        "SECONDS",
        legacy_environment="TELEMETRY_REFRESH_INTERVAL",
    ),
    Option(
        "impact_threshold",
        _share,
        0.1,
        "smallest rise of a service's error ratio that the wait for impact must be able to see",
        "RATIO",
        legacy_environment="IMPACT_DETECTION_THRESHOLD",
    ),
    Option(
        "observe_s",
        _positive(float),
        None,
        "telemetry under fault that the analyzer gets, in seconds (default: the scenario's)",
        "SECONDS",
        legacy_environment="ANALYSIS_WINDOW_MINUTES",
        scale=60.0,
    ),
    Option(
        "analyze_timeout_s",
        _positive(float),
        None,
        "time after which a hanging analyzer is given up, in seconds (default: the scenario's)",
        "SECONDS",
    ),
    Option(
        "session_timeout_s",
        _positive(float),
        None,
        "wall time after which a whole session is given up and undone, in seconds (default: none)",
        "SECONDS",
        legacy_environment="SESSION_TIMEOUT_MINUTES",
        scale=60.0,
    ),
    Option(
        "max_sessions",
        _positive(int),
        None,
        "sessions that one process runs side by side at most (default: no limit)",
        "N",
        legacy_environment="MAX_CONCURRENT_SESSIONS",
    ),
    Option(
        "frontend",
        str,
        "http://localhost:8080",
        "live: where the demo's frontend-proxy answers; traffic, flagd and flagd-ui are reached through it",
        "URL",
    ),
    Option(
        "flags",
        str,
        "",
        "live: where flags are written, file:PATH, flagd-ui:URL, configmap:NAMESPACE/NAME, command:… or "
        "class:module:attribute (default: the flagd-ui behind the frontend)",
        "SPEC",
    ),
    Option(
        "flagd",
        str,
        "",
        "live: where flags are evaluated, ofrep:URL, flagd:URL or grpc:HOST:PORT (default: flagd behind the "
        "frontend)",
        "SPEC",
        legacy_environment="FLAGD_ENDPOINT",
    ),
    Option(
        "otlp_receiver",
        str,
        "",
        "live without a ClickHouse server: addresses that take OTLP, for example http=0.0.0.0:4318,"
        "grpc=0.0.0.0:4317 (default: both ports on 127.0.0.1)",
        "SPEC",
    ),
    Option(
        "drive", _boolean, True, "live: let the plugin make the rare requests that a fault needs", "on|off"
    ),
    Option(
        "restart",
        str,
        "",
        "live: command that restarts a service whose residue outlives the flag, with {service} in it",
        "COMMAND",
    ),
    Option("state", str, "", "folder of the journal of open faults and of leases, one a machine", "DIR"),
    Option(
        "lease_wait_s",
        _positive(float),
        600.0,
        "how long to wait, in seconds, while another run holds the live system",
        "SECONDS",
    ),
    Option(
        "setup_only", _boolean, False, "live: turn the fault on, wait for its impact, then stop", flag=True
    ),
    Option(
        "skip_cleanup",
        _boolean,
        False,
        "live: leave the fault on for debugging and stop the run; the journal keeps it, otel-diag heal takes "
        "it back",
        flag=True,
        legacy_environment="AUTO_CLEANUP_ENABLED",
        inverted=True,
    ),
    Option("record", str, "", "folder that gets a recording of every session with telemetry", "DIR"),
    Option("min_sensitivity", _ratio, 0.90, "gate: share of faults that must be detected", "RATIO"),
    Option("max_false_positives", _ratio, 0.10, "gate: share of controls that may raise an alarm", "RATIO"),
    Option("min_top1", _ratio, 0.75, "gate: share of faults whose first root cause must be right", "RATIO"),
)
"""Every option, in the order of ``pytest --help``."""


def resolve(
    command_line: Mapping[str, Any],
    ini: Mapping[str, str],
    environment: Mapping[str, str] | None = None,
    only: Sequence[Option] | None = None,
) -> dict[str, Resolved]:
    """Return every option with its source; raises ConfigurationError that lists all bad values at once.

    *command_line* and *ini* map ini spellings to raw values; None or an absent key means not given.
    *only* resolves just these options.
    """
    environ = os.environ if environment is None else environment
    resolved: dict[str, Resolved] = {}
    mistakes: list[str] = []
    for option in OPTIONS if only is None else only:
        try:
            resolved[option.name] = _resolve(option, command_line, ini, environ)
        except ValueError as error:
            mistakes.append(str(error))
    if mistakes:
        raise ConfigurationError("otel-diag options:\n  " + "\n  ".join(mistakes))
    return resolved


def _resolve(
    option: Option, command_line: Mapping[str, Any], ini: Mapping[str, str], environ: Mapping[str, str]
) -> Resolved:
    given = command_line.get(option.ini)
    if given is not None:
        return Resolved(_parse(option, given, option.cli), "command line", option.cli)
    if option.environment in environ:
        name = option.environment
        return Resolved(_parse(option, environ[name], name), "environment", name)
    legacy = option.legacy_environment
    # An empty value says nothing: it must not become the opposite of "no".
    if legacy is not None and (environ.get(legacy, "").strip() if option.inverted else legacy in environ):
        value = _parse(option, environ[legacy], legacy)
        meant = not value if option.inverted else value * option.scale if option.scale != 1.0 else value
        return Resolved(meant, "environment", legacy)
    if ini.get(option.ini):
        return Resolved(_parse(option, ini[option.ini], option.ini), "ini", option.ini)
    return Resolved(option.default, "default", option.cli)


def _parse(option: Option, raw: Any, spelling: str) -> Any:
    try:
        return option.parse(str(raw))
    except ValueError as error:
        reason = str(error)
        if "convert" in reason or "invalid literal" in reason:
            reason = f"must be a {option.parse.__name__.lstrip('_')}"
        raise ValueError(f"{spelling}={raw!r}: {reason}") from None
