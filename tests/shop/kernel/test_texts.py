"""Misleading texts in the shop's telemetry: where they show, and that they change nothing else."""

from __future__ import annotations

import json

import pytest
from pydantic import ValidationError

from pytest_otel_diag import catalog
from pytest_otel_diag.flags.document import FlagdDocument
from pytest_otel_diag.model.scenario import Disturbance, Expectation, Scenario
from pytest_otel_diag.shop.emission import rows
from pytest_otel_diag.shop.emission.texts import ATTRIBUTE, BAGGAGE, LONG_CHARACTERS, phrases
from pytest_otel_diag.shop.simulation import Shop
from pytest_otel_diag.shop.variation import Variation
from pytest_otel_diag.targets.shop.options import ShopOptions
from pytest_otel_diag.targets.shop.target import ShopTarget

SECOND = 1_000_000_000
KINDS = ("instruction", "confession", "submit", "tool_result", "unicode", "long")


def batch_of(*texts: Disturbance, step_s: int = 60, until_s: int = 60):
    """Return the telemetry of a shop whose payments fail, with the texts from second 20 on."""
    content = json.loads(catalog.demo_document("3.0"))
    content["flags"]["paymentFailure"]["defaultVariant"] = "100%"
    document = FlagdDocument(json.dumps(content).encode())
    shop = Shop(Variation(seed=3, users=25), document, 0)
    for now_s in sorted({20, until_s, *range(step_s, until_s, step_s)}):
        shop.advance(now_s * SECOND)
        if now_s == 20:
            for text in texts:
                shop.disturb(text)
    return shop.take(until_s * SECOND)


def text(**fields) -> Disturbance:
    return Disturbance(
        **{"kind": "text", "text": "confession", "service": "cart", "accuses": "cart", **fields}
    )


@pytest.fixture(scope="module")
def plain():
    return batch_of()


@pytest.fixture(scope="module")
def disturbed():
    return batch_of(text(share=0.5))


def test_calls_errors_times_and_numbers_of_records_stay_the_same(plain, disturbed):
    def spans(batch):
        return [
            span._replace(attributes={}, resource=span.resource.service, scope=span.scope.name)
            for span in batch.spans
        ]

    def logs(batch):
        return [(log.time_ns, log.severity_text, log.resource.service, log.trace_id) for log in batch.logs]

    def points(batch):
        return [(point.time_ns, point.instrument.name, repr(point.value)) for point in batch.metrics]

    assert spans(plain) == spans(disturbed)
    assert logs(plain) == logs(disturbed)
    assert points(plain) == points(disturbed)
    assert any(span.status == "Error" for span in plain.spans)


def test_only_added_attributes_and_endings_of_bodies_differ(plain, disturbed):
    for before, after in zip(plain.spans, disturbed.spans, strict=True):
        added = set(after.attributes) - set(before.attributes)
        assert added <= {ATTRIBUTE, BAGGAGE}
        assert {key: after.attributes[key] for key in before.attributes} == dict(before.attributes)
    for old, new in zip(plain.logs, disturbed.logs, strict=True):
        assert new.body == old.body or new.body.startswith(f'{old.body} comment="')


def test_texts_begin_with_the_disturbance_and_stay_with_their_service(disturbed):
    marked = [span for span in disturbed.spans if ATTRIBUTE in span.attributes]
    carried = [span for span in disturbed.spans if BAGGAGE in span.attributes]
    logged = [log for log in disturbed.logs if 'comment="' in log.body]
    assert marked and carried and logged
    assert {span.resource.service for span in marked} == {"cart"}
    assert {log.resource.service for log in logged} == {"cart"}
    assert len({span.resource.service for span in carried}) > 3
    assert min(span.start_ns for span in (*marked, *carried)) >= 20 * SECOND
    of_cart = [
        span for span in disturbed.spans if span.resource.service == "cart" and span in disturbed.spans
    ]
    late = [span for span in of_cart if span.start_ns >= 20 * SECOND]
    assert 0.3 < len(marked) / len(late) < 0.7


def test_the_place_is_chosen():
    only_logs = batch_of(text(where=("log",), share=1.0), until_s=40)
    assert not any({ATTRIBUTE, BAGGAGE} & set(span.attributes) for span in only_logs.spans)
    assert any('comment="' in log.body for log in only_logs.logs)


def test_texts_depend_on_the_seed_and_not_on_the_steps(disturbed):
    again = batch_of(text(share=0.5), step_s=7)

    def shown(batch):
        return [log.body for log in batch.logs], [dict(span.attributes) for span in batch.spans]

    assert shown(again) == shown(disturbed)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("accuses", ["cart", None])
def test_every_kind_accuses_or_appeases_and_can_be_stored(kind, accuses):
    for phrase in phrases(kind, accuses):
        assert phrase.encode("utf-8")
        if kind != "unicode":
            assert ("cart" in phrase) == (accuses is not None)
        assert "{service}" not in phrase and "{{" not in phrase
    assert (len(phrases("long", accuses)[0]) >= LONG_CHARACTERS) and "\u202e" in phrases("unicode", accuses)[
        0
    ]


def test_hidden_and_long_texts_become_rows():
    batch = batch_of(text(text="unicode"), text(text="long", service="ad", share=1.0), until_s=40)
    tables = rows.tables(batch)
    assert any("\u202e" in body for body in tables["otel_logs"].column("Body").to_pylist())


@pytest.mark.parametrize(
    ("fields", "says"),
    [
        ({"kind": "text", "service": "ad"}, "needs a text: instruction, confession"),
        ({"kind": "text", "text": "submit"}, "needs a service"),
        ({"kind": "gc", "service": "ad", "text": "submit"}, "'gc' has no text"),
        ({"kind": "gc", "service": "ad", "accuses": "cart"}, "accuses nobody"),
        ({"kind": "text", "text": "submit", "service": "ad", "where": []}, "at least 1 item"),
    ],
)
def test_texts_belong_to_their_kind(fields, says):
    with pytest.raises(ValidationError, match=says):
        Disturbance(**fields)


def test_the_shop_refuses_services_that_it_does_not_have(tmp_path):
    case = Scenario(
        id="case", expectation=Expectation(healthy=True), disturbances=(text(accuses="carts", service="crt"),)
    )
    mistakes = ShopTarget(ShopOptions(), cache_dir=tmp_path).validate(case)
    assert "disturbs 'crt'" in mistakes[0] and "lets texts accuse 'carts'" in mistakes[1]
