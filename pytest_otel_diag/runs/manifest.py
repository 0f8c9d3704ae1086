"""Provenance of a run: code, packages, settings, seeds, target and analyzer."""

from __future__ import annotations

import hashlib
import inspect
import platform
import shutil
import subprocess
from collections.abc import Iterable, Mapping
from functools import cache
from importlib import metadata
from pathlib import Path
from typing import Literal

from pydantic import Field

from pytest_otel_diag.model.base import Model, Nanos
from pytest_otel_diag.secret import cleaned

GIT_TIMEOUT_S = 5.0
SOURCE_SUFFIXES = frozenset({".py", ".sql", ".json", ".toml", ".txt", ".md"})


class Setting(Model):
    """A setting with its value as text and where it came from (command line, environment, ini, default)."""

    name: str
    value: str
    source: str


class CodeRevision(Model):
    """The commit under test; ``dirty`` means that files differ from it."""

    commit: str
    dirty: bool


class AnalyzerIdentity(Model):
    """Id of an analyzer, the place of its definition, its version and a hash of its source.

    ``details`` are what it reports about itself: model, hash of its prompt, parameters.
    """

    id: str
    source: str = ""
    version: str = ""
    sha256: str = ""
    details: Mapping[str, str] = Field(default_factory=dict)


class Manifest(Model):
    """Provenance of a run; ``run.json``.

    ``ended_at_ns`` is None while the run goes on, and for a run that was killed. ``gated`` is False if the
    user did not ask for the gate. ``interrupted`` names what interrupted the run, empty for a complete one.
    ``alarms`` are faults that may still be on.
    """

    schema_version: Literal[1] = 1
    run_id: str
    started_at_ns: Nanos
    ended_at_ns: Nanos | None = None
    code: CodeRevision | None = None
    packages: Mapping[str, str] = Field(default_factory=dict)
    python: str = ""
    platform: str = ""
    settings: tuple[Setting, ...] = ()
    seeds: tuple[int, ...] = ()
    target: Mapping[str, str] = Field(default_factory=dict)
    analyzers: tuple[AnalyzerIdentity, ...] = ()
    recordings: Mapping[str, str] = Field(default_factory=dict)
    gated: bool = True
    interrupted: str = ""
    alarms: tuple[str, ...] = ()


class ManifestDifference(Model):
    """A field in which two manifests differ. ``matters`` when it makes their results incomparable."""

    field: str
    first: str
    second: str
    matters: bool


def environment() -> dict[str, str]:
    """Return the ``python`` and ``platform`` fields of a manifest for this process."""
    python = f"{platform.python_implementation()} {platform.python_version()}"
    return {"python": python, "platform": platform.platform()}


def package_versions() -> dict[str, str]:
    """Return every installed distribution with its version, by normalised name."""
    found = {}
    for distribution in metadata.distributions():
        described = distribution.metadata  # parsed at each access
        # A broken installation has metadata without a name; it must not break the report. The package
        # importlib_metadata, once another one imports it, raises KeyError for a field that is missing.
        fields = {name: described[name] for name in ("Name", "Version") if described and name in described}
        if fields.get("Name"):
            found[fields["Name"].lower().replace("_", "-")] = fields.get("Version") or ""
    return dict(sorted(found.items()))


def code_revision(directory: Path) -> CodeRevision | None:
    """Return the git commit of *directory*, None without git or outside of a repository."""
    commit = _git(directory, "rev-parse", "HEAD")
    if commit is None:
        return None
    changes = _git(directory, "status", "--porcelain")
    return CodeRevision(commit=commit, dirty=changes != "")


def _git(directory: Path, *arguments: str) -> str | None:
    program = shutil.which("git")
    if program is None:
        return None
    try:
        done = subprocess.run(  # noqa: S603 (a fixed program with fixed arguments)
            [program, "-C", str(directory), *arguments],
            capture_output=True,
            check=True,
            text=True,
            timeout=GIT_TIMEOUT_S,
        )
    except (OSError, subprocess.SubprocessError):
        return None
    return done.stdout.strip()


def analyzer_identity(
    analyzer_id: str, analyzer: object, details: Mapping[str, str] | None = None
) -> AnalyzerIdentity:
    """Return id, module, version and source hash of an analyzer (an instance, a class or a function).

    The hash covers the source files of the package that defines it, or the one file where the module
    is not part of a package; it is empty where there is no source. *details* are what it reports about
    itself.
    """
    defined = analyzer if inspect.isclass(analyzer) or inspect.isroutine(analyzer) else type(analyzer)
    module = getattr(defined, "__module__", "") or ""
    return AnalyzerIdentity(
        id=analyzer_id,
        source=f"{module}:{getattr(defined, '__qualname__', type(analyzer).__qualname__)}",
        version=_version(module),
        sha256=_source_hash(defined),
        details={name: cleaned(text) for name, text in sorted((details or {}).items())},
    )


def _version(module: str) -> str:
    package = module.partition(".")[0]
    try:  # cheap, and right for most packages: the distribution is named after them
        return f"{package.replace('_', '-')} {metadata.version(package)}"
    except (metadata.PackageNotFoundError, ValueError):
        return next((f"{name} {metadata.version(name)}" for name in _distributions().get(package, ())), "")


@cache
def _distributions() -> Mapping[str, list[str]]:
    """Return the distributions that provide each top-level package; reads the files of all of them."""
    return metadata.packages_distributions()


def _source_hash(defined: object) -> str:
    try:
        source = inspect.getsourcefile(defined)  # type: ignore[arg-type]  # raises TypeError for built-ins
    except TypeError:
        source = None
    if source is None or not Path(source).is_file():
        return ""
    file = Path(source)
    packaged = (file.parent / "__init__.py").is_file()
    return hash_files(file.parent, _sources(file.parent) if packaged else [file])


def _sources(directory: Path) -> list[Path]:
    return [path for path in directory.rglob("*") if path.suffix in SOURCE_SUFFIXES and path.is_file()]


def hash_files(root: Path, files: Iterable[Path]) -> str:
    """Return the SHA-256 over names (relative to *root*) and contents, in order of name."""
    digest = hashlib.sha256()
    for path in sorted(files, key=lambda path: path.relative_to(root).as_posix()):
        content = path.read_bytes()
        digest.update(f"{path.relative_to(root).as_posix()}\0{len(content)}\0".encode())
        digest.update(content)
    return digest.hexdigest()


_MATTERS = frozenset({"target", "recordings", "seeds"})
_MATTERING_SETTINGS = frozenset({"settings.hints"})
_IGNORED = frozenset({"schema_version", "run_id", "started_at_ns", "ended_at_ns", "gated"})
_BY_KEY = ("packages", "target", "recordings")


def compare_manifests(first: Manifest, second: Manifest) -> tuple[ManifestDifference, ...]:
    """Return the differences in provenance of two runs, those that make them incomparable first.

    Analyzers may differ: comparing them is the purpose. With another target, recording or seed the scenarios
    were not the same, and with other hints the analyzer had other help.
    """
    found: list[ManifestDifference] = []
    for name in Manifest.model_fields:
        if name in _IGNORED:
            continue
        one, other = _flat(first, name), _flat(second, name)
        for key in sorted(one.keys() | other.keys()):
            if one.get(key) != other.get(key):
                found.append(
                    ManifestDifference(
                        field=key,
                        first=one.get(key, "(absent)"),
                        second=other.get(key, "(absent)"),
                        matters=name in _MATTERS or key in _MATTERING_SETTINGS,
                    )
                )
    return tuple(sorted(found, key=lambda difference: not difference.matters))


def _flat(manifest: Manifest, name: str) -> dict[str, str]:
    value = getattr(manifest, name)
    if name in _BY_KEY:
        return {f"{name}.{key}": text for key, text in value.items()}
    if name == "settings":
        return {f"settings.{setting.name}": setting.value for setting in manifest.settings}
    if name == "analyzers":
        found = {}
        for one in manifest.analyzers:
            found[f"analyzers.{one.id}"] = f"{one.version} {one.sha256[:12]}".strip()
            found |= {f"analyzers.{one.id}.{detail}": text for detail, text in one.details.items()}
        return found
    return {name: str(value)}
