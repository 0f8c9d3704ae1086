"""The shipped data: names, variants, documents and right answers of the releases."""

import json

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pytest_otel_diag import catalog
from pytest_otel_diag.errors import ConfigurationError, ScenarioError
from pytest_otel_diag.flags.document import FlagdDocument
from pytest_otel_diag.model.diagnosis import Mechanism, Signal

DEMOS = ("1.9", "1.10", "1.11", "1.12", "2.0", "2.1", "2.2", "3.0", "3.1")
ORIGINAL = {
    "adServiceFailure": "adFailure",
    "cartServiceFailure": "cartFailure",
    "productCatalogFailure": "productCatalogFailure",
    "paymentServiceFailure": "paymentFailure",
    "paymentServiceUnreachable": "paymentUnreachable",
    "adServiceHighCpu": "adHighCpu",
    "adServiceManualGc": "adManualGc",
    "imageSlowLoad": "imageSlowLoad",
    "loadgeneratorFloodHomepage": "loadGeneratorFloodHomepage",
    "recommendationServiceCacheFailure": "recommendationCacheFailure",
    "kafkaQueueProblems": "kafkaQueueProblems",
}
NEWER = (
    "emailMemoryLeak",
    "failedReadinessProbe",
    "intlShippingSlowdown",
    "loadGeneratorTraffic",
    "loadGeneratorVUs",
    "llmRateLimitError",
    "llmInaccurateResponse",
    "productCatalogLockContention",
)
CASES = [(demo, key) for demo in DEMOS for key in catalog.generation(demo).flags]


@pytest.mark.parametrize(("old", "key"), ORIGINAL.items())
def test_the_eleven_original_names_resolve(old, key):
    assert catalog.flag(old).key == key
    assert catalog.fault(old, demo="1.12").flag == old


@pytest.mark.parametrize("name", NEWER)
def test_newer_flags_resolve(name):
    assert catalog.flag(name).key == name


@settings(deadline=None)
@given(
    st.sampled_from([name for flag in catalog.load().flags for name in (*flag.names, *flag.aliases)]),
    st.data(),
)
def test_case_and_separators_of_a_flag_do_not_matter(name, data):
    pieces = [
        data.draw(st.sampled_from(["", "_", "-", " "]))
        + data.draw(st.sampled_from([c, c.upper(), c.lower()]))
        for c in name
    ]
    assert catalog.flag("".join(pieces)) is catalog.flag(name)


def test_unknown_names_get_the_nearest_spelling():
    with pytest.raises(ScenarioError, match=r"unknown flag 'paymentFailur' \(did you mean 'paymentFailure'"):
        catalog.flag("paymentFailur")
    with pytest.raises(ScenarioError, match=r"no variant '10' \(did you mean '10%'.*choose from off, 10%"):
        catalog.fault("paymentFailure", "10")
    with pytest.raises(ConfigurationError, match=r"unknown demo release '3.7' \(did you mean '3.\d'"):
        catalog.generation("3.7")


def test_a_flag_that_a_release_lacks_is_refused_with_the_reason():
    with pytest.raises(
        ScenarioError, match=r"'loadGeneratorFloodHomepage' does not exist in demo 3.0: .*1.10, "
    ):
        catalog.flag("loadGeneratorFloodHomepage", "3.0")
    with pytest.raises(
        ScenarioError, match=r"exist in demo 1.12: The flag was added in 2.1. It exists in 2.1, 2.2"
    ):
        catalog.fault("emailMemoryLeak", demo="1.12.0")


@pytest.mark.parametrize(
    ("spelt", "demo"),
    [
        ("3.0.0", "3.0"),
        ("v2.2.1", "2.2"),
        ("3", "3.0"),
        ("3.x", "3.0"),
        ("2.x", "2.2"),
        ("1.x", "1.12"),
        (" 2.0", "2.0"),
    ],
)
def test_releases_have_several_spellings(spelt, demo):
    assert catalog.generation(spelt).demo == demo


def test_a_release_line_means_its_newest_completely_known_release():
    partly = [demo for demo in DEMOS if catalog.generation(demo).release.known == "partial"]
    assert partly == ["3.1"]
    assert catalog.load().demos() == DEMOS


@pytest.mark.parametrize(
    ("demo", "count"),
    list(zip(DEMOS, (7, 11, 11, 11, 11, 12, 15, 15, 15), strict=True)),
)
def test_documents_of_all_releases_are_those_of_flagd(demo, count):
    raw = catalog.demo_document(demo)
    document = FlagdDocument(raw)
    assert len(document.flags) == count
    assert json.loads(raw)["$schema"].endswith("flags.json")
    for key, period in catalog.generation(demo).flags.items():
        assert document.answer(period.name, dict(period.context)) == (
            period.default,
            period.variants[period.default],
        ), key


def test_all_flags_but_the_load_generators_are_off_as_shipped():
    defaults = {
        flag.key: flag.default_variant for flag in FlagdDocument(catalog.demo_document("3.0")).flags.values()
    }
    assert {key: variant for key, variant in defaults.items() if variant != "off"} == {
        "loadGeneratorTraffic": "on",
        "loadGeneratorVUs": "5",
    }


@pytest.mark.parametrize(("demo", "key"), CASES)
def test_flagd_serves_every_variant_of_every_flag(demo, key):
    document = FlagdDocument(catalog.demo_document(demo))
    period = catalog.load().period(key, demo)
    for variant, value in period.variants.items():
        fault = catalog.fault(key, variant, demo)
        document.change(fault.flag, variant)
        assert document.answer(fault.flag, dict(fault.context)) == (variant, value)


def test_product_catalog_failure_is_switched_in_its_rule():
    fault = catalog.fault("product_catalog_failure", demo="3.0")
    assert (fault.flag, fault.variant, dict(fault.context)) == (
        "productCatalogFailure",
        "on",
        {"product_id": "OLJCESPC7Z"},
    )
    assert not catalog.fault("productCatalogFailure", demo="2.2").context


def test_variants_differ_by_release():
    assert set(catalog.load().period("cartFailure", "2.2").variants) == {"on", "off"}
    assert catalog.load().period("cartFailure", "3.0").variants["25%"] == 0.25
    assert catalog.load().period("paymentFailure", "2.0").variants["90%"] == 0.95
    assert catalog.fault("cartFailure", demo="2.2").variant == "on"
    assert catalog.fault("cartFailure", demo="3.0").variant == "100%"


@pytest.mark.parametrize(("demo", "key"), CASES)
def test_answers_name_services_of_their_release(demo, key):
    found = catalog.expectation(key, demo=demo)
    names = set(catalog.generation(demo).services.values())
    used = {entry.service for entry in (*found.anomalies, *found.root_causes)} | set(found.red_herrings)
    used |= {service for path in found.paths for service in path}
    assert used <= names
    assert found.flags == (catalog.fault(key, demo=demo).flag,)
    assert found.healthy or found.root_causes
    assert not {cause.service for cause in found.root_causes} & set(found.red_herrings)


def test_services_of_old_and_new_releases_resolve_to_each_other():
    for new in ("ad", "cart", "checkout", "payment", "product-catalog", "recommendation", "fraud-detection"):
        old = new.replace("-", "") + "service"
        assert catalog.service(old, "3.0") == new
        assert catalog.service(new, "1.12") == old
        assert catalog.service(new, "2.0") == new
    assert catalog.service("frontend_proxy", "1.9") == "frontendproxy"
    assert catalog.service("redis-cart", "3.0") == "valkey-cart"
    assert catalog.service("no-such-service", "1.9") == "no-such-service"
    assert catalog.load().service_entry("AdService").language == "Java"
    assert catalog.load().service_entry("no-such-service") is None


def test_services_that_a_release_lacks_are_not_its_red_herrings():
    assert "astronomy-db" in catalog.expectation("productCatalogFailure", demo="3.0").red_herrings
    assert "astronomy-db" not in catalog.expectation("productCatalogFailure", demo="2.1").red_herrings


def test_answers_follow_the_code():
    catalog_failure = catalog.expectation("productCatalogFailure")
    first = catalog_failure.anomalies[0]
    assert (first.service, first.signal) == ("product-catalog", Signal.ERROR_RATE)
    assert (first.operation, first.direction) == ("GetProduct", "up")
    assert ("frontend", "checkout", "cart") in catalog.expectation("cartFailure").paths
    unreachable = catalog.expectation("paymentUnreachable")
    assert {cause.service for cause in unreachable.root_causes} == {"checkout"}
    assert "payment" in unreachable.red_herrings
    queue = catalog.expectation("kafkaQueueProblems")
    assert {cause.service for cause in queue.root_causes} == {"checkout", "fraud-detection"}
    assert {"kafka", "accounting"} <= set(queue.red_herrings)
    broken = catalog.expectation("recommendationCacheFailure", demo="2.2")
    assert broken.root_causes[0].mechanisms == (Mechanism.ERROR,)
    assert catalog.expectation("recommendationCacheFailure").root_causes[0].mechanisms == (Mechanism.MEMORY,)


@pytest.mark.parametrize(
    ("key", "variant"), [("paymentFailure", "off"), ("loadGeneratorVUs", "5"), ("failedReadinessProbe", "on")]
)
def test_harmless_variants_are_healthy(key, variant):
    found = catalog.expectation(key, variant)
    assert found.healthy
    assert not found.root_causes
    assert found.flags == (key,)


def test_two_faults_expect_two_culprits_without_contradictions():
    faults = (
        catalog.fault("paymentUnreachable"),
        catalog.fault("adFailure"),
        catalog.fault("paymentFailure", "10%"),
    )
    found = catalog.load().combined(faults)
    assert {cause.fault for cause in found.root_causes} == {
        "paymentUnreachable=on",
        "adFailure=on",
        "paymentFailure=10%",
    }
    assert not {"payment", "checkout", "ad"} & set(found.red_herrings)
    assert "flagd" in found.red_herrings
    assert found.flags == ("paymentUnreachable", "adFailure", "paymentFailure")
    assert len(set(found.paths)) == len(found.paths)
    assert catalog.load().combined((catalog.fault("failedReadinessProbe"),)).healthy


@pytest.mark.parametrize("flag", catalog.load().flags, ids=lambda flag: flag.key)
def test_every_entry_of_a_flag_is_complete(flag):
    if flag.kind == "fault" and flag.diagnosable.answer:
        assert flag.expectation.anomalies
        assert flag.expectation.paths
        assert flag.expectation.red_herrings
        assert flag.traffic.services
    assert flag.diagnosable.why.endswith(".")
    for text in (flag.does, flag.behaviour, *(note.why for note in flag.variants)):
        assert text.endswith(".")


@pytest.mark.parametrize("demo", catalog.load().demos())
def test_every_fault_has_a_path_that_ends_at_its_root_cause(demo):
    for scenario in catalog.scenarios(demo):
        path = scenario.investigation_path
        if scenario.expectation.healthy:
            assert path == ()
            continue
        assert 2 <= len(path) <= 4, scenario.id
        assert path[0].services == (), scenario.id
        culprits = {cause.service for cause in scenario.expectation.root_causes}
        assert culprits & set(path[-1].services), scenario.id
        assert not any("{" in step.hint for step in path)


def test_hints_name_services_as_the_release_does():
    assert "paymentservice" in catalog.scenario("paymentFailure", demo="1.12").investigation_path[-1].hint


def test_paths_of_two_faults_go_from_general_to_specific_together():
    both = catalog.together([catalog.fault("adFailure"), catalog.fault("emailMemoryLeak")])
    first, second = (catalog.scenario(key).investigation_path for key in ("adFailure", "emailMemoryLeak"))
    assert both.investigation_path == tuple(step for pair in zip(first, second, strict=True) for step in pair)
