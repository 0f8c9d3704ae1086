"""Writes ``categories.json`` and ``environment.properties`` beside the results of a run, for Allure 2.

Both may exist already, from the project or from an earlier run; entries of others are kept.
"""

from __future__ import annotations

import json
import os
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from pytest_otel_diag.model.session import SessionResult
from pytest_otel_diag.runs.manifest import environment, package_versions

PREFIX = "otel_diag."
"""Begins each key that this module writes into the environment."""

MANY = 6
"""Values of one key that are listed; an environment is no place for a hundred seeds."""

PACKAGES = (
    "pytest-otel-diag",
    "pytest",
    "clickhouse-connect",
    "chdb-core",
    "openfeature-flagd-core",
    "simpy",
)
"""Packages whose versions are shown; ``run.json`` has all of them."""

_ESCAPES = {ord(char): f"\\{char}" for char in "\\=:#! "}

CATEGORIES: tuple[dict[str, Any], ...] = (
    {
        "name": "Missed fault",
        "matchedStatuses": ["failed"],
        "messageRegex": r"(?s).*no fault was detected.*",
    },
    {
        "name": "Wrong root cause",
        "matchedStatuses": ["failed"],
        "messageRegex": r"(?s).*(the root cause was not named|not every root cause was named"
        r"|a red herring was named first|an innocent service was blamed).*",
    },
    {
        "name": "False alarm on a control",
        "matchedStatuses": ["failed"],
        "messageRegex": r"(?s).*a fault was reported where there is none.*",
    },
    {
        "name": "Diagnosis without its proof",
        "matchedStatuses": ["failed"],
        "messageRegex": r"(?s).*(the anomaly was not found|no critical path passes here"
        r"|diagnostic query).*",
    },
    {
        "name": "Invalid session: the fault was not visible",
        "matchedStatuses": ["broken"],
        "messageRegex": r"(?s).*session not scored: invalid.*",
    },
    {
        "name": "Analyzer error",
        "matchedStatuses": ["broken"],
        "messageRegex": r"(?s).*session not scored: error \(by analyzer\).*",
    },
    {
        "name": "Infrastructure error",
        "matchedStatuses": ["broken"],
        "messageRegex": r"(?s).*session not scored: error \(by infrastructure\).*",
    },
    {
        "name": "Mistake in test or settings",
        "matchedStatuses": ["failed", "broken"],
        "messageRegex": r"(?s).*(session not scored: error \(by user\)|mistake in markers).*",
    },
)
"""Categories of failures by the message of the test; Allure matches the whole message."""


@dataclass
class Surroundings:
    """Values by key over all sessions of a run, in order of their first appearance."""

    sessions: int = 0
    values: dict[str, dict[str, None]] = field(default_factory=dict)

    def add(self, session: SessionResult) -> None:
        """Note one session."""
        self.sessions += 1
        asked, found = session.scenario.environment, session.provenance
        self._note("target", session.target)
        self._note("analyzer", session.analyzer)
        self._note("demo", asked.demo or found.get("demo", ""))
        self._note("users", str(asked.users or found.get("users", "")))
        self._note("seed", str(session.seed))

    def _note(self, key: str, value: str) -> None:
        if value:
            self.values.setdefault(key, {}).setdefault(value)

    def properties(self) -> dict[str, str]:
        """Return the environment of the run, versions included."""
        joined = {key: _listed(list(values)) for key, values in self.values.items()}
        versions = package_versions()
        return joined | environment() | {name: versions[name] for name in PACKAGES if name in versions}


def _listed(values: list[str]) -> str:
    more = f" and {len(values) - MANY} more" if len(values) > MANY else ""
    return ", ".join(values[:MANY]) + more


def write_files(folder: Path, surroundings: Surroundings) -> None:
    """Write both files into the folder of results; raises OSError."""
    folder.mkdir(parents=True, exist_ok=True)
    _write_categories(folder / "categories.json")
    _write_environment(folder / "environment.properties", surroundings)


def _write_categories(file: Path) -> None:
    names = {category["name"] for category in CATEGORIES}
    try:
        before = json.loads(file.read_text(encoding="utf-8")) if file.exists() else []
        kept = [category for category in before if category["name"] not in names]
    except (ValueError, TypeError, KeyError):
        return  # the project's own file, in a form that we do not know: leave it alone
    _replace(file, json.dumps([*CATEGORIES, *kept], indent=2))


def _write_environment(file: Path, surroundings: Surroundings) -> None:
    before = file.read_text(encoding="latin-1").splitlines() if file.exists() else []
    kept = [line for line in before if not line.startswith(PREFIX)]
    lines = [
        f"{_escaped(PREFIX + key)}={_escaped(value)}" for key, value in surroundings.properties().items()
    ]
    _replace(file, "\n".join([*kept, *lines, ""]))


def _escaped(text: str) -> str:
    """Return text for a Java properties file: ASCII on one line, with separators escaped."""
    units = text.encode("utf-16-be", "replace")
    codes = [int.from_bytes(units[at : at + 2], "big") for at in range(0, len(units), 2)]
    return "".join(_ESCAPES.get(code) or _ascii(code) for code in codes)


def _ascii(code: int) -> str:
    return chr(code) if 32 <= code < 127 else f"\\u{code:04x}"


def _replace(file: Path, text: str) -> None:
    fresh = file.with_suffix(f".{os.getpid()}.tmp")
    fresh.write_text(text, encoding="utf-8")
    fresh.replace(file)
