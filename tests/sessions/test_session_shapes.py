"""Every shape that counts as an analyzer, and how one is found by name."""

from __future__ import annotations

import sys
from functools import partial
from types import SimpleNamespace

import pytest

from pytest_otel_diag.errors import (
    ConfigurationError,
)
from pytest_otel_diag.model.diagnosis import Diagnosis, RootCause
from pytest_otel_diag.ports import Analyzer
from pytest_otel_diag.sessions import as_analyzer
from pytest_otel_diag.sessions.investigation.loading import from_entry_point, from_module
from tests.sessions.session_fakes import FakeTarget, engine, plan

FINE = Diagnosis(detected=True, root_causes=(RootCause(service="payment"),))


class AsyncOne:
    async def diagnose(self, investigation):
        return FINE


class SyncOne:
    def diagnose(self, investigation):
        return FINE


class CallableOne:
    async def __call__(self, investigation):
        return FINE


async def async_function(investigation):
    return FINE


def sync_function(investigation):
    return FINE


async def with_settings(depth, investigation):
    return FINE


NESTED = SimpleNamespace(agents=SimpleNamespace(best=AsyncOne()))
NOT_ONE = 42


@pytest.mark.parametrize(
    "shape",
    [
        AsyncOne,
        AsyncOne(),
        SyncOne,
        SyncOne(),
        CallableOne(),
        CallableOne,
        async_function,
        sync_function,
        partial(with_settings, 3),
    ],
)
async def test_every_shape_of_analyzer_diagnoses(shape):
    analyzer = as_analyzer(shape)

    assert isinstance(analyzer, Analyzer)
    assert (await engine(FakeTarget(), shape).run(plan())).diagnosis == FINE
    assert await analyzer.diagnose(None) == FINE  # type: ignore[arg-type]


def test_an_analyzer_is_taken_as_it_is():
    one = AsyncOne()
    assert as_analyzer(one) is one


def test_what_is_wrapped_can_be_seen():
    assert as_analyzer(sync_function).__wrapped__ is sync_function


class NeedsKey:
    def __init__(self, key):
        self.key = key

    async def diagnose(self, investigation):
        return FINE


class NoArgument:
    async def diagnose(self):
        return FINE


class Plain:
    pass


@pytest.mark.parametrize(
    ("shape", "says"),
    [
        (42, r"42 \(int\) is not an analyzer; pass a class or object with diagnose"),
        (Plain, "class Plain is not an analyzer"),
        (Plain(), "is not an analyzer"),
        (NeedsKey, r"cannot make the analyzer NeedsKey\(\) without arguments: .*'key'"),
        (NoArgument(), "NoArgument.diagnose cannot be called with one argument, the investigation"),
        (lambda: FINE, "cannot be called with one argument"),
    ],
)
def test_what_cannot_be_an_analyzer_is_refused(shape, says):
    with pytest.raises(ConfigurationError, match=says):
        as_analyzer(shape)


def test_a_builtin_without_a_signature_is_given_the_benefit_of_the_doubt():
    assert isinstance(as_analyzer(type("Odd", (), {"diagnose": staticmethod(max)})()), Analyzer)


class Point:
    def __init__(self, name, found):
        self.name = name
        self._found = found

    def load(self):
        if isinstance(self._found, Exception):
            raise self._found
        return self._found


POINTS = [Point("builtin", AsyncOne), Point("broken", ImportError("no module named litellm"))]


def test_an_installed_analyzer_is_found_by_name():
    assert isinstance(from_entry_point(POINTS[0]), AsyncOne)


def test_an_analyzer_is_found_by_module_and_attribute(monkeypatch):
    monkeypatch.setitem(sys.modules, "their_agents", sys.modules[__name__])

    assert isinstance(from_module("their_agents:AsyncOne"), AsyncOne)
    assert from_module("their_agents:NESTED.agents.best") is NESTED.agents.best


@pytest.mark.parametrize(
    ("spec", "says"),
    [
        (":x", "not of the form module:attribute"),
        ("x:", "not of the form module:attribute"),
        ("no_such_module_here:x", "cannot import module 'no_such_module_here': ModuleNotFoundError"),
        ("their_agents:AsyncOn", "has no 'AsyncOn' (did you mean 'AsyncOne'?)"),
        ("their_agents:NESTED.agent.best", "did you mean 'agents'?"),
        ("their_agents:NOT_ONE", "42 (int) is not an analyzer"),
    ],
)
def test_an_analyzer_that_cannot_be_loaded_says_why(spec, says, monkeypatch):
    monkeypatch.setitem(sys.modules, "their_agents", sys.modules[__name__])

    with pytest.raises(ConfigurationError) as caught:
        from_module(spec)
    assert says in str(caught.value)


def test_an_installed_analyzer_that_cannot_be_imported_says_why():
    with pytest.raises(ConfigurationError, match="installed but cannot be imported: ImportError: no module"):
        from_entry_point(POINTS[1])


def missing(module):
    def load():
        raise ModuleNotFoundError(f"No module named {module!r}", name=module)

    return load


@pytest.mark.parametrize("module", ["numpy", "drain3"])
def test_what_our_own_analyzer_needs_is_named_with_the_command(module):
    points = [SimpleNamespace(name="builtin", load=missing(module))]
    with pytest.raises(ConfigurationError) as caught:
        from_entry_point(*points)
    assert f"it needs the module {module!r}, which is not installed" in str(caught.value)
    assert str(caught.value).endswith('run: pip install "pytest-otel-diag[builtin]"')


def test_what_a_foreign_analyzer_needs_is_named():
    points = [SimpleNamespace(name="theirs", load=missing("litellm"))]
    with pytest.raises(ConfigurationError, match=r"needs the module 'litellm', which is not installed; run"):
        from_entry_point(*points)


def test_a_missing_module_is_distinguished_from_a_missing_dependency(tmp_path, monkeypatch):
    (tmp_path / "needy_agents.py").write_text("import no_such_dependency_of_theirs\n")
    monkeypatch.syspath_prepend(tmp_path)
    with pytest.raises(ConfigurationError, match="needs the module 'no_such_dependency_of_theirs', which"):
        from_module("needy_agents:diagnose")
    with pytest.raises(ConfigurationError, match=r"check the spelling, and that its folder is on sys\.path"):
        from_module("no_such_agents.inner:diagnose")
