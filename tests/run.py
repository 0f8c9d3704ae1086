"""Runs every check of the project, slow ones in parallel: ``python -m tests.run``.

Lint, types and import contracts run in one thread while the tests run in another. Tests in wall time
(``tests/live``), which mostly wait, run in a separate process at the same time. ``--coverage`` also measures
branch coverage, which makes the simulated shop more than twice as slow.
"""

from __future__ import annotations

import argparse
import concurrent.futures
import subprocess
import sys
import time

PYTHON = sys.executable
MINIMUM_COVERAGE_PERCENT = 95
WALL_TIME = "tests/live"
"""Tests of whole runs that take minutes and little CPU."""

SLOWEST = ("--durations=30", "--durations-min=1")

CHECKS: tuple[tuple[str, list[str]], ...] = (
    ("ruff", [PYTHON, "-m", "ruff", "check", "."]),
    ("format", [PYTHON, "-m", "ruff", "format", "--check", "."]),
    ("types", [PYTHON, "-m", "mypy"]),
    ("imports", [PYTHON, "-c", "from importlinter.cli import lint_imports_command as run; run()"]),
)


def timed(name: str, command: list[str]) -> tuple[str, int, float, str]:
    """Run a command; return its name, exit code, duration in seconds and output."""
    begin = time.monotonic()
    done = subprocess.run(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, check=False)
    return name, done.returncode, time.monotonic() - begin, done.stdout


def checks() -> list[tuple[str, int, float, str]]:
    """Run the static checks in sequence."""
    return [timed(name, command) for name, command in CHECKS]


def main() -> int:
    """Run everything, print the failures, and return 1 if there are any."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--workers", default="3", help="number of test processes")
    parser.add_argument("--coverage", action="store_true", help="demand a minimum of branch coverage")
    parser.add_argument("rest", nargs="*", help="arguments for pytest")
    options = parser.parse_args()
    measured = ["-m", "coverage", "run"] if options.coverage else []
    pytest = [PYTHON, *measured, "-m", "pytest", "-q"]
    spread = ["-n", options.workers, "--dist", "loadfile", "--no-loadscope-reorder"]  # see tests/conftest.py
    others = [*spread, f"--ignore={WALL_TIME}", *SLOWEST, *options.rest]
    if options.coverage:
        subprocess.run([PYTHON, "-m", "coverage", "erase"], check=True)
    with concurrent.futures.ThreadPoolExecutor(2) as pool:
        live = pool.submit(timed, "live", [*pytest, WALL_TIME])
        static = pool.submit(checks)
        tests = subprocess.run([*pytest, *others], check=False).returncode
        results = [*static.result(), live.result()]
    if options.coverage:
        results.append(timed("combine", [PYTHON, "-m", "coverage", "combine", "-q"]))
        report = [PYTHON, "-m", "coverage", "report", f"--fail-under={MINIMUM_COVERAGE_PERCENT}"]
        results.append(timed("coverage", report))
    for name, code, seconds, output in results:
        print(f"{name:<10}{'ok' if code == 0 else 'FAILED'}  {seconds:.0f} s")
        if code or name == "coverage":
            print(output)
    print(f"{'tests':<10}{'ok' if tests == 0 else 'FAILED'}")
    return int(tests != 0 or any(code for _, code, _, _ in results))


if __name__ == "__main__":
    sys.exit(main())
