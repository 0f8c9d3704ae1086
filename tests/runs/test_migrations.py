"""Runs of older releases stay readable."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest

from pytest_otel_diag.cli.commands.report import command
from pytest_otel_diag.model.base import to_json
from pytest_otel_diag.model.session import SessionResult, Status
from pytest_otel_diag.runs.directory import read_run
from pytest_otel_diag.runs.events import read_events
from pytest_otel_diag.runs.files import RunUnreadable
from pytest_otel_diag.runs.migrations import current_version, migrated, readable_versions
from tests.support.ended import RIGHT, result

OLD = Path(__file__).with_name("old_run")
"""A run of schema version 1: one session left its fault on as requested, the undo of the other one failed."""


def test_a_run_of_schema_version_1_is_read() -> None:
    run = read_run(OLD)
    assert run.warnings == ()
    left_on, failed = run.sessions
    assert left_on.status is Status.SCORED
    assert left_on.cleanup is not None and failed.cleanup is not None
    assert left_on.cleanup.left_on == ("paymentFailure=50%",)
    assert left_on.cleanup.recovery_command == failed.cleanup.recovery_command == "otel-diag heal"
    assert failed.cleanup.failed
    assert {session.schema_version for session in run.sessions} == {current_version(SessionResult)}
    assert read_events(OLD) == []


@pytest.mark.parametrize("output", ["text", "markdown", "html", "json"])
def test_a_run_of_schema_version_1_is_rendered(
    tmp_path: Path, output: str, capsys: pytest.CaptureFixture[str]
) -> None:
    copy = Path(shutil.copytree(OLD, tmp_path / "run"))
    command(copy, output)
    printed = capsys.readouterr().out
    shown = printed if output == "text" else Path(printed.splitlines()[-1]).read_text(encoding="utf-8")
    assert "agent:healthy" in shown


def test_the_current_version_is_left_alone() -> None:
    raw = json.loads(to_json(result(verdict=RIGHT)))
    assert migrated(SessionResult, raw) == raw


def test_every_version_up_to_the_current_one_is_readable() -> None:
    assert readable_versions(SessionResult) == tuple(range(1, current_version(SessionResult) + 1))


def test_a_newer_version_names_what_to_do(tmp_path: Path) -> None:
    copy = Path(shutil.copytree(OLD, tmp_path / "run"))
    (copy / "sessions.jsonl").write_text('{"schema_version": 99}\n')
    with pytest.raises(RunUnreadable, match=r"version 99, this release reads 2 and older; read it with"):
        read_run(copy)
