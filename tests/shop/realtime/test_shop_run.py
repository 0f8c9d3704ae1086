"""The shop in real time: flags from outside, a collector over a real connection."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from pytest_otel_diag import catalog
from pytest_otel_diag.cli.real_time_shop import Order, Variation, run
from pytest_otel_diag.errors import ConfigurationError
from pytest_otel_diag.flags.document import FlagdDocument
from pytest_otel_diag.shop.realtime import status
from pytest_otel_diag.shop.realtime.endpoint import OtlpEndpoint
from pytest_otel_diag.shop.realtime.export import ExportCounts
from pytest_otel_diag.shop.records import Batch
from tests.support.deadlines import deadline_s
from tests.support.flagd import Flagd
from tests.support.flagd_stand_in import FlagdStandIn
from tests.support.otlp_collector import OtlpCollector, otlp_collector

WAIT_S = deadline_s(15)
BUSY = Variation("3.0", 40, 0, 3)


@pytest.fixture
def collector() -> Iterator[OtlpCollector]:
    with otlp_collector() as collector:
        yield collector


def document(variant: str) -> bytes:
    made = FlagdDocument(catalog.demo_document("3.0"))
    made.change("paymentFailure", variant)
    return made.raw


def charges(got: Batch) -> list[str]:
    return [s.status for s in got.spans if s.resource.service == "payment" and s.kind == "Server"]


@contextmanager
def stopped_when(collector: OtlpCollector, condition: Callable[[Batch], bool]) -> Iterator[list[bool]]:
    """Send this process SIGTERM once *condition* holds for the collector, or after a long timeout."""
    seen: list[bool] = []

    def watch() -> None:
        seen.append(collector.wait(condition, WAIT_S))
        os.kill(os.getpid(), signal.SIGTERM)

    watching = threading.Thread(target=watch)
    watching.start()
    yield seen
    watching.join()


def order(collector: OtlpCollector, protocol: str = "http/protobuf", **more: object) -> Order:
    url = collector.grpc_url if protocol == "grpc" else collector.http_url
    endpoint = OtlpEndpoint.parse(url, protocol=protocol, compression="gzip")
    return Order(endpoint, BUSY, **{"duration_s": 600.0, "speed": 20.0, "every_s": 0.3, **more})  # type: ignore[arg-type]


def test_a_changed_flag_file_causes_the_fault(collector: OtlpCollector, tmp_path: Path) -> None:
    path = tmp_path / "demo.flagd.json"
    path.write_bytes(document("off"))
    lines: list[str] = []

    def failing(got: Batch) -> bool:
        if "Error" in charges(got):
            return True
        if charges(got):
            new = path.with_suffix(".new")
            new.write_bytes(document("100%"))
            new.replace(path)
        return False

    with stopped_when(collector, failing) as seen:
        assert run(order(collector, flag_file=path), lines.append) == 0
    assert seen == [True]
    assert charges(collector.received())[0] == "Unset"
    assert lines[0].startswith(
        "shop of demo 3.0, 40 users and 0 with a browser, seed 3, to http://127.0.0.1:"
    )
    assert any("flags paymentFailure=100%" in line for line in lines)


def test_a_changed_flag_of_flagd_causes_the_fault(collector: OtlpCollector) -> None:
    flagd = FlagdStandIn(document("off"))
    lines: list[str] = []

    def failing(got: Batch) -> bool:
        if charges(got) and "Error" not in charges(got):
            flagd.write(document("100%"))
        return "Error" in charges(got)

    with stopped_when(collector, failing) as seen:
        assert run(order(collector, "grpc", flagd=flagd.address), lines.append) == 0
    flagd.stop()
    assert seen == [True]
    assert any("flags at default" in line for line in lines)
    assert any("flags paymentFailure=100%" in line for line in lines)


def test_flags_of_a_real_flagd_take_effect(collector: OtlpCollector, tmp_path: Path) -> None:
    path = tmp_path / "demo.flagd.json"
    path.write_bytes(document("off"))
    changed: list[int] = []

    def failing(got: Batch) -> bool:
        if charges(got) and not changed:
            new = path.with_suffix(".new")
            new.write_bytes(document("100%"))
            new.replace(path)
            changed.append(time.time_ns())
        return "Error" in charges(got)

    with (
        Flagd(path, tmp_path / "log", provider="file") as flagd,
        stopped_when(collector, failing) as seen,
    ):
        assert run(order(collector, "grpc", flagd=flagd.grpc), print) == 0
    assert seen == [True]


def test_a_terminated_command_sends_all_records_and_reports_it(collector: OtlpCollector) -> None:
    environment = {name: value for name, value in os.environ.items() if name.startswith("COVERAGE_")}
    environment |= {"OTEL_EXPORTER_OTLP_ENDPOINT": collector.http_url, "PATH": "/usr/bin:/bin"}
    process = subprocess.Popen(
        [sys.executable, "-m", "pytest_otel_diag.cli", "shop", "run", "--users", "20", "--every", "1"],
        env=environment,
        stdout=subprocess.PIPE,
        text=True,
    )
    assert collector.wait_for_attempts(1, WAIT_S)
    process.send_signal(signal.SIGTERM)
    output, _ = process.communicate(timeout=WAIT_S)
    assert process.returncode == 0, output
    last = output.splitlines()[-1]
    sent = re.search(r"sent ([\d,]+) spans, ([\d,]+) logs, ([\d,]+) points; nothing dropped", last)
    assert sent is not None, output
    got = collector.received()
    assert [int(n.replace(",", "")) for n in sent.groups()] == [
        len(got.spans),
        len(got.logs),
        len(got.metrics),
    ]
    assert got.spans


def test_a_short_run_with_speed_ends_at_once_and_reports_lost_records(collector: OtlpCollector) -> None:
    with otlp_collector() as gone:
        url = gone.http_url
    lines: list[str] = []
    away = Order(OtlpEndpoint.parse(url), BUSY, duration_s=20.0, speed=40.0, every_s=0.1, flush_s=0.2)
    assert run(away, lines.append) == 1
    assert lines[-1].startswith("0:00:20 of the shop: sent 0 spans, 0 logs, 0 points; dropped ")
    assert lines[-1].endswith(" left at the end)")
    begun_ns = time.time_ns()
    there = Order(OtlpEndpoint.parse(collector.http_url), BUSY, duration_s=20.0, speed=40.0)
    assert run(there, lines.append) == 0
    ends = [span.start_ns + span.duration_ns for span in collector.received().spans]
    assert begun_ns - 21e9 < min(ends)
    assert max(ends) < time.time_ns() + 1e9  # clocks of hosts are skewed


def test_speed_without_a_duration_is_rejected(collector: OtlpCollector) -> None:
    with pytest.raises(ConfigurationError, match="--speed=20 without --duration"):
        run(order(collector, duration_s=None), print)


def test_the_second_signal_ends_at_once(collector: OtlpCollector) -> None:
    lines: list[str] = []

    def notices(line: str) -> None:
        lines.append(line)
        if collector.attempts and len(lines) < 100:
            lines.extend([""] * 100)
            os.kill(os.getpid(), signal.SIGTERM)
            os.kill(os.getpid(), signal.SIGINT)

    collector.fail()
    with pytest.raises(KeyboardInterrupt):
        run(order(collector, every_s=0.05, flush_s=3600.0), notices)
    assert "left at the end" in lines[-1]


def test_the_printed_flag_document_is_accepted_by_run(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "pytest_otel_diag.cli", "shop", "flags", "--demo", "2.2"]
    printed = subprocess.run(command, capture_output=True, check=True).stdout
    assert printed == catalog.demo_document("2.2")
    assert "llmRateLimitError" in json.loads(printed)["flags"]


@pytest.mark.parametrize("text", ["soon", "0s"])
def test_an_invalid_duration_is_rejected(text: str) -> None:
    command = [sys.executable, "-m", "pytest_otel_diag.cli", "shop", "run", "--duration", text]
    refused = subprocess.run(command, capture_output=True, text=True, check=False)
    assert refused.returncode == 2
    assert f"--duration='{text}': must be" in refused.stderr


def test_status_lines_report_problems() -> None:
    before = ExportCounts()
    now = ExportCounts(sent={"traces": 500, "logs": 20, "metrics": 0}, queue_full=7, unsent=3)
    shown = status.line(
        before, now, over_s=5.0, passed_s=3_725.0, behind_s=4.25, flags=status.flags([], answered=False)
    )
    assert shown == (
        "1:02:05  spans 100/s  logs 4/s  points 0/s  waiting 3  dropped 7 (7 queue full)  "
        "behind 4.2 s: this machine cannot keep up  flags at the services' defaults: no flag source"
    )
    assert "behind" not in status.line(before, now, over_s=5.0, passed_s=1.0, behind_s=0.4, flags="")
