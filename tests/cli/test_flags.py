"""``otel-diag flags`` with the real flagd, through its file and through a mock of flagd-ui."""

import asyncio
import json
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from pytest_otel_diag.cli.app import app
from pytest_otel_diag.errors import OtelDiagError
from pytest_otel_diag.flags.surface import FlagAddress
from pytest_otel_diag.operations.manual_flags import TARGET
from pytest_otel_diag.undo.heal import HealOutcome, heal
from pytest_otel_diag.undo.journal import Entry, Journal, State
from pytest_otel_diag.undo.lease import Lease
from pytest_otel_diag.undo.owner import Owner
from tests.support.deadlines import deadline_s, eventually
from tests.support.flagd import Flagd
from tests.support.flagd_ui import Fault, FlagdUi
from tests.support.remote_flags import document, switched, variant


@dataclass
class System:
    """A document that the real flagd serves, and how to reach both."""

    path: Path
    flagd: Flagd
    state: Path
    control: str

    def run(self, *arguments: str) -> tuple[int, str]:
        """Run the command in this process; return its exit code and its output."""
        command, *rest = arguments
        options = ["--flags", self.control, "--flagd", f"ofrep:{self.flagd.ofrep}"]
        options += ["--state", str(self.state)] if command in ("set", "reset") else []
        return run("flags", command, *options, *rest)

    def listed(self) -> dict[str, Any]:
        code, said = self.run("list", "--format", "json")
        assert code in (0, 1), said
        body: dict[str, Any] = json.loads(said)
        return body

    def row(self, flag: str) -> dict[str, Any]:
        return next(row for row in self.listed()["flags"] if row["flag"] == flag)

    def journal(self) -> list[Any]:
        return list(Journal(self.state).entries())


def run(*arguments: str) -> tuple[int, str]:
    done = CliRunner().invoke(app, arguments)
    if isinstance(done.exception, OtelDiagError):  # as main() reports it
        return 2, done.output + str(done.exception)
    if done.exception is not None and not isinstance(done.exception, SystemExit):
        raise done.exception
    return done.exit_code, done.output


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Path, Flagd]]:
    path = tmp_path_factory.mktemp("flags") / "demo.flagd.json"
    path.write_bytes(document())
    with Flagd(path, tmp_path_factory.mktemp("log") / "flagd.log") as flagd:
        yield path, flagd


def put(path: Path, raw: bytes) -> None:
    fresh = path.with_name(".new")
    fresh.write_bytes(raw)
    fresh.replace(path)


@pytest.fixture
def system(served: tuple[Path, Flagd], tmp_path: Path) -> Iterator[System]:
    """Flags in a file."""
    path, flagd = served
    put(path, document())
    found = System(path, flagd, tmp_path / "state", f"file:{path}")
    assert eventually(lambda: found.listed()["agrees"])
    yield found
    put(path, document())


@pytest.fixture
def ui(system: System) -> Iterator[FlagdUi]:
    with FlagdUi(system.path, "3.0") as ui:
        system.control = f"flagd-ui:{ui.url}"
        yield ui


def test_the_table_shows_what_is_written_and_what_is_served(system: System) -> None:
    code, said = system.run("list")
    assert code == 0, said
    assert "demo 3.0 by its flags" in said
    assert "all flags as shipped" in said
    assert "off = false for product_id=OLJCESPC7Z" in " ".join(said.split())
    row = system.row("productCatalogFailure")
    assert [answer["context"] for answer in row["served"]] == [{"product_id": "OLJCESPC7Z"}, {}]
    assert system.row("dealtOut")["known"] is False
    assert system.row("loadGeneratorVUs")["served"][0]["value"] == 5


def test_a_rule_that_overrides_the_default_is_explained(system: System) -> None:
    """The demo's trap: switching the default of a flag with a rule has no effect."""
    body = json.loads(document())
    body["flags"]["productCatalogFailure"]["defaultVariant"] = "on"
    put(system.path, json.dumps(body).encode())
    assert eventually(lambda: system.listed()["agrees"])
    row = system.row("productCatalogFailure")
    assert (row["written"], row["default_variant"]) == ("off", "on")
    assert "its rule decides, not its default 'on'" in row["why"]
    assert {answer["variant"] for answer in row["served"]} == {"off"}


def test_a_disabled_flag_is_explained(system: System) -> None:
    body = json.loads(document())
    body["flags"]["adFailure"]["state"] = "DISABLED"
    put(system.path, json.dumps(body).encode())
    assert eventually(lambda: system.row("adFailure")["served"][0]["variant"] == "")
    code, said = system.run("show", "adFailure")
    assert code == 0, said
    assert "DISABLED: services use their own defaults" in said


def test_a_flag_is_shown_by_any_name(system: System) -> None:
    for name in ("productCatalogFailure", "product_catalog_failure"):
        code, said = system.run("show", name)
        assert code == 0, said
        assert "otel-diag catalog show productCatalogFailure --demo 3.0" in said
    code, said = system.run("show", "adServiceFailure", "--format", "json")
    body = json.loads(said)
    assert (code, body["flag"], body["variants"]) == (0, "adFailure", {"off": False, "on": True})
    code, said = system.run("show", "adFailur")
    assert (code, "did you mean 'adFailure'?" in said) == (2, True)
    code, said = system.run("show", "llmRateLimitError")
    assert (code, "nor any of its other names" in said) == (2, True)


def test_set_lasts_and_reset_restores_byte_for_byte(system: System) -> None:
    before = system.path.read_bytes()
    code, said = system.run("set", "adServiceFailure", "on")
    assert (code, "adFailure=on is served" in said) == (0, True)
    code, said = system.run("set", "productCatalogFailure", "on")
    assert code == 0, said
    row = system.row("productCatalogFailure")
    assert [answer["variant"] for answer in row["served"]] == ["on", "off"]
    code, said = system.run("list")
    assert "● not as shipped: adFailure, productCatalogFailure" in said
    (entry,) = system.journal()
    assert (entry.state, entry.previous, entry.keys) == (
        State.KEPT,
        before,
        ("adFailure", "productCatalogFailure"),
    )
    code, said = system.run("reset", "adServiceFailure")
    assert (
        code,
        "adFailure=on restored: the flags are as before; still set: productCatalogFailure" in said,
    ) == (
        0,
        True,
    ), said
    code, said = system.run("reset", "adFailure")
    assert (code, "cannot be restored; set by hand: productCatalogFailure" in said) == (2, True)
    code, said = system.run("reset")
    assert (code, "productCatalogFailure=on restored" in said) == (0, True)
    assert system.path.read_bytes() == before
    assert system.journal() == []
    assert system.listed()["agrees"]
    code, said = system.run("reset")
    assert (code, "nothing was set by hand here" in said) == (0, True)


def test_healing_works_from_another_folder(
    system: System, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    system.control = f"file:{system.path.name}"
    with monkeypatch.context() as there:
        there.chdir(system.path.parent)
        assert system.run("set", "adFailure", "on")[0] == 0
    monkeypatch.chdir(tmp_path)
    (healed,) = asyncio.run(heal(system.state))
    assert (healed.outcome, healed.faults) == (HealOutcome.RESTORED, "adFailure=on")
    assert system.path.read_bytes() == document()


def test_setting_a_flag_back_closes_the_journal_entry(system: System) -> None:
    assert system.run("set", "cartFailure", "50%")[0] == 0
    assert system.run("set", "cartFailure", "100%")[0] == 0
    (entry,) = system.journal()
    assert entry.changes[0].variants == ("50%", "100%")
    assert system.run("set", "cartFailure", "off")[0] == 0
    assert system.journal() == []
    assert system.path.read_bytes() == document()


def test_an_external_edit_is_kept_and_reported(system: System) -> None:
    assert system.run("set", "cartFailure", "50%")[0] == 0
    put(system.path, switched(system.path.read_bytes(), "adFailure", "on"))
    code, said = system.run("reset")
    assert (code, "EXTERNAL CHANGES" in said) == (0, True)
    assert variant(system.path.read_bytes(), "cartFailure") == "off"
    assert variant(system.path.read_bytes(), "adFailure") == "on"


def test_mistakes_change_nothing(system: System) -> None:
    wrong = {
        ("set", "cartFailur", "100%"): "did you mean 'cartFailure'?",
        ("set", "cartFailure", "100"): "did you mean '100%'?",
        ("list", "--format", "jsn"): "did you mean 'json'?",
        ("reset", "adFailure", "--all-off"): "name no flags",
    }
    for arguments, sentence in wrong.items():
        code, said = system.run(*arguments)
        assert (code, sentence in said) == (2, True), said
    assert system.path.read_bytes() == document()
    assert system.journal() == []


def test_all_off_sets_shipped_defaults_and_saves_the_document(system: System) -> None:
    body = json.loads(switched(switched(document(), "adFailure", "on"), "loadGeneratorTraffic", "off"))
    body["flags"]["mine"] = {"state": "ENABLED", "variants": {"a": 1, "b": 2}, "defaultVariant": "a"}
    body["flags"]["ruled"] = {
        "state": "ENABLED",
        "variants": {"off": 1, "b": 2},
        "defaultVariant": "off",
        "targeting": {"starts_with": [{"var": "email"}, "a"]},
    }
    there = json.dumps(body).encode()
    put(system.path, there)
    assert eventually(lambda: system.row("adFailure")["on"] and system.listed()["agrees"])
    assert system.run("set", "cartFailure", "50%")[0] == 0
    code, said = system.run("reset", "--all-off")
    assert code == 0, said
    assert "set: adFailure=off, cartFailure=off, loadGeneratorTraffic=on" in said
    assert "left as it is: mine: it has no variant that is off" in said
    assert "left as it is: ruled" in said
    (saved,) = (system.state / "saved").iterdir()
    assert str(saved) in said
    assert json.loads(saved.read_bytes()) == json.loads(switched(there, "cartFailure", "50%"))
    assert system.journal() == []
    code, said = system.run("reset", "--all-off")
    assert (code, "every flag was off already" in said) == (0, True)


def test_set_is_refused_while_a_run_holds_the_system(system: System) -> None:
    owner = Owner.here(now_ns=time.time_ns(), run_id="nightly")
    lease = Lease.take(system.state, str(system.path.resolve()), owner)
    assert lease is not None
    timer = threading.Timer(2.0, lease.release)
    try:
        code, said = system.run("set", "adFailure", "on")
        assert (code, "run nightly" in said) == (2, True)
        assert system.path.read_bytes() == document()
        timer.start()
        code, said = system.run("set", "adFailure", "on", "--lease-wait-s", "30")
        assert (code, "held by" in said, "run nightly" in said) == (0, True, True), said
    finally:
        timer.join()


def entry(system: System, **changed: Any) -> Entry:
    owner = Owner.here(now_ns=time.time_ns())
    access = FlagAddress(control=system.control, served=f"ofrep:{system.flagd.ofrep}")
    values: dict[str, Any] = {"id": "one", "target": "live", "state": State.KEPT, "previous": document()}
    values["identity"] = str(system.path.resolve())
    return Entry(
        access=access,
        owner=owner,
        started_ns=owner.since_ns,
        deadline_ns=owner.since_ns,
        **values | changed,
    )


def test_faults_of_a_run_must_be_healed_first(system: System) -> None:
    left = entry(system)
    Journal(system.state).write(left)
    for arguments in (("set", "adFailure", "on"), ("reset",), ("reset", "--all-off")):
        code, said = system.run(*arguments)
        assert (code, "otel-diag heal --state" in said) == (2, True)
    path = Journal(system.state).path(left.id)
    path.write_bytes(path.read_bytes()[:-20])
    code, said = system.run("set", "adFailure", "on")
    assert (code, "cannot be used" in said) == (2, True)
    other = entry(system, id="two", identity="elsewhere")
    path.unlink()
    Journal(system.state).write(other)
    assert system.run("reset")[0] == 0


def test_without_flagd_flags_are_listed_but_not_set(system: System) -> None:
    options = ("--flags", system.control, "--flagd", "ofrep:http://127.0.0.1:9")
    code, said = run("flags", "list", *options)
    assert (code, "the served flags cannot be read" in said, "not read" in said) == (1, True, True)
    code, said = run("flags", "show", "adFailure", *options)
    assert (code, "not read" in said) == (1, True)
    code, said = run("flags", "set", "adFailure", "on", *options, "--state", str(system.state))
    assert code == 2, said
    assert system.path.read_bytes() == document()
    assert system.journal() == []


def test_all_off_works_without_flagd_and_saves_the_document_first(system: System) -> None:
    put(system.path, switched(document(), "adFailure", "on"))
    options = ("--flags", system.control, "--flagd", "ofrep:http://127.0.0.1:9", "--state", str(system.state))
    system.state.mkdir()
    (system.state / "saved").write_text("in the way")
    code, said = run("flags", "reset", "--all-off", *options)
    assert (code, "cannot be saved" in said) == (2, True)
    assert variant(system.path.read_bytes(), "adFailure") == "on"
    (system.state / "saved").unlink()
    code, said = run("flags", "reset", "--all-off", "--wait", "0.1", *options)
    assert (code, "are not (yet) served as written" in said) == (1, True)
    assert variant(system.path.read_bytes(), "adFailure") == "off"


def test_a_flag_that_is_not_served_in_time_can_be_reset(system: System, tmp_path: Path) -> None:
    unwatched = tmp_path / "demo.flagd.json"
    unwatched.write_bytes(document())
    system.control = f"file:{unwatched}"
    code, said = system.run("set", "adFailure", "on", "--wait", "0.3")
    assert (code, "written, but not served after 0.3 s" in said) == (1, True)
    code, said = system.run("list")
    assert (code, "≠ not served as written: adFailure" in said) == (1, True)
    assert "the document says on; flagd serves a different document" in " ".join(said.split())
    code, said = system.run("reset")
    assert code == 0, said
    assert unwatched.read_bytes() == document()
    unwatched.write_bytes(switched(document(), "adFailure", "on"))
    code, said = system.run("reset", "--all-off", "--wait", str(deadline_s(10)))
    assert code == 0, said


def test_flags_that_are_served_but_not_written_are_listed(system: System, tmp_path: Path) -> None:
    body = json.loads(document())
    del body["flags"]["adFailure"]
    fewer = tmp_path / "fewer.json"
    fewer.write_text(json.dumps(body))
    system.control = f"file:{fewer}"
    row = system.row("adFailure")
    assert (row["agrees"], row["written"]) == (False, "")
    assert "not in the document" in row["why"]
    code, said = system.run("reset", "--all-off", "--wait", str(deadline_s(10)))
    assert code == 0, said


def test_set_and_reset_work_through_flagd_ui(system: System, ui: FlagdUi) -> None:
    assert system.run("set", "paymentServiceFailure", "50%")[0] == 0
    assert system.row("paymentFailure")["served"][0]["value"] == 0.5
    assert variant(system.path.read_bytes()) == "50%"
    code, said = system.run("reset")
    assert (code, "the flags are as before" in said) == (0, True)
    assert json.loads(system.path.read_bytes()) == json.loads(document())


def test_an_edit_without_flagd_ui_is_detected_and_not_overwritten(system: System, ui: FlagdUi) -> None:
    put(system.path, switched(document(), "adFailure", "on"))
    assert eventually(lambda: not system.listed()["agrees"])
    code, said = system.run("list")
    assert (code, "≠ not served as written: adFailure" in said) == (1, True)
    assert "edited without flagd-ui" in " ".join(said.split())
    code, said = system.run("set", "cartFailure", "100%")
    assert (code, "flagd serves adFailure otherwise than flagd-ui has it" in said) == (2, True)
    assert variant(system.path.read_bytes(), "adFailure") == "on"
    assert system.run("set", "cartFailure", "100%", "--force")[0] == 0
    assert variant(system.path.read_bytes(), "adFailure") == "off"


def test_a_rejected_write_leaves_no_journal_entry(system: System, ui: FlagdUi) -> None:
    ui.fail(Fault.REFUSED, method="POST")
    code, said = system.run("set", "adFailure", "on")
    assert (code, "refused the document with 413" in said) == (2, True)
    assert system.journal() == []
    ui.well()
    assert system.run("set", "adFailure", "on")[0] == 0
    ui.fail(Fault.REFUSED, method="POST")
    assert system.run("set", "cartFailure", "50%")[0] == 2
    (kept,) = system.journal()
    assert kept.keys == ("adFailure",)
    assert kept.target == TARGET
    ui.well()
    assert system.run("reset")[0] == 0


def test_flags_are_listed_where_flagd_ui_cannot_write(system: System) -> None:
    with FlagdUi(system.path, "2.1") as ui:
        system.control = f"flagd-ui:{ui.url}"
        assert system.listed()["agrees"]
        code, said = system.run("set", "adFailure", "on")
        assert (code, "is read-only" in said) == (2, True)
        assert system.journal() == []


@contextmanager
def watching(system: System, *options: str) -> Iterator[subprocess.Popen[str]]:
    """Start ``flags watch``; it is killed at the end, or at its deadline."""
    command = [sys.executable, "-m", "pytest_otel_diag.cli", "flags", "watch", "--flags", system.control]
    command += ["--flagd", f"ofrep:{system.flagd.ofrep}", "--every", "0.1", *options]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    too_late = threading.Timer(deadline_s(30), process.kill)
    too_late.start()
    try:
        yield process
    finally:
        too_late.cancel()
        process.kill()
        process.communicate()


def test_watch_prints_every_change_with_its_time(system: System) -> None:
    lines: list[dict[str, str]] = []
    with watching(system, "--format", "json") as process:

        def shows(*expected: tuple[str, str]) -> None:
            """Read until every expected change was printed."""
            missing = set(expected)
            while missing:
                line = process.stdout.readline()
                assert line, f"ended without {missing}: {lines}"
                lines.append(json.loads(line))
                missing.discard((lines[-1]["flag"], lines[-1]["change"].partition(":")[0]))

        lines.append(json.loads(process.stdout.readline()))
        assert lines[0]["flag"] == "watching"
        put(system.path, switched(document(), "productCatalogFailure", "on"))
        shows(
            ("productCatalogFailure", "written off → on"),
            ("productCatalogFailure", "served off → on for product_id=OLJCESPC7Z"),
        )
        put(system.path, b'{"flags": ')
        shows(("(flags)", "not readable"))
        body = json.loads(document())
        del body["flags"]["dealtOut"]
        put(system.path, json.dumps(body).encode())
        shows(
            ("(flags)", "readable and served again"),
            ("productCatalogFailure", "written on → off"),
            ("dealtOut", "written off → absent"),
        )
        process.send_signal(signal.SIGINT)
        assert process.wait(deadline_s(10)) == 0
    assert [line["at"] for line in lines] == sorted(line["at"] for line in lines)


def test_watch_ends_after_the_given_time(system: System) -> None:
    assert system.run("watch", "--for", "0.3", "--every", "0.1")[0] == 0


def test_watch_ends_at_ctrl_c(system: System) -> None:
    with watching(system) as process:
        assert "16 flags, not as shipped: none" in process.stdout.readline()
        process.send_signal(signal.SIGINT)
        assert process.wait(deadline_s(10)) == 0


def test_a_mistake_is_one_line_without_a_traceback(system: System, tmp_path: Path) -> None:
    command = [sys.executable, "-m", "pytest_otel_diag.cli", "flags", "list", "--flags", "fil:x"]
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=deadline_s(30))
    assert done.returncode == 2
    assert "did you mean 'file'?" in done.stderr
    assert "Traceback" not in done.stderr
    assert run("flags", "list", "--frontend", "http://127.0.0.1:9")[0] == 2
