"""Scenario files: their format, and all mistakes reported at once with their lines."""

from pathlib import Path

import pytest

from pytest_otel_diag.model.scenario import (
    Disturbance,
    Environment,
    Expectation,
    ExpectedRootCause,
    Fault,
    FaultStep,
    Scenario,
    Timing,
)
from pytest_otel_diag.scenario_files.documents import ScenarioFileError, read_document
from pytest_otel_diag.scenario_files.loading import find_files, load_cases

KNOWN = Scenario(
    id="known",
    faults=(Fault(flag="f", variant="on"),),
    environment=Environment(demo="3.0", users=25),
    expectation=Expectation(root_causes=(ExpectedRootCause(service="cart"),), red_herrings=("checkout",)),
    timing=Timing(baseline_s=300, observe_s=180),
    ungated="rare",
    tags=(("severity", "high"), ("category", "performance")),
)


@pytest.fixture
def write(tmp_path):
    def write(text: str, name: str = "some.scenario.yaml") -> Path:
        path = tmp_path / name
        path.write_text(text, encoding="utf-8")
        return path

    return write


def mistakes(path: Path) -> list[str]:
    with pytest.raises(ScenarioFileError) as caught:
        load_cases(path)
    return [line.removeprefix(f"{path}:") for line in str(caught.value).splitlines()]


def test_a_file_can_express_everything_that_markers_can(write) -> None:
    (case,) = load_cases(
        write(
            """
            schema: 1
            id: everything
            description: all keys
            faults:
              - flag: productCatalogFailure
                variant: on
                at_s: 5
                until_s: 65
                every_s: 90
                steps: [{ at_s: 30, variant: off }]
                context: { product_id: OLJCESPC7Z }
            disturbances: [{ kind: restart, service: ad, at_s: 3 }]
            environment: { demo: 2.10, users: 7, browser_users: 1, seed: 3, jitter: true }
            timing: { baseline_s: 60, observe_s: 90 }
            require_impact: false
            expect:
              anomalies: [{ service: ad, signal: latency, direction: up }]
              paths: [[frontend, ad]]
              root_causes: [{ service: ad, mechanisms: [gc] }]
              red_herrings: [frontend]
            assert:
              - detected
              - anomaly: { service: ad, signal: latency }
              - root_cause: { service: ad, mechanism: gc, top: 3 }
              - root_cause: ad
              - not_blamed: frontend
              - path: [frontend, ad]
              - query_shows: ad
            tags: { severity: low, team: ads }
            marks: [slow]
            targets: [shop]
            ungated: for a while
            """
        )
    )
    scenario = case.scenario(KNOWN)
    assert case.entry.faults == (
        Fault(
            flag="productCatalogFailure",
            variant="on",
            at_s=5,
            until_s=65,
            every_s=90,
            steps=(FaultStep(at_s=30, variant="off"),),
            context=(("product_id", "OLJCESPC7Z"),),
        ),
    )
    assert scenario.id == "everything"
    assert scenario.disturbances == (Disturbance(kind="restart", service="ad", at_s=3),)
    assert scenario.environment == Environment(demo="2.10", users=7, browser_users=1, seed=3, jitter=True)
    assert scenario.timing == Timing(baseline_s=60, observe_s=90)
    assert scenario.require_impact is False
    assert scenario.expectation.root_causes[0].service == "ad"
    assert scenario.expectation.red_herrings == ("frontend",)
    assert dict(scenario.tags) == {"severity": "low", "category": "performance", "team": "ads"}
    assert scenario.ungated == "for a while"
    assert [str(check) for check in case.checks] == [
        "detected",
        "anomaly: service=ad, signal=latency",
        "root_cause: service=ad, mechanism=gc, top=3",
        "root_cause: service=ad",
        "not_blamed: service=frontend",
        "path: frontend → ad",
        "query_shows: ad",
    ]


def test_omitted_keys_keep_the_base_scenario(write) -> None:
    (case,) = load_cases(write("schema: 1\nfaults: [{flag: f}]\nenvironment: {seed: 3}\n"))
    scenario = case.scenario(KNOWN)
    assert scenario == KNOWN.model_copy(
        update={"id": "some", "environment": KNOWN.environment.model_copy(update={"seed": 3})}
    )
    assert [check.name for check in case.checks] == ["expected"]


def test_a_matrix_runs_every_combination(write) -> None:
    cases = load_cases(
        write(
            "schema: 1\nid: m\nfaults: [{flag: f, variant: a, at_s: 4}]\n"
            "matrix: {variant: [10%, on], seed: [1, 2], jitter: [true]}\n"
        )
    )
    assert [case.id for case in cases] == [
        "m[variant=10%,seed=1,jitter=true]",
        "m[variant=10%,seed=2,jitter=true]",
        "m[variant=on,seed=1,jitter=true]",
        "m[variant=on,seed=2,jitter=true]",
    ]
    last = cases[-1].scenario(KNOWN)
    assert last.environment == Environment(demo="3.0", users=25, seed=2, jitter=True)
    assert cases[-1].entry.faults == (Fault(flag="f", variant="on", at_s=4),)


def test_scenarios_of_a_list_share_defaults(write) -> None:
    first, second = load_cases(
        write(
            """
            schema: 1
            defaults:
              tags: { team: ads, severity: low }
              timing: { baseline_s: 60 }
              assert: [detected, healthy]
            scenarios:
              - control: true
              - id: own
                scenario: recorded
                tags: { severity: high }
                assert: [expected]
            """
        )
    )
    assert first.id == "some-1"
    assert [check.name for check in first.checks] == ["detected", "healthy"]
    assert first.check_line(1) == 6
    assert second.entry.tags == {"team": "ads", "severity": "high"}
    assert second.entry.timing.baseline_s == 60
    assert (second.line, second.check_line(0)) == (9, 12)


def test_every_mistake_is_reported_with_its_line_and_remedy(write) -> None:
    path = write(
        "schema: 1\n"
        "fault: [{flag: f}]\n"
        "faults:\n"
        "  - flag: f\n"
        "    varient: on\n"
        "    until_s: -3\n"
        "  - variant: on\n"
        "disturbances: [{kind: lod}]\n"
        "environment: {users: 0}\n"
        "assert:\n"
        "  - detectd\n"
        "  - root_cause: {service: a, mechanism: latncy, top: 0}\n"
        "  - path: []\n"
        "  - {detected: true, healthy: true}\n"
        "tags: {severity: high}\n"
        "tags: {severity: [3]}\n"
    )
    found = mistakes(path)
    assert found[0] == "16: key 'tags' is repeated, first in line 15"
    assert [line.split(":")[0] for line in found[1:]] == sorted(
        (line.split(":")[0] for line in found[1:]), key=int
    )
    for wanted in (
        "2: fault: unknown key (did you mean 'faults'?)",
        "5: faults.0.varient: unknown key (did you mean 'variant'?); known: flag, variant,",
        "7: faults.1: needs the key 'flag'",
        "8: disturbances.0.kind: 'lod': choose from load, restart, gc, text (did you mean 'load'?)",
        "9: environment.users: 0: input should be greater than or equal to 1",
        "11: assert.0.detectd: unknown key (did you mean 'detected'?)",
        "12: assert.1.root_cause.mechanism: 'latncy': choose from error, latency,",
        "14: assert.3: an assertion has exactly one name, this one has detected, healthy",
        "16: tags.severity: ",
    ):
        assert any(line.startswith(wanted) for line in found), (wanted, found)


BOMB = "schema: 1\na0: &a0 [x, x, x, x, x, x, x, x, x, x]\n" + "".join(
    f"a{n}: &a{n} [{', '.join([f'*a{n - 1}'] * 10)}]\n" for n in range(1, 9)
)


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ("", "1: the file is empty"),
        ("- a\n", "1: a scenario file is a mapping that starts with schema: 1"),
        ("schema: 2\ncontrol: true\n", "1: schema: 2: choose from 1"),
        ("control: true\n", "needs the key 'schema'"),
        (
            "schema: 1\n",
            "needs exactly one of faults, control: true, external and scenario; this one has none of them",
        ),
        ("schema: 1\ncontrol: true\nscenario: x\n", "this one has control and scenario"),
        ("schema: 1\ncontrol: true\nmatrix: {variant: [a]}\n", "matrix.variant changes the scenario's only"),
        ("schema: 1\ncontrol: [\n", "not YAML: "),
        ("schema: 1\nx: \x00\n", "not YAML: "),
        ("schema: 1\nscenarios: []\n", "scenarios"),
        ("schema: 1\nx: &a [*a]\n", "nested too deeply"),
        (BOMB, "more than 50,000 values"),
        (
            f"schema: 1\ncontrol: true\nmatrix: {{users: {list(range(1, 101))}, seed: {list(range(20))}}}\n",
            "2,000 runs",
        ),
        ("schema: 1\nfaults: [{flag: f, until_s: 3, at_s: 5}]\n", "until_s=3 must lie after at_s=5"),
        (
            "schema: 1\ncontrol: true\ntags: [payments]\n",
            "tags: ['payments']: must be a mapping, such as {name: value}; names alone belong under marks",
        ),
        (
            "schema: 1\nscenarios: [{id: a, control: true}, {id: a, control: true}]\n",
            "id 'a' is already used",
        ),
    ],
)
def test_invalid_files_are_refused(write, text, sentence) -> None:
    assert any(sentence in line for line in mistakes(write(text)))


def test_anchors_and_merged_keys_are_yaml(write) -> None:
    (case,) = load_cases(write("schema: 1\ncontrol: true\ntiming: {<<: {observe_s: 9}, baseline_s: 8}\n"))
    assert case.entry.timing == Timing(observe_s=9, baseline_s=8)


def test_unreadable_files_are_reported(tmp_path, write) -> None:
    (tmp_path / "latin.scenario.yaml").write_bytes("schema: 1 # é".encode("latin-1"))
    with pytest.raises(ScenarioFileError, match="cannot be read"):
        read_document(tmp_path / "latin.scenario.yaml")


def test_files_are_found_once_and_in_order(tmp_path, write) -> None:
    inner = tmp_path / "inner"
    inner.mkdir()
    first, second, plain = write("x"), inner / "b.scenario.yml", write("x", "plain.yaml")
    second.write_text("x")
    assert find_files([tmp_path, first, plain]) == [second, first, plain]
    with pytest.raises(ScenarioFileError, match="no such file or folder"):
        find_files([tmp_path / "nowhere"])
