"""Settings of a run: resolved options as typed values."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Self

from pytest_otel_diag.config.options import OPTIONS, Resolved, Source
from pytest_otel_diag.model.base import Model, Ratio
from pytest_otel_diag.model.scenario import Timing
from pytest_otel_diag.model.session import Budget

_TIMING = ("impact_timeout_s", "impact_poll_s", "observe_s", "analyze_timeout_s")


class SettingSource(Model):
    """Where a value came from."""

    value: str
    source: Source
    spelling: str


class Settings(Model):
    """All settings; fields are the options of :mod:`pytest_otel_diag.config.options`."""

    target: str = "shop"
    analyzer: str = "builtin"
    repeat: int = 1
    gate: bool = False
    inconclusive: str = "fail"
    store: str = ""
    cache: str = ""
    reports: str = "reports"
    progress: str = "auto"
    seed: int = 0
    budget_time_s: float = 600.0
    budget_queries: int = 200
    budget_cost_usd: float = 1.0
    impact_timeout_s: float | None = None
    impact_poll_s: float | None = None
    impact_threshold: Ratio = 0.1
    observe_s: float | None = None
    analyze_timeout_s: float | None = None
    session_timeout_s: float | None = None
    max_sessions: int | None = None
    frontend: str = "http://localhost:8080"
    flags: str = ""
    flagd: str = ""
    otlp_receiver: str = ""
    drive: bool = True
    restart: str = ""
    state: str = ""
    lease_wait_s: float = 600.0
    setup_only: bool = False
    skip_cleanup: bool = False
    record: str = ""
    min_sensitivity: Ratio = 0.90
    max_false_positives: Ratio = 0.10
    min_top1: Ratio = 0.75
    sources: Mapping[str, SettingSource] = {}

    @classmethod
    def of(cls, resolved: Mapping[str, Resolved]) -> Self:
        """Return the settings for resolved options; raises pydantic's ValidationError for bad ratios."""
        sources = {
            name: SettingSource(value=str(item.value), source=item.source, spelling=item.spelling)
            for name, item in resolved.items()
        }
        return cls(**{name: item.value for name, item in resolved.items()}, sources=sources)

    @property
    def budget(self) -> Budget:
        """What an analyzer may use in one session."""
        return Budget(time_s=self.budget_time_s, queries=self.budget_queries, cost_usd=self.budget_cost_usd)

    def timing(self, scenario: Timing) -> Timing:
        """Return the scenario's timing with the values that the user set."""
        given: dict[str, Any] = {name: getattr(self, name) for name in _TIMING}
        return scenario.model_copy(update={name: value for name, value in given.items() if value is not None})

    def not_default(self) -> dict[str, SettingSource]:
        """Return the settings that somebody set, in the order of the options."""
        return {
            option.name: self.sources[option.name]
            for option in OPTIONS
            if option.name in self.sources and self.sources[option.name].source != "default"
        }

    def cache_dir(self, environment: Mapping[str, str] | None = None) -> Path:
        """Return the cache folder: the setting, else ``otel-diag`` in the user's cache directory."""
        if self.cache:
            return Path(self.cache).expanduser().absolute()
        environ = os.environ if environment is None else environment
        base = environ.get("XDG_CACHE_HOME")
        return (Path(base) if base else Path.home() / ".cache") / "otel-diag"

    def state_dir(self, environment: Mapping[str, str] | None = None) -> Path:
        """Return the folder of journal and leases: the setting, else ``otel-diag`` in the state folder.

        All runs of a machine should share one, or they do not see each other's faults.
        """
        if self.state:
            return Path(self.state).expanduser().absolute()
        environ = os.environ if environment is None else environment
        base = environ.get("XDG_STATE_HOME")
        return (Path(base) if base else Path.home() / ".local" / "state") / "otel-diag"
