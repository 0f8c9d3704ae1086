"""A whole run in wall time, in which only the services are simulated.

The real flagd serves the flags of a file. A separate process runs the shop in real time, which evaluates its
flags there and sends OTLP. Another process runs ``pytest --otel-diag-target=live`` with its own receiver and
the embedded store. Its verdicts are compared with those of the target ``shop``, in virtual time.
"""

import os
import socket
import subprocess
import sys
from collections.abc import Iterator, Mapping
from dataclasses import dataclass

import pytest

from pytest_otel_diag import catalog
from pytest_otel_diag.config.settings import Settings
from pytest_otel_diag.model.session import ImpactReason, SessionResult, Status
from pytest_otel_diag.model.verdict import Verdict
from pytest_otel_diag.targets.shop.target import ShopTarget
from pytest_otel_diag.testing.running import run_scenario
from tests.support.deadlines import deadline_s
from tests.support.flagd import Flagd

USERS = 50
REFERENCE_S = 150
"""Metrics come once a minute, and a rate needs two points of a counter."""

FLAGS = {
    "productCatalogFailure": "on",  # switched in its rule
    "cartFailure": "100%",  # switched by its default variant
}
TIMING = {
    "baseline_s": 20,
    "impact_timeout_s": 60,
    "impact_poll_s": 3,
    "observe_s": 25,
    "recover_timeout_s": 40,
    "analyze_timeout_s": 60,
}
RUN_TIMEOUT_S = deadline_s(480)


def _tests() -> str:
    lines = ["import pytest", "", f"pytestmark = pytest.mark.otel_timing(**{TIMING!r})", ""]
    for flag, variant in FLAGS.items():
        lines += [
            "",
            f"@pytest.mark.otel_flag({flag!r}, variant={variant!r})",
            f"def test_{flag}(diagnosis):",
            "    assert diagnosis.root_causes",
        ]
    return "\n".join(lines) + "\n"


@dataclass(frozen=True)
class Run:
    """The results of the run."""

    exit_code: int
    output: str
    sessions: Mapping[str, SessionResult]
    document_before: bytes
    document_after: bytes


def _free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        return int(taken.getsockname()[1])


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Run]:
    folder = tmp_path_factory.mktemp("live")
    document = folder / "flags" / "demo.flagd.json"
    document.parent.mkdir()
    document.write_bytes(catalog.demo_document("3.0"))
    before = document.read_bytes()
    (folder / "test_live.py").write_text(_tests())
    port = _free_port()
    with Flagd(document, folder / "flagd.log") as flagd, (folder / "shop.log").open("wb") as log:
        shop = subprocess.Popen(
            [
                *(sys.executable, "-m", "pytest_otel_diag.cli", "shop", "run", "--users", str(USERS)),
                *("--flagd", flagd.grpc, "--otlp", f"http://127.0.0.1:{port}", "--seed", "11"),
            ],
            stdout=log,
            stderr=subprocess.STDOUT,
        )
        try:
            done = subprocess.run(
                [
                    *(sys.executable, "-m", "pytest", "-p", "no:cacheprovider", "test_live.py"),
                    *(
                        f"--otel-diag-target=live:reference_s={REFERENCE_S}",
                        f"--otel-diag-flags=file:{document}",
                    ),
                    *(f"--otel-diag-flagd=ofrep:{flagd.ofrep}", "--otel-diag-drive=off"),
                    f"--otel-diag-otlp-receiver=http=127.0.0.1:{port}",
                    *(f"--otel-diag-state={folder / 'state'}", f"--otel-diag-reports={folder / 'reports'}"),
                ],
                check=False,
                cwd=folder,
                env={k: v for k, v in os.environ.items() if not k.startswith(("OTEL_DIAG", "PYTEST"))},
                capture_output=True,
                text=True,
                timeout=RUN_TIMEOUT_S,
            )
        finally:
            shop.terminate()
            try:
                shop.wait(30)
            except subprocess.TimeoutExpired:
                shop.kill()
        output = done.stdout + done.stderr + (folder / "shop.log").read_text()[-2000:]
        sessions = {
            result.scenario.faults[0].flag: result
            for file in (folder / "reports").glob("*/sessions.jsonl")
            for line in file.read_text().splitlines()
            if (result := SessionResult.model_validate_json(line))
        }
        yield Run(done.returncode, output, sessions, before, document.read_bytes())


@pytest.fixture(scope="module")
def virtual() -> Iterator[Mapping[str, SessionResult]]:
    """The same scenarios on the simulated shop, in virtual time."""
    rest = f"users={USERS},reference_s={REFERENCE_S}"
    target = ShopTarget.from_settings(rest, settings=Settings(), worker="")
    results = {}
    for flag, variant in FLAGS.items():
        scenario = catalog.scenario(flag, variant)
        timing = scenario.timing.model_copy(update=TIMING)
        environment = scenario.environment.model_copy(update={"users": USERS, "seed": 2})
        scenario = scenario.model_copy(update={"timing": timing, "environment": environment})
        results[flag] = run_scenario(scenario, "builtin", target=target)
    yield results
    target.close()


def test_the_run_passes(run: Run) -> None:
    assert run.exit_code == 0, run.output[-6000:]
    assert set(run.sessions) == set(FLAGS)


def test_the_document_is_back_byte_for_byte(run: Run) -> None:
    assert run.document_after == run.document_before


@pytest.mark.parametrize("flag", FLAGS)
def test_the_verdict_is_the_one_of_virtual_time(
    run: Run, virtual: Mapping[str, SessionResult], flag: str
) -> None:
    real, simulated = run.sessions[flag], virtual[flag]
    assert real.status is simulated.status is Status.SCORED, (real.reason, simulated.reason)
    assert real.impact is not None
    assert real.impact.reason is ImpactReason.VISIBLE
    assert all(proof.confirmed for proof in real.witnesses)
    assert real.cleanup is not None
    assert real.cleanup.restored
    assert real.cleanup.verified
    assert real.verdict is not None
    assert simulated.verdict is not None
    assert _right(real.verdict) == _right(simulated.verdict)


def _right(verdict: Verdict) -> dict[str, object]:
    """Return the parts of the verdict that must be the same in wall time and in virtual time.

    Not the mechanism: half a minute of a fault does not always determine it.
    """
    return {
        "detected": verdict.detected,
        "service": verdict.top1,
        "operation": verdict.operation_rank == 1,
        "query": verdict.query is not None and verdict.query.shows_culprit,
        "red herring": verdict.named_red_herring,
    }
