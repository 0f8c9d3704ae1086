"""One environment with a pytest process, for tests that kill processes."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from pytest_otel_diag import catalog
from tests.support.deadlines import deadline_s, eventually
from tests.support.flagd import Flagd
from tests.support.plugins import ALONE

HERE = Path(__file__).parent
ROOT = HERE.parents[1]
FLAG, VARIANT = "paymentFailure", "50%"

TEST = f"""
import pytest

@pytest.mark.otel_flag({FLAG!r}, variant={VARIANT!r})
@pytest.mark.otel_timing(baseline_s=60, observe_s=30, impact_timeout_s=60, recover_timeout_s=0)
def test_fault(diagnosis):
    assert diagnosis.named("payment")
"""


class Cell:
    """A folder with a flagd document, a flagd over it, a state folder, and a test that sets one fault."""

    def __init__(self, folder: Path, flagd: Flagd, document: Path) -> None:
        self.folder = folder
        self.flagd = flagd
        self.document = document
        self.original = document.read_bytes()
        self.state = folder / "state"
        # A flagd that has just started reports no flags until it has read its file.
        assert until(self.served, 10), "flagd serves no flag"
        self.variants = self.served()
        self.deadline_s = 3600.0
        self._started: list[subprocess.Popen[bytes]] = []

    def plan(self, point: str = "", act: str = "wait", run: str = "") -> dict[str, str]:
        """Return the environment variables of a process that acts at the point."""
        given = {
            "document": str(self.document),
            "ofrep": self.flagd.ofrep,
            "folder": str(self.folder),
            "point": point,
            "act": act,
            "run": run,
            "deadline_s": self.deadline_s,
        }
        kept = {name: value for name, value in os.environ.items() if not name.startswith("PYTEST_")}
        paths = [str(self.folder / "plugin"), str(ROOT), kept.get("PYTHONPATH", "")]
        own = {
            "KILLED": json.dumps(given),
            "OTEL_DIAG_STATE": str(self.state),
            "OTEL_DIAG_CACHE": str(self.folder / "cache"),
            "PYTHONPATH": os.pathsep.join(filter(None, paths)),
        }
        return kept | own

    def start(
        self,
        *options: str,
        point: str = "",
        run: str = "",
        output: str = "output",
        target: str = "killed",
    ) -> subprocess.Popen[bytes]:
        """Start pytest on the test, with its output in the file *output*."""
        command = [sys.executable, "-P", "-m", "pytest", "-q", "-p", "no:cacheprovider", *ALONE]
        command += [f"--otel-diag-target={target}", "--otel-diag-analyzer=killed_target:analyzer", *options]
        with (self.folder / output).open("w") as file:
            process = subprocess.Popen(
                command,
                cwd=self.folder / "tests",
                env=self.plan(point, "wait", run),
                stdin=subprocess.DEVNULL,
                stdout=file,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )
        self._started.append(process)
        return process

    def popen(self, *arguments: str, output: str) -> subprocess.Popen[bytes]:
        """Start ``otel-diag`` with the state of the cell, with its output in the file *output*."""
        with (self.folder / output).open("w") as file:
            process = subprocess.Popen(
                [sys.executable, "-m", "pytest_otel_diag.cli", *arguments],
                cwd=self.folder,
                env=self.plan(),
                stdout=file,
                stderr=subprocess.STDOUT,
            )
        self._started.append(process)
        return process

    def command(self, *arguments: str, timeout_s: float = 60) -> subprocess.CompletedProcess[str]:
        """Run ``otel-diag`` with the state of the cell."""
        return subprocess.run(
            [sys.executable, "-m", "pytest_otel_diag.cli", *arguments],
            cwd=self.folder,
            env=self.plan(),
            capture_output=True,
            text=True,
            timeout=deadline_s(timeout_s),
            check=False,
        )

    def reached(self, process: subprocess.Popen[bytes]) -> dict[str, int]:
        """Wait until the process is at its point."""
        path = self.folder / "reached"
        if not until(lambda: path.exists() or process.poll() is not None, 60) or not path.exists():
            process.kill()
            raise AssertionError(f"the session did not come to its point:\n{self.output}")
        found: dict[str, int] = json.loads(path.read_text())
        return found

    @property
    def output(self) -> str:
        """The output of the last process."""
        return self.printed("output")

    def printed(self, name: str) -> str:
        """The contents of the output file."""
        return (self.folder / name).read_text()

    def end(self) -> None:
        """Kill the processes; guardians then end by themselves."""
        for process in self._started:
            process.kill()
            process.wait()

    def go_on(self) -> None:
        """Let the process continue from its point."""
        (self.folder / "go on").touch()

    def again(self) -> None:
        """Prepare for another process."""
        for name in ("reached", "go on"):
            (self.folder / name).unlink(missing_ok=True)

    @property
    def entries(self) -> list[Path]:
        """The open entries of the journal."""
        return sorted((self.state / "journal").glob("*.json"))

    def served(self) -> dict[str, object]:
        """Return the variant of every flag that flagd serves now, without a context."""
        address = f"{self.flagd.ofrep}/ofrep/v1/evaluate/flags"
        request = urllib.request.Request(address, b"{}", {"Content-Type": "application/json"})
        with urllib.request.urlopen(request, timeout=deadline_s(5)) as answer:
            return {flag["key"]: flag.get("variant") for flag in json.load(answer)["flags"]}

    def as_before(self) -> bool:
        """Return whether document, served flags and journal are as before."""
        return not self.differs

    @property
    def differs(self) -> str:
        """What differs from before."""
        parts = {
            "document": self.document.read_bytes() != self.original,
            "served": self.served() != self.variants,
            "journal": bool(self.entries),
        }
        return ", ".join(name for name, other in parts.items() if other)


def until(condition: Callable[[], object], timeout_s: float) -> bool:
    """Wait for the condition, ``deadline_s(timeout_s)`` seconds at most; return whether it became true."""
    return bool(eventually(condition, timeout_s))


@contextmanager
def cell(folder: Path) -> Iterator[Cell]:
    """Make a cell in the folder, with a flagd that runs while the block does."""
    plugin = folder / "plugin"
    info = plugin / "killed_target-0.dist-info"
    for each in (folder / "tests", folder / "flags", info):
        each.mkdir(parents=True)
    (plugin / "killed_target.py").write_text((HERE / "killed_target.py").read_text())
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: killed-target\nVersion: 0\n")
    (info / "entry_points.txt").write_text("[pytest_otel_diag.targets]\nkilled = killed_target:Target\n")
    (folder / "tests" / "test_one.py").write_text(TEST)
    (folder / "tests" / "pytest.ini").write_text("[pytest]\n")
    document = folder / "flags" / "demo.flagd.json"
    document.write_bytes(catalog.demo_document("3.0"))
    with Flagd(document, folder / "flagd.log") as flagd:
        place = Cell(folder, flagd, document)
        try:
            yield place
        finally:
            place.end()
