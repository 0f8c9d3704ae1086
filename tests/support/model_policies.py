"""What a model may do, as policies of the scripted server.

:func:`competent` knows no system: it finds services, calls and the culprit in results of the tool ``query``
alone, so it is right only if the tools work. It records a wrong first hypothesis on purpose, the service with
the most failures at the edge, and eliminates it.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterator, Mapping
from typing import Any

from tests.support.scripted_model import Answer, Call, Conversation, Fail, Policy, Say, Stall, text_of

_NS = r"\d{19}"
_TABLE = json.JSONDecoder()


def window(asked: str, name: str) -> tuple[int, int]:
    """Return the window of this name in the question, in nanoseconds."""
    found = re.search(rf"{name}\b.{{0,300}}?({_NS}).{{0,80}}?({_NS})", asked, re.DOTALL | re.IGNORECASE)
    assert found, f"the question has no window {name} in nanoseconds:\n{asked}"
    return int(found[1]), int(found[2])


def within(bounds: tuple[int, int], column: str = "Timestamp") -> str:
    start, end = (f"fromUnixTimestamp64Nano({at})" for at in bounds)
    return f"({column} >= {start} AND {column} < {end})"


def literal(text: str) -> str:
    escaped = text.replace("\\", "\\\\").replace("'", "\\'")
    return f"'{escaped}'"


def health_sql(asked: str) -> str:
    incident, baseline = within(window(asked, "incident")), within(window(asked, "baseline"))
    return (
        f"SELECT ServiceName, countIf({incident}) AS incident_calls, "
        f"countIf({incident} AND StatusCode = 'Error') AS incident_failed, "
        f"countIf({baseline}) AS baseline_calls, "
        f"countIf({baseline} AND StatusCode = 'Error') AS baseline_failed, "
        f"quantileIf(0.95)(Duration / 1e6, {incident}) AS incident_p95, "
        f"quantileIf(0.95)(Duration / 1e6, {baseline}) AS baseline_p95 "
        "FROM otel_traces WHERE SpanKind IN ('Server', 'Consumer') GROUP BY ServiceName ORDER BY ServiceName"
    )


def edges_sql(asked: str) -> str:
    when = within(window(asked, "incident"), "child.Timestamp")
    return (
        "SELECT DISTINCT parent.ServiceName AS caller, child.ServiceName AS callee "
        "FROM otel_traces AS child JOIN otel_traces AS parent "
        "ON child.TraceId = parent.TraceId AND child.ParentSpanId = parent.SpanId "
        f"WHERE caller != callee AND {when} ORDER BY caller, callee"
    )


def traces_sql(asked: str, service: str) -> str:
    return (
        f"SELECT TraceId, SpanId FROM otel_traces WHERE ServiceName = {literal(service)} "
        f"AND {within(window(asked, 'incident'))} ORDER BY StatusCode, Duration DESC LIMIT 3"
    )


def evidence_sql(asked: str, service: str) -> str:
    return (
        "SELECT ServiceName, SpanName, count() AS calls, countIf(StatusCode = 'Error') AS failed "
        f"FROM otel_traces WHERE ServiceName = {literal(service)} AND {within(window(asked, 'incident'))} "
        "GROUP BY ServiceName, SpanName"
    )


def tables(conversation: Conversation) -> Iterator[list[dict[str, Any]]]:
    """Yield the tables in results of tools, however an agent wraps them."""
    for text in conversation.results():
        for at in (found.start() for found in re.finditer(r"\{", text)):
            try:
                value, _ = _TABLE.raw_decode(text[at:])
            except ValueError:
                continue
            if isinstance(value, dict) and {"columns", "rows"} <= value.keys():
                yield [dict(zip(value["columns"], row, strict=True)) for row in value["rows"]]
                break


def table_with(conversation: Conversation, column: str) -> list[dict[str, Any]] | None:
    return next((rows for rows in tables(conversation) if rows and column in rows[0]), None)


def calls_so_far(conversation: Conversation) -> list[tuple[str, dict[str, Any]]]:
    """Return names and arguments of the model's own calls, native or as text."""
    calls = []
    for message in conversation.messages:
        if message["role"] != "assistant":
            continue
        for call in message.get("tool_calls") or ():
            calls.append((call["function"]["name"], json.loads(call["function"]["arguments"])))
        for block in re.findall(r"```json\n(.*?)```", text_of(message), re.DOTALL):
            found = json.loads(block)
            calls.append((found.get("tool", ""), found.get("arguments", {})))
    return calls


def suspects(health: list[dict[str, Any]]) -> list[str]:
    """Return the services whose errors or latency rose, those with most failures first."""
    risen = []
    for row in health:
        if not row["incident_calls"] or not row["baseline_calls"]:
            continue
        ratio = row["incident_failed"] / row["incident_calls"]
        before = row["baseline_failed"] / row["baseline_calls"]
        if ratio > before + 0.1 or row["incident_p95"] > 3 * row["baseline_p95"]:
            risen.append(((-ratio, row["ServiceName"]), row["ServiceName"]))
    return [name for _, name in sorted(risen)]


def deepest(names: list[str], edges: list[dict[str, Any]]) -> str:
    """Return the suspect that calls no other suspect."""
    return next(
        name
        for name in names
        if not any(edge["caller"] == name and edge["callee"] in names for edge in edges)
    )


def path_to(culprit: str, names: list[str], edges: list[dict[str, Any]]) -> list[str]:
    """Return services that call each other down to the culprit, suspects where there is a choice."""
    path = [culprit]
    while callers := [e["caller"] for e in edges if e["callee"] == path[0] and e["caller"] not in path]:
        path.insert(0, min(callers, key=lambda name: (name not in names, name)))
    return path


def diagnosis_of(
    asked: str, health: list[dict[str, Any]], culprit: str, traces: list[dict]
) -> dict[str, Any]:
    row = next(row for row in health if row["ServiceName"] == culprit)
    failing = row["incident_failed"] / row["incident_calls"] > 0.1
    figures = [
        {"measure": measure, "value": value, "service": culprit, "window": name}
        for name in ("incident", "baseline")
        for measure, value in (("calls", row[f"{name}_calls"]), ("failed", row[f"{name}_failed"]))
    ]
    evidence = {
        "source": "traces",
        "summary": f"{row['incident_failed']} of {row['incident_calls']} calls failed",
        "trace_ids": [trace["TraceId"] for trace in traces],
        "span_ids": [trace["SpanId"] for trace in traces],
        "figures": figures,
    }
    return {
        "detected": True,
        "root_causes": [
            {
                "service": culprit,
                "mechanism": "error" if failing else "latency",
                "confidence": 0.9,
                "explanation": "the deepest service whose own spans changed",
                "evidence": [evidence],
            }
        ],
        "anomalies": [
            {
                "service": culprit,
                "signal": "error_rate" if failing else "latency",
                "direction": "up",
                "baseline": row["baseline_failed"] / row["baseline_calls"]
                if failing
                else row["baseline_p95"],
                "observed": row["incident_failed"] / row["incident_calls"]
                if failing
                else row["incident_p95"],
                "unit": "1" if failing else "ms",
            }
        ],
        "query": {"sql": evidence_sql(asked, culprit), "description": "failed calls of the culprit"},
        "confidence": 0.9,
        "summary": f"{culprit} is the cause",
    }


def next_call(conversation: Conversation) -> Call:
    """Return what the competent investigator does next."""
    return next(missing(conversation))


def missing(conversation: Conversation) -> Iterator[Call]:
    """Yield what the competent investigator has not done yet; only the first can be done now."""
    asked, made = conversation.asked(), [name for name, _ in calls_so_far(conversation)]
    query, submit = conversation.tool("query"), conversation.tool("submit_diagnosis")
    records = "propose_hypothesis" in conversation.offered
    health = table_with(conversation, "incident_calls")
    if health is None:
        yield Call(query, {"sql": health_sql(asked)})
    found = suspects(health or [])
    if not found:
        yield Call(submit, {"detected": False, "root_causes": [], "confidence": 0.9})
    if records and "propose_hypothesis" not in made:
        yield proposal(found[0], "most of its requests fail")
    edges = table_with(conversation, "caller")
    if edges is None:
        yield Call(query, {"sql": edges_sql(asked)})
    culprit = deepest(found, edges or [])
    traces = table_with(conversation, "SpanId")
    if traces is None:
        yield Call(query, {"sql": traces_sql(asked, culprit)})
    if records and culprit != found[0]:
        if "eliminate_hypothesis" not in made:
            reason = "it calls a service that fails as often"
            yield Call("eliminate_hypothesis", {"id": "h1", "reason": reason})
        if made.count("propose_hypothesis") < 2:
            yield proposal(culprit, "its own work fails")
    if records and "keep_hypothesis" not in made:
        key = f"h{made.count('propose_hypothesis')}"
        yield Call("keep_hypothesis", {"id": key, "reason": "nothing that it calls changed"})
    answer = diagnosis_of(asked, health or [], culprit, traces or [])
    yield Call(submit, {**answer, "critical_path": path_to(culprit, found, edges or [])})


def proposal(service: str, reason: str) -> Call:
    statement = f"{service} fails itself"
    return Call(
        "propose_hypothesis",
        {"statement": statement, "service": service, "mechanism": "error", "reason": reason},
    )


def competent(conversation: Conversation) -> Answer:
    """Find the culprit by queries; in the last turn, submit the most suspicious service."""
    if conversation.offered == ("ready",):  # the preflight of a run
        return Say(calls=(Call("ready"),))
    if conversation.offered == ("submit_diagnosis",):
        found = suspects(table_with(conversation, "incident_calls") or [])
        return submitting(found[0])(conversation) if found else Say("I have not found anything yet.")
    return Say("I look at the next thing.", (next_call(conversation),))


def closing(conversation: Conversation) -> Answer:
    """Do the same and stop once a diagnosis is accepted: agents have loops of their own."""
    if "accepted" in "".join(conversation.results()[-1:]):
        return Say("I have submitted the diagnosis.")
    return competent(conversation)


def as_text(conversation: Conversation) -> Answer:
    """Do the same in the text protocol."""
    call = next_call(conversation)
    block = json.dumps({"tool": call.name, "arguments": call.arguments})
    return Say(f"I look at the next thing.\n```json\n{block}\n```")


def submitting(service: str, **more: Any) -> Policy:
    """Return a policy that submits this service at once."""

    def policy(conversation: Conversation) -> Answer:
        answer = {"detected": True, "root_causes": [{"service": service, "mechanism": "error"}], **more}
        return Say(calls=(Call(conversation.tool("submit_diagnosis"), answer),))

    return policy


INVENTED = "billing-gateway-that-does-not-exist"


def hallucinating(conversation: Conversation) -> Answer:
    """Name a service that does not exist, with evidence that does not exist."""
    sql = f"SELECT ServiceName FROM otel_traces WHERE ServiceName = '{INVENTED}'"
    evidence = {"source": "traces", "summary": "12 of 19 calls failed", "trace_ids": ["ab" * 16]}
    cause = {"service": INVENTED, "mechanism": "error", "evidence": [evidence]}
    answer = {"detected": True, "root_causes": [cause], "query": {"sql": sql}}
    return Say(calls=(Call(conversation.tool("submit_diagnosis"), answer),))


def repeating(conversation: Conversation) -> Answer:
    """Ask the same question for ever."""
    spaces = " " * (conversation.turn % 3 + 1)
    return Say(calls=(Call(conversation.tool("query"), {"sql": f"SELECT{spaces}count() FROM otel_traces"}),))


def curious(conversation: Conversation) -> Answer:
    """Ask another question each turn and never submit, not even when nothing else is left."""
    return Say(calls=(Call(conversation.tool("query"), {"sql": f"SELECT {conversation.turn} AS n"}),))


def verbose(conversation: Conversation) -> Answer:
    """Read many rows before each step of the competent investigator."""
    if conversation.turn % 2:
        sql = f"SELECT *, {conversation.turn} AS n FROM otel_traces LIMIT 40"
        return Say("x" * 400, (Call(conversation.tool("query"), {"sql": sql}),))
    return competent(conversation)


def refusing(conversation: Conversation) -> Answer:
    """Refuse."""
    return Say(refusal="I cannot help with this request.")


def stalling(conversation: Conversation) -> Answer:
    """Never answer."""
    return Stall()


def failing(failure: Fail, times: int | None = None, then: Policy = competent) -> Policy:
    """Return a policy that fails for its first requests, or always."""

    def policy(conversation: Conversation) -> Answer:
        if times is None or conversation.attempt <= times:
            return failure
        return then(conversation)

    return policy


def first(answer: Callable[[Conversation], Answer], then: Policy = competent) -> Policy:
    """Return a policy whose first request is answered by *answer*."""

    def policy(conversation: Conversation) -> Answer:
        return answer(conversation) if conversation.attempt == 1 else then(conversation)

    return policy


def broken_json(conversation: Conversation) -> Answer:
    """Send arguments that are no JSON."""
    return Say(calls=(Call(conversation.tool("query"), '{"sql": "SELECT 1'),))


def wrong_names(conversation: Conversation) -> Answer:
    """Call tools that do not exist."""
    return Say(calls=(Call("run_sql", {"sql": "SELECT 1"}), Call("quer", {"sql": "SELECT 1"})))


def parallel(conversation: Conversation) -> Answer:
    """Ask everything that needs no earlier result at once."""
    asked, query = conversation.asked(), conversation.tool("query")
    if conversation.turn > 1 or conversation.offered == ("ready",):
        return competent(conversation)
    return Say(calls=(Call(query, {"sql": health_sql(asked)}), Call(query, {"sql": edges_sql(asked)})))


def submits_twice(conversation: Conversation) -> Answer:
    """Submit a first guess and the answer in one turn."""
    answer = competent(conversation)
    assert isinstance(answer, Say)
    if answer.calls[0].name != conversation.tool("submit_diagnosis"):
        return answer
    guess = {"detected": False, "root_causes": []}
    return Say(calls=(Call(answer.calls[0].name, guess), *answer.calls))


def saying(*texts: str) -> Policy:
    """Return a policy that says these texts, the last one again and again, and calls nothing."""

    def policy(conversation: Conversation) -> Answer:
        return Say(texts[min(conversation.turn, len(texts)) - 1])

    return policy


def guided(hint: str, before: Policy, then: Policy = competent) -> Policy:
    """Return a policy that changes its mind once the messages hold *hint*."""

    def policy(conversation: Conversation) -> Answer:
        return (then if hint in conversation.asked() else before)(conversation)

    return policy


POLICIES: Mapping[str, Policy] = {
    "competent": competent,
    "closing": closing,
    "hallucinating": hallucinating,
    "repeating": repeating,
    "curious": curious,
    "verbose": verbose,
    "refusing": refusing,
    "stalling": stalling,
    "overloaded": failing(Fail(503, "overloaded")),
    "broken-json": first(broken_json),
    "wrong-names": first(wrong_names),
    "parallel": parallel,
    "submits-twice": submits_twice,
    "prose": saying("Let me think.", "Root cause: payment"),
    "empty": saying(""),
    "text-protocol": as_text,
}
