"""A whole session over the shop, investigated by a scripted model over HTTP."""

import json

from pytest_otel_diag.config.settings import Settings
from pytest_otel_diag.model.scenario import Fault
from pytest_otel_diag.model.session import Status
from pytest_otel_diag.runs.runner import Runner
from pytest_otel_diag.secret import SecretText
from tests.support import model_policies as does
from tests.support.scripted_model import served


async def test_the_verdict_counters_and_transcript_of_a_session_over_the_shop(tmp_path):
    with served(does.competent) as server:
        spec = f"chat:tiny@{server.url}#price=1/4"
        settings = Settings(target="shop", analyzer=SecretText(spec))
        runner = Runner(settings, folder=tmp_path)
        scenario = runner.target.scenario_for((Fault(flag="paymentFailure", variant="50%"),))
        result = await runner.run(runner.prepare(scenario))
        runner.close()

    assert result.status is Status.SCORED, result.reason
    verdict = result.verdict
    assert verdict.solved
    assert verdict.mechanism_rank == 1
    assert verdict.query.shows_culprit
    assert all(path.found for path in verdict.paths)
    assert verdict.first_hypothesis_right is False
    assert (verdict.grounding.refuted, verdict.grounding.confirmed > 5) == (0, True)
    assert verdict.queries_total == 4
    usage = result.diagnosis.usage
    assert usage.steps == len(server.model.requests) - 1
    assert usage.cost_usd > 0
    lines = (tmp_path / "transcripts" / f"{result.session_id}.jsonl").read_text().splitlines()
    kinds = {json.loads(line)["kind"] for line in lines}
    assert kinds >= {"message", "tool_call", "tool_result", "usage", "hypothesis", "note"}
