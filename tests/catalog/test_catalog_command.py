"""``otel-diag catalog``: tables for people in 80 columns, JSON for machines, exit codes for CI."""

import json

import pytest
from typer.testing import CliRunner

from pytest_otel_diag import catalog
from pytest_otel_diag.cli.app import app
from pytest_otel_diag.errors import FlagError, ScenarioError
from pytest_otel_diag.flags.document import FlagdDocument
from tests.catalog.catalog_samples import FLAG


@pytest.fixture
def run():
    def command(*arguments, code=0):
        result = CliRunner().invoke(app, ["catalog", *map(str, arguments)])
        if isinstance(result.exception, Exception) and not isinstance(result.exception, SystemExit):
            raise result.exception
        assert result.exit_code == code, result.output
        return result.stdout

    return command


@pytest.fixture
def document(tmp_path):
    file = tmp_path / "demo.flagd.json"
    file.write_bytes(catalog.demo_document("3.0"))
    return file


@pytest.mark.parametrize("demo", catalog.load().demos())
def test_the_list_names_every_flag_and_fits_a_narrow_terminal(run, demo):
    text = run("list", "--demo", demo)
    for period in catalog.generation(demo).flags.values():
        assert f"\n{period.name} " in text
    assert max(map(len, text.splitlines())) <= 80
    assert all(category in text for category in ("service_failure", "performance", "system_level"))
    assert "\x1b" not in text


def test_the_list_says_which_flags_count_in_the_gate(run):
    rows = {row["flag"]: row for row in json.loads(run("list", "--json"))["flags"]}
    assert rows["adFailure"]["counts"] == "gated"
    assert rows["failedReadinessProbe"]["counts"] == "control"
    assert rows["loadGeneratorTraffic"]["counts"] == "not gated"
    assert rows["loadGeneratorTraffic"]["ungated"]
    assert rows["kafkaQueueProblems"]["root_causes"] == ["checkout", "fraud-detection"]


@pytest.mark.parametrize("flag", [flag.key for flag in catalog.load().flags])
def test_show_prints_everything_about_a_flag(run, flag):
    text = run("show", flag)
    assert max(map(len, text.splitlines())) <= 80
    words = " ".join(text.split())
    entry = catalog.flag(flag)
    for name in entry.names:
        assert name in words
    for herring in entry.expectation.red_herrings:
        assert herring.why.split()[-1] in words
    assert entry.diagnosable.why.split()[0] in words


def test_show_explains_rules_and_older_releases(run):
    assert "position 1 of its rule" in run("show", "productCatalogFailure")
    old = run("show", "cart_failure", "--demo", "1.12")
    assert "cartservice EmptyCart: error_rate up" in " ".join(old.split())
    assert old.startswith("cartServiceFailure")
    assert "emailMemoryLeak=10000x" in run("show", "emailMemoryLeak")
    assert "at 25 users" in run("show", "adFailure")
    assert "right answer" in run("show", "failedReadinessProbe")
    assert "a change of load" in run("show", "loadGeneratorVUs")
    assert "2.2" in run("show", "llmRateLimitError")
    assert "astronomy-db" not in run("show", "productCatalogFailure", "--demo", "2.0")


def test_one_flag_as_json(run):
    shown = json.loads(run("show", "paymentServiceFailure", "--json"))
    assert (shown["demo"], shown["entry"]["key"]) == ("3.0", "paymentFailure")
    assert shown["scenario"]["id"] == "paymentFailure=50%"
    assert shown["demos"][0] == "1.9"


def test_an_unknown_flag_gets_the_nearest_spelling(run):
    with pytest.raises(ScenarioError, match="did you mean 'adFailure'"):
        run("show", "adFailur")


def test_a_document_as_shipped_passes(run, document):
    text = run("check", document)
    assert "demo 3.0 fits best" in text
    assert "as shipped" in text
    assert json.loads(run("check", document, "--json"))["same"] is True


def test_a_document_that_differs_fails_and_lists_the_differences(run, document):
    flags = FlagdDocument(document.read_bytes())
    flags.change("paymentFailure", "50%")
    content = json.loads(flags.raw)
    del content["flags"]["adFailure"]
    content["flags"]["mine"] = content["flags"]["adHighCpu"]
    document.write_text(json.dumps(content))
    text = run("check", document, "--demo", "3.0", code=1)
    assert "demo 3.0 was asked for" in text
    assert "on: paymentFailure=50%" in text
    words = " ".join(text.split())
    assert "adFailure missing the document lacks it" in words
    assert "mine unknown the catalog has it in no release" in words
    assert "off in the catalog, 50% in the document (switched)" in words
    assert words.endswith("3 differences")
    shown = json.loads(run("check", document, "--json", code=1))
    assert shown["on"] == ["paymentFailure=50%"]
    assert {item["kind"] for item in shown["differences"]} == {"default", "missing", "unknown"}


def test_an_unreadable_document_is_an_error(run, tmp_path):
    with pytest.raises(FlagError, match="cannot be read"):
        run("check", tmp_path / "missing.json")
    (tmp_path / "broken.json").write_text("{}")
    with pytest.raises(FlagError, match=r"broken.json has no object 'flags'"):
        run("check", tmp_path / "broken.json")


def test_a_user_catalog_is_added(run, tmp_path):
    mine = tmp_path / "mine.yaml"
    mine.write_text(json.dumps({"flags": [FLAG]}))
    assert "paymentCacheLeak" in run("list", "--catalog", mine)
    assert "paymentCacheLeak=on" in run("show", "paymentCacheLeak", "--catalog", mine)
    assert "It exists in" not in run("show", "paymentCacheLeak", "--catalog", mine, "--demo", "3.1")
