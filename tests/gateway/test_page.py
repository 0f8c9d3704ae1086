"""The examples of the page on the gateway, run as they are."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
from pathlib import Path

import pytest

from pytest_otel_diag.gateway import environment, failures
from tests.support.deadlines import deadline_s

PAGE = (Path(__file__).parents[2] / "docs" / "agents" / "gateway.md").read_text(encoding="utf-8")
(FUNCTION,) = re.findall(r"```sh\n(.*?)```", PAGE, re.DOTALL)
COMMANDS = re.findall(r"```console\n\$ (.*?)```", PAGE, re.DOTALL)


@pytest.mark.skipif(shutil.which("curl") is None, reason="needs curl")
def test_the_commands_work_in_order(access):
    question, query, diagnosis = (json.loads(_run(command, access)) for command in COMMANDS)
    assert query["columns"] == ["spans"]
    assert query["rows"][0][0] > 0
    assert set(question["incident"]) == {"start_ns", "end_ns"}
    assert diagnosis == {"status": "accepted"}
    assert access.toolbox.submitted["root_causes"] == [{"service": "middle", "mechanism": "error"}]


def _run(command: str, access) -> str:
    variables = {"PATH": os.environ["PATH"], **environment(access)}
    done = subprocess.run(
        ["sh", "-c", FUNCTION + command],
        env=variables,
        capture_output=True,
        text=True,
        check=True,
        timeout=deadline_s(10),
    )
    return done.stdout


def test_the_page_lists_every_path_and_kind_of_error(client):
    paths = client.get("/openapi.json").json()["paths"]
    named = [path for path in paths if not path.startswith("/v1/tools/")]
    assert [path for path in named if f"{path}`" not in PAGE] == []
    assert [kind for kind in failures.KINDS if f"`{kind}`" not in PAGE] == []
