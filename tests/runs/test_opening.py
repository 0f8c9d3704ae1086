"""Analyzers are opened by the text that names them: schemes, installed names, modules."""

import sys
from types import ModuleType

import pytest

from pytest_otel_diag.config.options import resolve
from pytest_otel_diag.config.settings import Settings
from pytest_otel_diag.errors import ConfigurationError
from pytest_otel_diag.model.diagnosis import Diagnosis
from pytest_otel_diag.runs.entry_points import check_analyzer, shown
from pytest_otel_diag.runs.manifest import Manifest, compare_manifests
from pytest_otel_diag.runs.opening import open_analyzer
from pytest_otel_diag.runs.runner import Runner

FINE = Diagnosis(detected=False)
KEY = "sk-4f1c8e2a9b7d"


class Agent:
    """An agent that describes itself."""

    def __init__(self, rest, settings):
        self.rest = rest
        self.seed = settings.seed
        self.closed = 0

    async def diagnose(self, investigation):
        return FINE

    def describe(self):
        return {"model": self.rest, "prompt": "3f2a", "key": KEY}

    async def close(self):
        self.closed += 1


def picky(rest, settings):
    raise ConfigurationError(f"no agent {rest!r}")


async def plain(investigation):
    return FINE


@pytest.fixture
def module(tmp_path, monkeypatch):
    """A distribution with the schemes test and picky, in the module test_agents."""
    made = ModuleType("test_agents")
    vars(made).update(Agent=Agent, picky=picky, plain=plain)
    monkeypatch.setitem(sys.modules, "test_agents", made)
    info = tmp_path / "test_agents-1.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: test-agents\nVersion: 1.0\n")
    (info / "entry_points.txt").write_text(
        "[pytest_otel_diag.analyzer_schemes]\n"
        "test_agents = test_agents:Agent\npicky = test_agents:picky\nbare = missing_for_tests:Agent\n"
    )
    monkeypatch.syspath_prepend(tmp_path)
    return made


def test_a_scheme_gets_the_rest_and_the_settings(module):
    opened = open_analyzer("test_agents:gpt@http://u:p4ssw0rd@h/v1", Settings(seed=3))
    assert isinstance(opened, Agent)
    assert (opened.rest, opened.seed) == ("gpt@http://u:p4ssw0rd@h/v1", 3)


def test_a_module_with_the_name_of_a_scheme_is_written_with_python(module):
    opened = open_analyzer("python:test_agents:plain", Settings())
    assert opened.describe() == {}


@pytest.mark.parametrize(
    ("spec", "says"),
    [
        ("picky:x", "no agent 'x'"),
        ("bare:x", "analyzers bare:… need the package 'missing_for_tests'; run: pip install"),
        ("tset_agents:./a.yaml", "'tset_agents' is no scheme (did you mean 'test_agents'?)"),
        ("tset_agents:holmes", "it is no scheme of agents either (did you mean 'test_agents'?)"),
        ("bultin", "no analyzer 'bultin' (did you mean 'builtin'?)"),
        ("unknown:http://user:hidden-word@host/", "no analyzer 'unknown:http://***@host/'"),
    ],
)
def test_what_cannot_be_opened_says_why(module, spec, says):
    with pytest.raises(ConfigurationError) as caught:
        open_analyzer(spec, Settings())
    assert says in str(caught.value)
    assert "hidden-word" not in str(caught.value)


def test_names_and_schemes_are_checked_without_importing_a_module():
    with pytest.raises(ConfigurationError, match="is no scheme"):
        check_analyzer("no_such_scheme:./x y")
    assert check_analyzer("no_such_module:Agent.best").point is None


@pytest.mark.parametrize(
    ("spec", "seen"),
    [
        ("http://u:p4ssw0rd@h/x?token=abcdefgh", "http://***@h/x?token=***"),
        ("command:agent --api-key abcdefgh", "command:agent --api-key ***"),
        ("llm:vertex_ai/claude-3-5-sonnet@20240620", "llm:vertex_ai/claude-3-5-sonnet@20240620"),
        ("chat:gpt@http://u:p4ssw0rd@h/v1", "chat:gpt@http://***@h/v1"),
        ("chat:llama3:8b@http://localhost:1/v1", "chat:llama3:8b@http://localhost:1/v1"),
        ("my_module:Agent.best", "my_module:Agent.best"),
    ],
)
def test_credentials_in_the_name_of_an_analyzer_are_masked(spec, seen):
    settings = Settings.of(resolve({"otel_diag_analyzer": spec}, {}, {}))
    assert (shown(spec), settings.sources["analyzer"].value) == (seen, seen)
    assert settings.analyzer.reveal() == spec


def test_what_an_analyzer_reports_is_part_of_its_identity_and_compared(module):
    runner = Runner(Settings.of(resolve({}, {}, {"OTEL_DIAG_STORE": f"clickhouse://u:{KEY}@h"})))
    first = runner.identity("test_agents:gpt@http://u:p4ssw0rd@h/v1")
    other = runner.identity("test_agents:gpt@http://u:p4ssw0rd@h/v2").model_copy(update={"id": first.id})
    assert first.id == "test_agents:gpt@http://***@h/v1"
    assert first.details["key"] == "***"

    def manifest(identity):
        return Manifest(run_id="a", started_at_ns=0, analyzers=(identity,))

    (difference,) = compare_manifests(manifest(first), manifest(other))
    assert difference.field == f"analyzers.{first.id}.model"
    assert (difference.first, difference.second) == ("gpt@http://u:***@h/v1", "gpt@http://u:***@h/v2")


def test_a_runner_closes_what_it_opened_and_nothing_else(module):
    given = Agent("given", Settings())
    runner = Runner(Settings(), analyzers={"given": given})
    opened = runner.analyzer("test_agents:x")
    assert runner.analyzer("given") is given
    runner.close()
    runner.close()
    assert (opened.closed, given.closed) == (1, 0)


def test_a_tape_without_a_model_is_refused():
    resolved = resolve({"otel_diag_llm_tape": "record:tapes", "otel_diag_analyzer": "builtin"}, {}, {})

    with pytest.raises(ConfigurationError, match=r"builtin asks no model .* works with llm and chat"):
        open_analyzer("builtin", Settings.of(resolved))
