"""Catalog files of users: what they add, and how their mistakes are reported."""

import pytest
import yaml

from pytest_otel_diag import catalog
from pytest_otel_diag.catalog import loading
from pytest_otel_diag.catalog.catalog import Catalog
from pytest_otel_diag.catalog.scenarios import controls, scenarios
from pytest_otel_diag.errors import ConfigurationError, ScenarioError
from tests.catalog.catalog_samples import FLAG


@pytest.fixture
def extended(tmp_path):
    def extend(content, *, known=None):
        file = tmp_path / "mine.yaml"
        file.write_text(content if isinstance(content, str) else yaml.safe_dump(content))
        return (known or catalog.load()).extended(file)

    return extend


def changed(**fields):
    return {"flags": [{**FLAG, **fields}]}


def test_a_file_adds_flags_to_the_demo(extended):
    known = extended({"flags": [FLAG]})
    assert known.flag("payment_cache_leak").severity == "high"
    assert known.fault("paymentCacheLeak").variant == "on"
    assert "paymentCacheLeak" in known.generation("3.0").flags
    assert "paymentCacheLeak" not in known.generation("2.2").flags
    assert b"paymentCacheLeak" in known.demo_document("3.0")
    with pytest.raises(ScenarioError, match="unknown flag 'paymentCacheLeak'"):
        catalog.flag("paymentCacheLeak")


OTHER = {
    "system": "Bank",
    "releases": [{"demo": "bank-1"}, {"demo": "bank-2"}],
    "services": [
        {"name": "payment", "language": "Go", "formerly": [{"releases": "bank-1", "name": "pay"}]},
    ],
    "flags": [
        {
            **FLAG,
            "key": "slowLedger",
            "absent": "",
            "periods": [{**FLAG["periods"][0], "releases": "..", "name": "slowLedger"}],
        }
    ],
}


def test_another_system_has_its_own_releases_services_and_flags(extended):
    known = extended(OTHER)
    assert known.demos() == (*catalog.load().demos(), "bank-1", "bank-2")
    assert known.service("payment", "bank-1") == "pay"
    assert known.service("paymentservice", "3.0") == "payment"
    assert set(known.generation("bank-2").flags) == {"slowLedger"}
    assert known.generation("bank-2").system == "Bank"
    assert "slowLedger" not in known.generation("3.0").flags
    assert [s.id for s in scenarios(known, "bank-1")] == ["slowLedger=on"]
    assert known.expectation("slowLedger", demo="bank-1").root_causes[0].service == "pay"
    with pytest.raises(
        ScenarioError, match=r"'slowLedger' does not exist in demo 3.0: It belongs to Bank. .* bank-1, bank-2"
    ):
        known.period("slowLedger", "3.0")
    with pytest.raises(
        ScenarioError, match=r"'adFailure' does not exist in demo bank-1: It belongs to OpenTelemetry"
    ):
        known.period("adFailure", "bank-1")
    assert [control.id for control in controls(known, "bank-1")] == ["control-quiet", "control-load-doubled"]


@pytest.mark.parametrize(
    ("content", "match"),
    [
        (
            {"flags": [{**FLAG, "key": "adFailure"}]},
            "flag 'adFailure' of .*mine.yaml is named 'adfailure', and so is flag .* of service_failure.yaml",
        ),
        (
            changed(aliases=["paymentServiceFailure"]),
            "'paymentCacheLeak' of .* is named 'paymentservicefailure'",
        ),
        ({"flags": [FLAG, FLAG]}, "flag 'paymentCacheLeak'.*and so is"),
        ({"releases": [{"demo": "3.0"}]}, "release '3.0' of .*mine.yaml is named"),
        (
            {"services": [{"name": "ad-service", "language": "Go"}]},
            "service 'ad-service' of .*and so is service 'ad'",
        ),
        ({"system": "Bank", "flags": [FLAG]}, "system 'Bank' lists no releases"),
        (
            changed(severity="hgh"),
            "flag 'paymentCacheLeak': severity: 'hgh' is not valid.*'low', 'medium', 'high' or 'critical'",
        ),
        (changed(serverity="high"), "serverity: unknown field \\(did you mean 'severity'"),
        (
            {"flags": [{key: value for key, value in FLAG.items() if key != "does"}]},
            "flag 'paymentCacheLeak': does: missing",
        ),
        ({"flags": [{"does": "x"}]}, "flag 0: key: missing"),
        ({"flags": ["x"]}, "flag 0: 'x' is not valid"),
        ({"flagz": []}, "flagz: unknown field \\(did you mean 'flags'"),
        ({"flags": 7}, "flags: 7 is not valid"),
        (
            changed(suggested="onn"),
            "suggested variant 'onn' is not one of its variants off, on \\(did you mean 'on'",
        ),
        (
            changed(periods=[{**FLAG["periods"][0], "default": "of"}]),
            "default 'of' is not one of its variants off, on \\(did you mean 'off'",
        ),
        (
            changed(periods=[{**FLAG["periods"][0], "releases": "3.0..4.0"}]),
            "names a release '4.0' that is not listed",
        ),
        (
            changed(periods=[{**FLAG["periods"][0], "releases": "3.0..2.0"}]),
            "'3.0..2.0' ends before it starts",
        ),
        (
            changed(periods=[FLAG["periods"][0], {**FLAG["periods"][0], "releases": "3.1"}]),
            "periods 3.0.. and 3.1 overlap",
        ),
        (changed(absent=""), "absent: missing; say why"),
        (
            changed(variants=[{"variant": "offf", "why": "x"}]),
            "'offf' is not a variant of any release \\(did you mean 'off'",
        ),
        (changed(implemented_by=["paymnt"]), "service 'paymnt' is not listed \\(did you mean 'payment'"),
        (
            changed(cleanup={"residue": "x", "reset": "y", "restart": "paymnt", "source": "inferred"}),
            "'paymnt' is not listed",
        ),
        (changed(expectation={}), "needs a root cause, or healthy: true"),
        (
            changed(expectation={**FLAG["expectation"], "healthy": True}),
            "healthy: true contradicts expected findings",
        ),
        (
            changed(
                expectation={**FLAG["expectation"], "red_herrings": [{"service": "payment", "why": "x"}]}
            ),
            "'payment' is root cause and red herring",
        ),
        (
            {"services": [{"name": "x", "language": "Go", "releases": "9.."}]},
            "service x: .*'9' that is not listed",
        ),
        ("flags: [", "is not YAML"),
        ("- 1", "must contain the sections system, releases, services, flags, not list"),
        ("flags: []\nflags: []", "line 2 repeats the key 'flags'"),
    ],
)
def test_mistakes_name_file_entry_value_and_remedy(extended, content, match):
    with pytest.raises(ConfigurationError, match=match) as caught:
        extended(content)
    assert "mine.yaml" in str(caught.value)


def test_a_file_that_cannot_be_read_is_named(tmp_path):
    with pytest.raises(ConfigurationError, match=r"missing.yaml cannot be read"):
        catalog.load().extended(tmp_path / "missing.yaml")
    (tmp_path / "binary.yaml").write_bytes(b"\xff\xfe")
    with pytest.raises(ConfigurationError, match=r"binary.yaml cannot be read"):
        catalog.load().extended(tmp_path / "binary.yaml")


def test_an_empty_file_adds_nothing(extended):
    assert extended("").flags == catalog.load().flags


def test_on_and_off_are_names_and_true_is_a_value():
    (flag,) = loading.parse(
        yaml.safe_dump({"flags": [FLAG]}).replace("'on'", "on").replace("'off'", "off"), "x"
    ).flags
    assert dict(flag.periods[0].variants) == {"off": False, "on": True}


def test_a_catalog_without_files_knows_nothing():
    with pytest.raises(ConfigurationError, match="known: none"):
        Catalog(()).generation("3.0")
    with pytest.raises(ScenarioError, match="known: none"):
        Catalog(()).flag("adFailure")


def test_hints_that_give_the_answer_away_are_mistakes(extended):
    said = ["Is payment cache leak on?", "Look at {paymnt}.", "Look at {payment}."]
    steps = [{"hint": hint, "signal": "traces"} for hint in said]
    steps[0]["hint"] += " It is payment."
    with pytest.raises(ConfigurationError) as caught:
        extended(changed(expectation={**FLAG["expectation"], "investigation_path": steps}))
    message = str(caught.value)
    assert "step 1: the hint names the flag 'paymentCacheLeak'" in message
    assert "step 1: the hint names 'payment', the service of the root cause" in message
    assert "service 'paymnt' is not listed (did you mean 'payment'?)" in message
    assert "step 3" not in message
