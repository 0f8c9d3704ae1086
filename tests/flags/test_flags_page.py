"""The examples of the page on flags work."""

import json
import re
import threading
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from pytest_otel_diag.cli.app import app
from pytest_otel_diag.flags.access import READERS, SURFACES
from pytest_otel_diag.flags.surfaces.command import open_class
from pytest_otel_diag.flags.surfaces.config_map import Address
from tests.support.remote_flags import switched, variant

PAGE = (Path(__file__).parents[2] / "docs" / "flags.md").read_text()


def test_the_role_is_the_one_that_a_missing_permission_asks_for() -> None:
    (shown,) = re.findall(r"```yaml\n(.*?)```", PAGE, re.DOTALL)
    assert shown.strip() == Address("otel-demo").role()


def test_every_surface_and_reader_is_described() -> None:
    assert [kind for kind in SURFACES if f"`{kind}:" not in PAGE] == []
    assert [kind for kind in READERS if f"`{kind}:" not in PAGE and kind != "probe"] == []


def test_the_commands_are_there() -> None:
    for command in set(re.findall(r"^otel-diag flags (\w+)", PAGE, re.MULTILINE)):
        assert CliRunner().invoke(app, ["flags", command, "--help"]).exit_code == 0


async def test_the_class_reads_and_writes_a_system_over_http(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    flags = {"paymentFailure": {"off": 0, "50%": 0.5}, "adFailure": {"off": False, "on": True}}
    chosen = dict.fromkeys(flags, "off")

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            found = [{"key": key, "variants": known, "on": chosen[key]} for key, known in flags.items()]
            self.answer(json.dumps(found).encode())

        def do_PUT(self) -> None:
            chosen.update(json.loads(self.rfile.read(int(self.headers["Content-Length"]))))
            self.answer(b"{}")

        def answer(self, body: bytes) -> None:
            self.send_response(200)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_: Any) -> None:
            pass

    server = HTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True).start()
    (shown,) = [block for block in re.findall(r"```python\n(.*?)```", PAGE, re.DOTALL) if "MyFlags" in block]
    address = f"http://127.0.0.1:{server.server_address[1]}/flags"
    source = re.sub(r'url = ".*"', f'url = "{address}"', shown)
    (tmp_path / "my_flags_of_the_page.py").write_text(source)
    monkeypatch.syspath_prepend(tmp_path)
    try:
        surface = open_class("my_flags_of_the_page:MyFlags")
        assert surface.name == "flags of the shop"
        raw = await surface.read()
        await surface.write(switched(raw), expected=raw)
        assert chosen == {"paymentFailure": "50%", "adFailure": "off"}
        assert variant(await surface.read()) == "50%"
    finally:
        server.shutdown()
        server.server_close()
