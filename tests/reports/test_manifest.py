"""Provenance of a run."""

import importlib
import shutil
import subprocess
import sys

import pytest
from pydantic import BaseModel

from pytest_otel_diag.model.diagnosis import Diagnosis
from pytest_otel_diag.runs import manifest as manifests
from pytest_otel_diag.runs.manifest import (
    AnalyzerIdentity,
    CodeRevision,
    Manifest,
    Setting,
    analyzer_identity,
    code_revision,
    compare_manifests,
    environment,
    hash_files,
    package_versions,
)


def git(directory, *arguments):
    identity = ["-c", "user.name=t", "-c", "user.email=t@example.invalid", "-c", "commit.gpgsign=false"]
    subprocess.run(
        [shutil.which("git"), "-C", directory, *identity, *arguments], check=True, capture_output=True
    )


def test_the_commit_and_whether_files_differ_from_it(tmp_path):
    assert code_revision(tmp_path) is None
    git(tmp_path, "init", "-q")
    assert code_revision(tmp_path) is None  # nothing committed yet
    (tmp_path / "a.py").write_text("1")
    git(tmp_path, "add", ".")
    git(tmp_path, "commit", "-qm", "first")
    clean = code_revision(tmp_path)
    assert len(clean.commit) == 40
    assert not clean.dirty
    (tmp_path / "a.py").write_text("2")
    assert code_revision(tmp_path) == CodeRevision(commit=clean.commit, dirty=True)


def test_without_git_there_is_no_revision(tmp_path, monkeypatch):
    monkeypatch.setenv("PATH", str(tmp_path))
    assert code_revision(tmp_path) is None


def test_packages_and_platform_of_this_process():
    packages = package_versions()
    assert packages["pydantic"]
    assert list(packages) == sorted(packages)
    found = environment()
    assert ".".join(map(str, sys.version_info[:3])) in found["python"]
    assert Manifest(run_id="r", started_at_ns=1, packages=packages, **found).platform


def test_a_distribution_without_a_name_is_left_out(tmp_path, monkeypatch):
    broken = tmp_path / "broken-1.0.dist-info"
    broken.mkdir()
    (broken / "METADATA").write_text("Metadata-Version: 2.1\nVersion: 1.0\n")
    monkeypatch.syspath_prepend(tmp_path)
    assert "pydantic" in package_versions()
    assert "broken" not in package_versions()


PACKAGE = {
    "__init__.py": "",
    "core.py": "class Mine:\n    async def diagnose(self, investigation):\n        ...\n",
    "notes.bin": "x",
}


def test_an_analyzer_is_known_by_the_source_of_its_package(tmp_path, monkeypatch):
    package = tmp_path / "otel_diag_agent_package"
    package.mkdir()
    for name, content in PACKAGE.items():
        (package / name).write_text(content)
    monkeypatch.syspath_prepend(tmp_path)
    mine = importlib.import_module("otel_diag_agent_package.core").Mine
    first = analyzer_identity("mine", mine())
    assert (first.id, first.source, first.version) == ("mine", "otel_diag_agent_package.core:Mine", "")
    assert analyzer_identity("mine", mine) == first
    (package / "notes.bin").write_text("changed")
    assert analyzer_identity("mine", mine()) == first
    (package / "prompt.txt").write_text("be good")
    assert analyzer_identity("mine", mine()).sha256 != first.sha256


def test_an_analyzer_in_a_single_file_is_that_file(tmp_path, monkeypatch):
    file = tmp_path / "otel_diag_agent_file.py"
    file.write_text(PACKAGE["core.py"])
    monkeypatch.syspath_prepend(tmp_path)
    mine = importlib.import_module("otel_diag_agent_file").Mine
    assert analyzer_identity("one", mine()).sha256 == hash_files(tmp_path, [file])


def test_analyzers_without_source_and_from_distributions():
    assert analyzer_identity("builtin", len).sha256 == ""
    assert analyzer_identity("odd", object()).sha256 == ""
    known = analyzer_identity("model", Diagnosis(detected=True))
    assert known.source == "pytest_otel_diag.model.diagnosis:Diagnosis"
    assert len(known.sha256) == 64
    assert analyzer_identity("pydantic", BaseModel).version.startswith("pydantic ")

    def lost():
        """A function whose file is gone."""

    lost.__code__ = lost.__code__.replace(co_filename="/nowhere/at/all.py")
    assert analyzer_identity("lost", lost).sha256 == ""


def test_hashes_depend_on_names_and_contents_alone(tmp_path):
    for name in ("b.py", "a.py"):
        (tmp_path / name).write_text(name)
    files = [tmp_path / "a.py", tmp_path / "b.py"]
    first = hash_files(tmp_path, files)
    assert hash_files(tmp_path, reversed(files)) == first
    (tmp_path / "a.py").rename(tmp_path / "c.py")
    assert hash_files(tmp_path, [tmp_path / "c.py", tmp_path / "b.py"]) != first


def made(**fields):
    return Manifest(**({"run_id": "r", "started_at_ns": 1} | fields))


def test_manifests_of_two_runs_alike_have_no_differences():
    one = made(packages={"a": "1"}, settings=(Setting(name="x", value="1", source="ini"),))
    other = made(
        run_id="other",
        started_at_ns=2,
        ended_at_ns=3,
        packages={"a": "1"},
        settings=(Setting(name="x", value="1", source="environment"),),  # the value counts, not its source
    )
    assert compare_manifests(one, other) == ()


@pytest.mark.parametrize(
    ("first", "second", "field", "matters"),
    [
        ({"recordings": {"ob": "aa"}}, {"recordings": {"ob": "bb"}}, "recordings.ob", True),
        ({"target": {"name": "shop"}}, {}, "target.name", True),
        ({"seeds": (1,)}, {"seeds": (2,)}, "seeds", True),
        ({"packages": {"a": "1"}}, {"packages": {"a": "2"}}, "packages.a", False),
        ({"python": "3.11"}, {"python": "3.12"}, "python", False),
        ({"code": CodeRevision(commit="a", dirty=False)}, {}, "code", False),
        (
            {"analyzers": (AnalyzerIdentity(id="m", sha256="a"),)},
            {"analyzers": (AnalyzerIdentity(id="m", sha256="b"),)},
            "analyzers.m",
            False,
        ),
        ({"settings": (Setting(name="x", value="1", source="ini"),)}, {}, "settings.x", False),
        ({"settings": (Setting(name="hints", value="2", source="ini"),)}, {}, "settings.hints", True),
    ],
)
def test_differences_name_the_field_and_whether_it_matters(first, second, field, matters):
    (found,) = compare_manifests(made(**first), made(**second))
    assert (found.field, found.matters) == (field, matters)
    assert found.first != found.second


def test_what_makes_runs_incomparable_comes_first():
    one = made(packages={"a": "1"}, target={"name": "shop"})
    found = compare_manifests(one, made(packages={"a": "2"}, target={"name": "live"}))
    assert [difference.field for difference in found] == ["target.name", "packages.a"]
    assert found[0].second == "live"


def test_a_git_that_hangs_or_fails_gives_no_revision(tmp_path, monkeypatch):
    program = tmp_path / "git"
    program.write_text("#!/bin/sh\nexec sleep 60\n")
    program.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:/bin:/usr/bin")
    monkeypatch.setattr(manifests, "GIT_TIMEOUT_S", 0.1)
    assert code_revision(tmp_path) is None
