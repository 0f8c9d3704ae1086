"""Settings of a run: the resolved options as typed values."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Self

from pytest_otel_diag.config.options import OPTIONS, Options, Resolved, Source
from pytest_otel_diag.model.scenario import Timing
from pytest_otel_diag.model.session import Budget
from pytest_otel_diag.secret import SecretText, masked

_TIMING = ("impact_timeout_s", "impact_poll_s", "observe_s", "analyze_timeout_s")


@dataclass(frozen=True, slots=True)
class SettingSource:
    """The text of a value, its credentials masked, and where it came from."""

    value: str
    source: Source
    spelling: str


@dataclass(frozen=True, kw_only=True)
class Settings(Options):
    """All options as typed values, with the source of each that was resolved.

    ``run_folder`` is the folder of the run, which all of its processes share; None outside of a run.
    """

    sources: Mapping[str, SettingSource] = field(default_factory=dict)
    run_folder: Path | None = None

    @classmethod
    def of(cls, resolved: Mapping[str, Resolved]) -> Self:
        """Return the settings for resolved options; those not among them keep their defaults."""
        sources = {
            name: SettingSource(_shown(item.value), item.source, item.spelling)
            for name, item in resolved.items()
        }
        return cls(**{name: item.value for name, item in resolved.items()}, sources=sources)

    @property
    def budget(self) -> Budget:
        """What an analyzer may use in one session."""
        return Budget(time_s=self.budget_time_s, queries=self.budget_queries, cost_usd=self.budget_cost_usd)

    def timing(self, scenario: Timing) -> Timing:
        """Return the scenario's timing, overridden by the values that the user set."""
        given: dict[str, Any] = {name: getattr(self, name) for name in _TIMING}
        return scenario.model_copy(update={name: value for name, value in given.items() if value is not None})

    def not_default(self) -> dict[str, SettingSource]:
        """Return the settings that the user set, in the order of the options."""
        return {
            option.name: self.sources[option.name]
            for option in OPTIONS
            if option.name in self.sources and self.sources[option.name].source != "default"
        }

    def cache_dir(self, environment: Mapping[str, str] | None = None) -> Path:
        """Return the cache folder: the setting, else ``otel-diag`` in the user's cache folder."""
        return _folder(self.cache, "XDG_CACHE_HOME", Path(".cache"), environment)

    def state_dir(self, environment: Mapping[str, str] | None = None) -> Path:
        """Return the folder of journal and leases: the setting, else one in the user's state folder.

        All runs on a machine should share one: runs with different folders do not see each other's faults.
        """
        return _folder(self.state, "XDG_STATE_HOME", Path(".local") / "state", environment)


def _shown(value: Any) -> str:
    return str(value) if isinstance(value, SecretText) else masked(str(value))


def _folder(setting: str, variable: str, in_home: Path, environment: Mapping[str, str] | None) -> Path:
    if setting:
        return Path(setting).expanduser().absolute()
    base = (os.environ if environment is None else environment).get(variable)
    return (Path(base) if base else Path.home() / in_home) / "otel-diag"
