"""The documentation page of the catalog: its table, examples and fields."""

import re
from pathlib import Path

from typer.testing import CliRunner

from pytest_otel_diag import catalog
from pytest_otel_diag.catalog.entries import FlagEntry
from pytest_otel_diag.catalog.page import documented_demo, markdown
from pytest_otel_diag.cli.app import app

PAGE = Path(__file__).parents[2] / "docs" / "catalog.md"


def test_the_table_is_the_catalog():
    text = PAGE.read_text()
    table = text[
        text.index("<!-- flags -->\n") + len("<!-- flags -->\n") : text.index("<!-- end of flags -->")
    ]
    assert table == markdown(catalog.load()), "print it with: otel-diag catalog list --markdown"
    assert CliRunner().invoke(app, ["catalog", "list", "--markdown"]).stdout == table


def test_every_field_of_a_flag_is_explained():
    text = PAGE.read_text()
    documented = {"does", "category", "severity", "absent", "observe_s"}
    assert [
        name for name in FlagEntry.model_fields if f"`{name}`" not in text and name not in documented
    ] == []


def test_the_file_shown_extends_the_catalog(tmp_path):
    (shown,) = re.findall(r"```yaml\n(.*?)```", PAGE.read_text(), re.DOTALL)
    file = tmp_path / "bank.yaml"
    file.write_text(shown)
    known = catalog.load().extended(file)
    assert known.expectation("slowLedger", demo="bank-1").root_causes[0].service == "ledger"


def test_the_examples_of_calls_return_what_the_page_says():
    (shown,) = re.findall(r"```python\n(.*?)```", PAGE.read_text(), re.DOTALL)
    calls = [line.partition("#") for line in shown.splitlines() if line.startswith("catalog.")]
    answers = [(eval(call, {"catalog": catalog}), said.strip()) for call, _, said in calls]
    assert len(answers) == 6
    for value, said in answers[:2]:
        assert said.startswith(repr(value))


def test_a_flag_is_described_for_a_completely_known_release():
    known = catalog.load()
    assert documented_demo(known, known.flag("adFailure")) == "3.0"
    assert documented_demo(known, known.flag("loadGeneratorFloodHomepage")) == "2.2"
    assert documented_demo(known, known.flag("productCatalogLockContention")) == "3.1"
