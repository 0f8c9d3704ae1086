"""Reads ``docker/`` with the code that will read it: Compose's loader and the collector's merge.

Both are Go modules; the small program in ``tests/config_check`` is built once and cached in ``.cache``.
These tests are skipped if Go or its modules are unavailable, and fail instead if OTEL_DIAG_REQUIRE_FLAGD is
set, because a machine that can build flagd can build this program.
"""

from __future__ import annotations

import hashlib
import os
import shutil
import subprocess
import tempfile
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.project.test_docker import CASES, DOCKER, merged
from tests.support.deadlines import deadline_s

ROOT = Path(__file__).parents[2]
SOURCE = ROOT / "tests/config_check"
BUILD_TIMEOUT_S = deadline_s(120)

# The parts of the demo's compose files that the overlays change.
DEMO = {
    "services": {
        "flagd": {
            "image": "ghcr.io/open-feature/flagd:v0.16.0",
            "ports": ["8013", "8016"],
            "volumes": ["./src/flagd:/etc/flagd"],
        },
        "otel-collector": {
            "image": "collector:1",
            "command": ["--config=/etc/otelcol-config.yml", "--config=/etc/otelcol-config-extras.yml"],
            "volumes": [
                "./otelcol-config.yml:/etc/otelcol-config.yml",
                "./otelcol-config-extras.yml:/etc/otelcol-config-extras.yml",
            ],
            "environment": ["OTEL_COLLECTOR_HOST=otel-collector"],
        },
    }
}


@pytest.fixture(scope="module")
def program() -> Path:
    """Return the built program."""
    digest = hashlib.sha256()
    for name in ("main.go", "go.mod", "go.sum"):
        digest.update((SOURCE / name).read_bytes())
    made = ROOT / ".cache/config_check" / digest.hexdigest()[:16] / "config_check"
    if made.exists():
        return made
    problem = "found no go on PATH" if shutil.which("go") is None else _build(made)
    if problem:
        reason = f"Compose's and the collector's own code could not read docker/: {problem}"
        pytest.fail(reason) if os.environ.get("OTEL_DIAG_REQUIRE_FLAGD") else pytest.skip(reason)
    return made


def _build(made: Path) -> str:
    """Build the program; return the problem, an empty text for none."""
    made.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=made.parent) as folder:
        new = Path(folder) / "config_check"
        try:
            done = subprocess.run(
                ["go", "build", "-o", str(new), "."],
                cwd=SOURCE,
                env=os.environ | {"GOTOOLCHAIN": "local"},
                capture_output=True,
                text=True,
                timeout=BUILD_TIMEOUT_S,
                check=False,
            )
        except subprocess.TimeoutExpired:
            return f"it was not built within {BUILD_TIMEOUT_S:g} s"
        if done.returncode:
            return done.stderr.strip()[-500:]
        new.replace(made)
    return ""


def _read(program: Path, kind: str, *files: Path, **environment: str) -> Any:
    done = subprocess.run(
        [str(program), kind, *map(str, files)],
        env={"PATH": os.environ["PATH"], **environment},
        capture_output=True,
        text=True,
        timeout=deadline_s(30),
        check=False,
    )
    if done.returncode:
        raise ValueError(done.stderr)
    return yaml.safe_load(done.stdout)


GIVEN = {
    "OTEL_DIAG_DOCKER": str(DOCKER),
    "OTEL_DIAG_CLICKHOUSE_PASSWORD": "secret",
    "OTEL_DIAG_LABEL_STUDIO_PASSWORD": "secret",
}


@pytest.mark.parametrize("release", ["2.2", "3.0"])
@pytest.mark.parametrize("kind", ["clickhouse", "receiver"])
def test_compose_merges_the_overlays(program: Path, tmp_path: Path, release: str, kind: str) -> None:
    demo = tmp_path / "compose.yaml"
    demo.write_text(yaml.safe_dump(DEMO))
    files = [demo, DOCKER / f"demo-{release}/compose.{kind}.yaml", DOCKER / "label-studio/compose.yaml"]
    services = _read(program, "compose", *files, **GIVEN)["services"]
    collector = services["otel-collector"]
    mounts = {volume["target"]: volume["source"] for volume in collector["volumes"]}
    overlay = DOCKER / f"demo-{release}/otelcol-{kind}.yml"
    assert mounts["/etc/otelcol-config-extras.yml"] == str(overlay), "the overlay replaces the empty file"
    assert mounts["/etc/otelcol-config.yml"] == str(tmp_path / "otelcol-config.yml")
    assert collector["environment"]["OTEL_COLLECTOR_HOST"] == "otel-collector"
    assert collector["command"] == DEMO["services"]["otel-collector"]["command"]
    published = {
        port["published"]: port["host_ip"] for port in services["flagd"]["ports"] if "published" in port
    }
    assert published == {"8013": "127.0.0.1", "8016": "127.0.0.1"}
    assert services["label-studio"]["healthcheck"]["retries"] == 30
    assert ("clickhouse" in services) == (kind == "clickhouse")


def test_the_server_stands_alone(program: Path) -> None:
    services = _read(program, "compose", DOCKER / "clickhouse/compose.yaml", **GIVEN)["services"]
    assert services["clickhouse"]["environment"]["CLICKHOUSE_PASSWORD"] == "secret"


@pytest.mark.parametrize("missing", sorted(GIVEN))
def test_what_is_not_set_is_asked_for(program: Path, missing: str) -> None:
    files = [
        DOCKER / "clickhouse/compose.yaml",
        DOCKER / "demo-3.0/compose.clickhouse.yaml",
        DOCKER / "label-studio/compose.yaml",
    ]
    given = {name: value for name, value in GIVEN.items() if name != missing}
    with pytest.raises(ValueError, match=f"required variable {missing} is missing a value"):
        _read(program, "compose", *files, **given)


@pytest.mark.parametrize("name", sorted(CASES))
def test_the_collector_merges_as_we_do(program: Path, tmp_path: Path, name: str) -> None:
    layers, _ = CASES[name]
    files = []
    for number, layer in enumerate(layers):
        files.append(tmp_path / f"{number}.yml")
        files[-1].write_text(yaml.safe_dump(layer))
    overlay = DOCKER / name
    found = _read(program, "collector", *files, overlay)
    assert found == merged([*layers, yaml.safe_load(overlay.read_text())])
