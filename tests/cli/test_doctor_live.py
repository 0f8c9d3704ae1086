"""``otel-diag doctor`` on a live system: the real flagd, a small running system, a mock server."""

import asyncio
import json
import socket
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from typer.testing import CliRunner

from pytest_otel_diag import catalog
from pytest_otel_diag.cli.app import app
from pytest_otel_diag.config.settings import Settings
from pytest_otel_diag.flags.readers import flagd_grpc
from pytest_otel_diag.model.flags import FlagChange
from pytest_otel_diag.model.scenario import Fault
from pytest_otel_diag.operations import live_checks
from pytest_otel_diag.operations.checks import CheckResult
from pytest_otel_diag.targets.live.target import LiveTarget
from pytest_otel_diag.telemetry import Store
from pytest_otel_diag.telemetry.placement import ExporterTable
from tests.support.clickhouse_server import clickhouse_server
from tests.support.frontend_stand_in import frontend
from tests.support.live_demo import LiveDemo, live_demo


@pytest.fixture(scope="module")
def demo(tmp_path_factory: pytest.TempPathFactory) -> Iterator[LiveDemo]:
    with clickhouse_server() as server, Store.open(server.dsn()) as store:
        folder = tmp_path_factory.mktemp("doctor")
        with live_demo(folder, store, server.dsn()) as running:
            yield running


def checks(settings: Settings, rest: str = "") -> dict[str, CheckResult]:
    async def found() -> dict[str, CheckResult]:
        return {
            check.name: check async for check in live_checks.live_checks(rest, settings, receiver_wait_s=0.0)
        }

    return asyncio.run(found())


def states(found: dict[str, CheckResult]) -> dict[str, str]:
    return {name: check.state for name, check in found.items()}


def test_a_healthy_system_fails_no_check(demo: LiveDemo) -> None:
    before = demo.document.read_bytes()
    with frontend() as stand_in:
        found = checks(demo.settings(frontend=stand_in.url, drive="true"))
    failed = {name: check for name, check in found.items() if check.state == "failed"}
    assert not failed
    assert found["frontend"].detail.endswith("answers 200")
    assert "3.0" in found["demo"].detail
    assert found["served"].detail.endswith("flags as they are written")
    assert found["faults"].detail == "none is on"
    assert found["traces"].state == "ok"
    assert "requests a minute of frontend" in found["load"].detail
    assert found["rights"].state == "warning" and "SOURCES ON *.*" in found["rights"].detail
    assert {"store", "tables", "clock", "journal", "lease", "writable"} <= set(found)
    assert demo.document.read_bytes() == before


def test_the_exit_code_says_whether_a_check_failed(demo: LiveDemo) -> None:
    common = ["doctor", "--target", "live", "--store", demo.dsn, "--state", str(demo.state)]
    flags = ["--flags", f"file:{demo.document}", "--flagd", f"ofrep:{demo.flagd.ofrep}"]
    fine = CliRunner().invoke(app, [*common, *flags, "--frontend", "http://127.0.0.1:9", "--no-drive"])
    assert fine.exit_code == 0, fine.output
    assert "warn  frontend" in fine.output
    driven = CliRunner().invoke(app, [*common, *flags, "--frontend", "http://127.0.0.1:9"])
    assert driven.exit_code == 1
    assert "FAIL  frontend" in driven.output


def test_a_missing_package_fails_the_checks_that_need_it_and_no_others(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    flagd_grpc._library.cache_clear()
    for module in ("httpx", "grpc", "simpy"):
        monkeypatch.setitem(sys.modules, module, None)
    done = CliRunner().invoke(
        app, ["doctor", "--target", "live", "--store", "clickhouse://127.0.0.1:9/x", "--state", str(tmp_path)]
    )
    assert done.exit_code == 1, done.output
    lines = {line[6:18].strip(): line for line in done.output.splitlines()}
    for name in ("frontend", "flags"):
        assert lines[name].startswith("FAIL")
        assert lines[name].endswith('run: pip install "pytest-otel-diag[live]"')
    assert lines["store"].startswith("FAIL")
    assert lines["journal"].startswith("ok")


def test_unreadable_flags_fail(demo: LiveDemo, tmp_path: Path) -> None:
    found = checks(demo.settings(flags=f"file:{tmp_path / 'gone.json'}"))
    assert found["flags"].state == "failed"
    assert "gone.json" in found["flags"].detail
    assert found["traces"].state == "ok"


def test_flags_that_are_not_served_fail(demo: LiveDemo) -> None:
    found = checks(demo.settings(flagd="ofrep:http://127.0.0.1:9"))
    assert found["served"].state == "failed"
    assert "127.0.0.1:9" in found["served"].detail


def test_a_document_that_differs_from_the_served_one_fails(demo: LiveDemo, tmp_path: Path) -> None:
    body = json.loads(catalog.demo_document("3.0"))
    body["flags"]["paymentFailure"]["defaultVariant"] = "50%"
    body["flags"]["mine"] = {"state": "ENABLED", "variants": {"a": True, "b": False}, "defaultVariant": "a"}
    for flag in ("adFailure", "adHighCpu", "adManualGc", "cartFailure"):
        del body["flags"][flag]
    other = tmp_path / "other.json"
    other.write_text(json.dumps(body))
    found = checks(demo.settings(flags=f"file:{other}"), "demo=auto")
    assert found["served"].state == "failed"
    assert "paymentFailure" in found["served"].detail
    assert found["faults"].state == "failed"
    assert "paymentFailure=50%" in found["faults"].detail
    assert found["demo"].state == "warning"
    assert "mine" in found["demo"].detail
    body["flags"].pop("emailMemoryLeak")
    other.write_text(json.dumps(body))
    assert "and 1 more" in checks(demo.settings(flags=f"file:{other}"))["demo"].detail


def test_a_read_only_folder_fails(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(live_checks.os, "access", lambda *_: False)
    assert live_checks._writable("file:/etc/flagd/demo.json").state == "failed"
    assert "not tried" in live_checks._writable("flagd-ui:http://x/feature").detail


def test_an_unreachable_or_empty_store_fails(demo: LiveDemo) -> None:
    assert checks(demo.settings(store="clickhouse://127.0.0.1:9/x"))["store"].state == "failed"
    demo.store.create_database("empty")
    try:
        found = checks(demo.settings(store=f"{demo.dsn}empty"))
    finally:
        demo.store.drop_database("empty")
    assert states(found)["traces"] == "failed"
    assert states(found)["logs"] == "warning"
    assert "no telemetry of the last hour" in found["load"].detail


def test_tables_without_the_exporters_columns_fail(demo: LiveDemo) -> None:
    with demo.store._engine.connection() as connection:
        connection.command("CREATE DATABASE odd ENGINE = Atomic")
        connection.command("CREATE TABLE odd.otel_traces (Timestamp DateTime64(9)) ENGINE = Memory")
        connection.command("CREATE DATABASE lost ENGINE = Atomic")
        connection.command("CREATE TABLE lost.otel_logs (Timestamp DateTime64(9)) ENGINE = Memory")
    try:
        odd = checks(demo.settings(store=f"{demo.dsn}odd"))
        lost = checks(demo.settings(store=f"{demo.dsn}lost"))
    finally:
        demo.store.drop_database("odd")
        demo.store.drop_database("lost")
    assert "otel_traces lacks TraceId" in odd["columns"].detail
    assert "no otel_traces" in lost["tables"].detail


def test_clocks_that_differ_are_a_warning(demo: LiveDemo, monkeypatch: pytest.MonkeyPatch) -> None:
    clock_ns = Store.clock_ns
    monkeypatch.setattr(Store, "clock_ns", lambda store: clock_ns(store) - 20 * 10**9)
    found = checks(demo.settings())
    assert found["clock"].state == "warning"
    assert "-20." in found["clock"].detail or "-19." in found["clock"].detail
    assert "in the future" in found["traces"].detail


def test_a_damaged_journal_fails(demo: LiveDemo, tmp_path: Path) -> None:
    damaged = tmp_path / "journal" / "x.json"
    damaged.parent.mkdir()
    damaged.write_text("{")
    found = checks(demo.settings(state=tmp_path))
    assert found["journal"].state == "failed"
    assert "cannot be used" in found["journal"].detail


async def test_the_run_that_holds_the_system_is_named(demo: LiveDemo) -> None:
    target = LiveTarget.from_settings("", settings=demo.settings(), worker="main")
    scenario = target.scenario_for([Fault(flag="paymentFailure", variant="10%")])
    assert scenario is not None
    async with target.open(scenario, "x") as session:
        await session.flags.apply(FlagChange(key="paymentFailure", variant="10%"))
        found = await asyncio.to_thread(checks, demo.settings())
    target.close()
    assert "held by" in found["lease"].detail
    assert "paymentFailure=10%" in found["journal"].detail
    assert "otel-diag heal" in found["journal"].detail


def test_the_receivers_addresses_and_telemetry_are_reported(demo: LiveDemo) -> None:
    found = checks(demo.settings(store="", otlp_receiver="http=127.0.0.1:0"))
    assert found["receiver"].detail.startswith("listens on http 127.0.0.1:")
    assert found["traces"].state == "failed"
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        busy = checks(demo.settings(store="", otlp_receiver=f"http=127.0.0.1:{port}"))
    assert busy["store"].state == "failed"
    assert str(port) in busy["store"].detail


def test_a_wrong_spec_fails(demo: LiveDemo) -> None:
    assert checks(demo.settings(), "dmo=3.0")["target"].state == "failed"


def test_traces_that_are_split_over_shards_are_a_warning() -> None:
    def placed(key: str) -> CheckResult:
        table = ExporterTable("otel", "otel_traces", "Distributed", "c", "l.otel_traces", key)

        class Opened:
            tables = (table, ExporterTable("otel", "otel_logs", "Distributed", "c", "l.otel_logs"))

        (row,) = live_checks._placement(Opened())
        return row

    assert placed("cityHash64(TraceId)").state == "ok"
    spread = placed("rand()")
    assert spread.state == "warning"
    assert "would be wrong" in spread.detail
