"""Every option of a run, declared once, and how its value is found.

:class:`Options` is the one declaration: pytest's command line and ini file, the environment, the settings,
the ``otel-diag`` command and the reference page derive from it. Standard library only, because the plugin's
entry module reads it at every start of pytest.
"""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from pytest_otel_diag.config.declaration import (
    ENVIRONMENT_PREFIX,
    Option,
    above_zero,
    boolean,
    choice,
    declared,
    option,
    ratio,
    share,
    tape,
    variables,
    whole_number,
)
from pytest_otel_diag.errors import ConfigurationError, nearest
from pytest_otel_diag.secret import SecretText, credential, masked, spec

Source = Literal["command line", "environment", "ini", "default"]


@dataclass(frozen=True, slots=True)
class Resolved:
    """The value of an option, where it came from, and the spelling it had there."""

    value: Any
    source: Source
    spelling: str


@dataclass(frozen=True, kw_only=True)
class Options:
    """The options of a run, in the order of ``pytest --help``."""

    target: str = option(
        str,
        "shop",
        "system under fault: shop, shop:demo=2.2,users=25, live (a running demo), or replay:PATH",
        metavar="SPEC",
    )
    analyzer: SecretText = option(
        spec,
        spec("builtin"),
        "diagnosis under test: a registered name, module:attribute, or an agent: command:…, agent:FILE.yaml, "
        "http://…, chat:MODEL@URL, llm:MODEL",
        metavar="SPEC",
    )
    isolate: bool = option(
        boolean,
        False,
        "run an analyzer written in Python in a process of its own, so that it cannot reach the test that "
        "asks it",
        flag=True,
    )
    agent_env: str = option(
        variables,
        "",
        "environment variables that isolated analyzers and commands get beside PATH, locale, proxies and "
        "certificates, such as the key of a model; separated by commas",
        metavar="NAME,…",
    )
    agent_memory_mb: int = option(
        whole_number,
        4096,
        "memory that each process of an isolated analyzer or command may use, in MiB; 0: no limit",
        metavar="N",
    )
    question: str = option(
        str,
        "",
        "file with the question for agents (command:, agent:, http:, https:) in place of the standard one",
        metavar="FILE",
    )
    repeat: int = option(above_zero(int), 1, "run every diagnosis this many times", metavar="N")
    gate: bool = option(
        boolean, False, "judge the run as a whole and set the exit code", flag=True, pytest_only=True
    )
    inconclusive: str = option(
        choice("fail", "pass"),
        "fail",
        "whether an INCONCLUSIVE gate fails the run",
        metavar="fail|pass",
    )
    store: SecretText = option(
        SecretText,
        SecretText(""),
        "ClickHouse DSN; without one, chDB runs embedded with a cache on disk",
        metavar="DSN",
    )
    cache: str = option(str, "", "folder of imported recordings and embedded stores", metavar="DIR")
    reports: str = option(str, "reports", "folder in which each run creates a folder", metavar="DIR")
    progress: str = option(
        choice("auto", "plain", "live", "off"),
        "auto",
        "progress of running sessions: live (redrawn in place), plain lines, or off; auto is live on a "
        "terminal and plain elsewhere",
        metavar="auto|plain|live|off",
        pytest_only=True,
    )
    seed: int = option(int, 0, "seed of the target and the analyzer", metavar="N")
    budget_time_s: float = option(
        above_zero(float), 600.0, "time an analyzer may take, in seconds", metavar="SECONDS"
    )
    budget_queries: int = option(above_zero(int), 200, "queries an analyzer may send", metavar="N")
    budget_cost_usd: float = option(
        above_zero(float), 1.0, "money an analyzer may spend, in US dollars", metavar="USD"
    )
    hints: int = option(
        whole_number,
        0,
        "most hints for an analyzer after wrong or missing answers; each counts as a human prompt",
        metavar="N",
    )
    max_cost: float | None = option(
        above_zero(float),
        None,
        "most that all sessions of the run may spend on models together, in US dollars; a call whose worst "
        "case exceeds what is left is not made, and its session is skipped (default: no limit)",
        metavar="USD",
    )
    llm_tape: str = option(
        tape,
        "",
        "answers of models: record:DIR writes them to a folder, replay:DIR reads them and calls nobody",
        metavar="record:DIR|replay:DIR",
    )
    llm_steps: int = option(
        above_zero(int), 40, "calls of its model that the LLM investigator may make in a session", metavar="N"
    )
    llm_tokens: int = option(
        above_zero(int),
        1_000_000,
        "tokens of all calls together that the LLM investigator may use in a session",
        metavar="N",
    )
    llm_prompts: str = option(
        str, "", "folder with prompts that replace those of the LLM investigator, by name", metavar="DIR"
    )
    chat_key: SecretText = option(
        credential,
        SecretText(""),
        "key of the endpoint of chat:, best given by the environment (default: OPENAI_API_KEY, which is sent "
        "to this machine and over https only)",
        metavar="KEY",
    )
    impact_timeout_s: float | None = option(
        above_zero(float),
        None,
        "longest wait for visible impact, in seconds (default: the scenario's)",
        metavar="SECONDS",
        legacy_environment="FEATURE_FLAG_WAIT_TIME",
    )
    impact_poll_s: float | None = option(
        above_zero(float),
        None,
        "pause between two checks for impact, in seconds (default: the scenario's)",
        metavar="SECONDS",
        legacy_environment="TELEMETRY_REFRESH_INTERVAL",
    )
    impact_threshold: float = option(
        share,
        0.1,
        "smallest rise of a service's error ratio that the wait for impact must be able to detect",
        metavar="RATIO",
        legacy_environment="IMPACT_DETECTION_THRESHOLD",
    )
    observe_s: float | None = option(
        above_zero(float),
        None,
        "length of the window under fault that the analyzer gets, in seconds (default: the scenario's)",
        metavar="SECONDS",
        legacy_environment="ANALYSIS_WINDOW_MINUTES",
        scale=60.0,
    )
    analyze_timeout_s: float | None = option(
        above_zero(float),
        None,
        "time after which a hanging analyzer is abandoned, in seconds (default: the scenario's)",
        metavar="SECONDS",
    )
    session_timeout_s: float | None = option(
        above_zero(float),
        None,
        "wall time after which a whole session is stopped and undone, in seconds (default: none)",
        metavar="SECONDS",
        legacy_environment="SESSION_TIMEOUT_MINUTES",
        scale=60.0,
    )
    max_sessions: int | None = option(
        above_zero(int),
        None,
        "most sessions that one process runs at a time (default: no limit)",
        metavar="N",
        legacy_environment="MAX_CONCURRENT_SESSIONS",
        pytest_only=True,
    )
    frontend: SecretText = option(
        SecretText,
        SecretText("http://localhost:8080"),
        "live: address of the demo's frontend-proxy, through which traffic, flagd and flagd-ui are reached",
        metavar="URL",
    )
    flags: SecretText = option(
        SecretText,
        SecretText(""),
        "live: where flags are written, file:PATH, flagd-ui:URL, configmap:NAMESPACE/NAME, command:… or "
        "class:module:attribute (default: the flagd-ui behind the frontend)",
        metavar="SPEC",
    )
    flagd: SecretText = option(
        SecretText,
        SecretText(""),
        "live: where flags are evaluated, ofrep:URL, flagd:URL or grpc:HOST:PORT (default: the flagd behind "
        "the frontend)",
        metavar="SPEC",
        legacy_environment="FLAGD_ENDPOINT",
    )
    otlp_receiver: str = option(
        str,
        "",
        "live without a ClickHouse server: addresses on which this process receives OTLP, for example "
        "http=0.0.0.0:4318,grpc=0.0.0.0:4317 (default: both ports on 127.0.0.1)",
        metavar="SPEC",
    )
    drive: bool = option(
        boolean, True, "live: send the rare requests that a fault needs to show", metavar="on|off"
    )
    restart: SecretText = option(
        SecretText,
        SecretText(""),
        "live: command that restarts a service on which a fault leaves a residual effect, with {service} in "
        "it",
        metavar="COMMAND",
    )
    state: str = option(
        str, "", "folder of the journal of open faults and of leases, one per machine", metavar="DIR"
    )
    lease_wait_s: float = option(
        above_zero(float),
        600.0,
        "longest wait while another run holds the live system, in seconds",
        metavar="SECONDS",
    )
    setup_only: bool = option(
        boolean, False, "live: turn the fault on, wait for its impact, then stop", flag=True
    )
    skip_cleanup: bool = option(
        boolean,
        False,
        "live: leave the fault on for debugging and stop the run; otel-diag heal restores the flags from the "
        "journal",
        flag=True,
        legacy_environment="AUTO_CLEANUP_ENABLED",
        inverted=True,
    )
    leaks: str = option(
        choice("keep", "redact", "refuse"),
        "keep",
        "telemetry that names the injected flag: keep it as systems emit it, redact it in what the session "
        "reads, or refuse to score the session",
        metavar="keep|redact|refuse",
    )
    record: str = option(str, "", "folder to which every session with telemetry is recorded", metavar="DIR")
    keep: str = option(
        choice("none", "failed", "all"),
        "none",
        "telemetry to keep in the folder of the run, to look at with otel-diag sql: of failed (sessions that "
        "missed, failed or were not scored) or of all sessions; without a value: failed",
        metavar="failed|all",
        bare="failed",
    )
    min_sensitivity: float = option(
        ratio, 0.90, "gate: share of faults that must be detected", metavar="RATIO"
    )
    max_false_positives: float = option(
        ratio, 0.10, "gate: share of controls that may raise an alarm", metavar="RATIO"
    )
    min_top1: float = option(
        ratio, 0.75, "gate: share of faults whose first root cause must be right", metavar="RATIO"
    )


OPTIONS: tuple[Option, ...] = declared(Options)
"""Every option of a run, in the order of ``pytest --help``."""


def resolve(
    command_line: Mapping[str, Any],
    ini: Mapping[str, str],
    environment: Mapping[str, str] | None = None,
    only: Sequence[Option] | None = None,
) -> dict[str, Resolved]:
    """Return every option with its source; command line > environment > ini > default.

    *command_line* and *ini* map ini spellings to raw values; None or an absent key means not given. *only*
    restricts the result to these options. Raises ConfigurationError that lists all bad values at once.
    """
    environ = os.environ if environment is None else environment
    resolved: dict[str, Resolved] = {}
    mistakes: list[str] = []
    for each in OPTIONS if only is None else only:
        try:
            resolved[each.name] = _resolve(each, command_line, ini, environ)
        except ValueError as error:
            mistakes.append(str(error))
    if mistakes:
        raise ConfigurationError("otel-diag options:\n  " + "\n  ".join(mistakes))
    return resolved


def misspelt_variables(environment: Mapping[str, str] | None = None) -> list[str]:
    """Return a sentence for each environment variable whose name is nearly that of an option's."""
    environ = os.environ if environment is None else environment
    known = [option.environment for option in OPTIONS]
    return [
        f"{name} is not the variable of an option, so it has no effect{hint}"
        for name in environ
        if name.startswith(ENVIRONMENT_PREFIX)
        and name not in known
        and (hint := nearest(name, known, cutoff=0.9))
    ]


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
    # An empty variable is not set: inverted, it must not become the opposite of "no".
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
            kind = "whole number" if option.parse is int else option.parse.__name__
            reason = f"must be a {kind}"
        if option.bare and spelling == option.cli:
            reason += f"; before a path write {option.cli}={option.bare}"
        raise ValueError(f"{spelling}={masked(str(raw))!r}: {reason}") from None
