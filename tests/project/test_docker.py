"""The compose file parses, pins its images and checks their health."""

import re
from pathlib import Path

import pytest
import yaml

FILES = sorted((Path(__file__).parents[2] / "docker").rglob("compose*.yaml"))


@pytest.mark.parametrize("file", FILES, ids=lambda file: file.parent.name)
def test_images_are_pinned_and_checked(file: Path) -> None:
    services = yaml.safe_load(file.read_text())["services"]
    for name, service in services.items():
        assert re.fullmatch(r"[\w./-]+:v?\d[\w.-]*", service["image"]), name
        assert service["healthcheck"]["test"], name
        assert "restart" in service or service.get("profiles"), name


def test_there_is_a_server_to_start() -> None:
    assert any("clickhouse" in file.parent.name for file in FILES)
