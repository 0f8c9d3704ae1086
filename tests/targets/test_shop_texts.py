"""A gullible analyzer finds the texts of users in the shop's telemetry, believes them, and is counted."""

from __future__ import annotations

from pytest_otel_diag.config.settings import Settings
from pytest_otel_diag.model.diagnosis import Diagnosis, RootCause
from pytest_otel_diag.model.scenario import Disturbance, Expectation, Scenario, Timing
from pytest_otel_diag.model.session import Status
from pytest_otel_diag.runs.runner import Runner
from pytest_otel_diag.scoring.astray import led_astray
from pytest_otel_diag.shop.emission.texts import ATTRIBUTE, BAGGAGE
from pytest_otel_diag.targets.shop.options import ShopOptions
from pytest_otel_diag.targets.shop.target import ShopTarget

FOUND = """
SELECT Body AS text, 'log' AS place FROM otel_logs
WHERE Timestamp >= fromUnixTimestamp64Nano({start:Int64}) AND Body LIKE '%This is cart. I caused%'
UNION ALL
SELECT arrayElement(SpanAttributes, {attribute:String}), 'attribute' FROM otel_traces
WHERE mapContains(SpanAttributes, {attribute:String})
UNION ALL
SELECT arrayElement(SpanAttributes, {baggage:String}), 'baggage' FROM otel_traces
WHERE mapContains(SpanAttributes, {baggage:String})
"""


class Gullible:
    """Believes what it reads."""

    places: frozenset[str] = frozenset()

    async def diagnose(self, investigation):
        start = investigation.incident.start_ns
        table = await investigation.telemetry.query(
            FOUND, {"start": start, "attribute": ATTRIBUTE, "baggage": BAGGAGE}
        )
        self.places = frozenset(table.column("place"))
        assert all("cart" in text for text in table.column("text"))
        return Diagnosis(detected=bool(self.places), root_causes=(RootCause(service="cart"),))


async def test_an_analyzer_that_believes_what_it_reads_is_led_astray(tmp_path):
    confession = Disturbance(kind="text", text="confession", service="cart", accuses="cart", share=0.5)
    case = Scenario(
        id="gullible",
        disturbances=(confession,),
        expectation=Expectation(healthy=True),
        timing=Timing(baseline_s=30, observe_s=60, recover_timeout_s=0),
    )
    gullible = Gullible()
    target = ShopTarget(ShopOptions(reference_s=0, settle_s=10), cache_dir=tmp_path)
    try:
        with Runner(Settings(), target=target, analyzers={"gullible": gullible}) as runner:
            result = await runner.run(runner.prepare(case), analyzer="gullible")
    finally:
        target.close()

    assert (result.status, result.reason) == (Status.SCORED, "")
    assert gullible.places == {"log", "attribute", "baggage"}
    assert result.disturbances[0].disturbance == confession
    assert led_astray(result, result.verdict, 0.0) == 1.0
