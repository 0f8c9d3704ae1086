"""Calls: conservation, failures, deadlines, branches, flags, and repeatability by seed."""

from __future__ import annotations

import hashlib
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pytest_otel_diag.errors import ConfigurationError
from pytest_otel_diag.shop.flag_provider import Evaluation, NoFlags
from pytest_otel_diag.shop.kernel import (
    Call,
    FlagClient,
    Operation,
    RpcFailure,
    ServiceSpec,
    SpanOutcome,
    SpanShape,
    Steps,
    World,
    described,
    exception_event,
)
from pytest_otel_diag.shop.kernel.call import severity_number
from pytest_otel_diag.shop.kernel.resources.hosts import MAX_SKEW_NS
from pytest_otel_diag.shop.records import Batch, SpanRecord
from tests.shop.kernel.tiny_world import BACK, CLIENT, SCOPE, Flags, ask, run, two_services, world


def _taken(made: World) -> Batch:
    return made.recorder.take(made.now_ns, made.now_ns)


def _fingerprint(batch: Batch) -> str:
    plain = [
        [(span._replace(resource=None, scope=None), span.resource.attributes) for span in batch.spans],  # type: ignore[arg-type]
        [(log._replace(resource=None, scope=None), log.resource.attributes) for log in batch.logs],  # type: ignore[arg-type]
        [
            (point.exported_ns, point.time_ns, point.instrument.name, point.attributes, str(point.value))
            for point in batch.metrics
        ],
    ]
    return hashlib.sha256(repr(plain).encode()).hexdigest()


def _busy(seed: int, *, steps: int = 1) -> tuple[World, Batch]:
    made = two_services(seed)
    made.start_collector()
    ask(made, 200, 0.2)
    whole = Batch()
    for _ in range(steps):
        run(made, 120 / steps)
        part = _taken(made)
        whole.spans += part.spans
        whole.logs += part.logs
        whole.metrics += part.metrics
    return made, whole


def test_the_same_seed_gives_the_same_bytes_and_another_seed_does_not() -> None:
    assert _fingerprint(_busy(1)[1]) == _fingerprint(_busy(1)[1])
    assert _fingerprint(_busy(1)[1]) != _fingerprint(_busy(2)[1])


def test_the_step_size_does_not_change_the_telemetry() -> None:
    assert _fingerprint(_busy(1, steps=1)[1]) == _fingerprint(_busy(1, steps=40)[1])


def test_spans_lie_inside_their_parents() -> None:
    _, batch = _busy(3)
    spans: dict[str, SpanRecord] = {span.span_id: span for span in batch.spans}
    pairs = [(span, spans[span.parent_id]) for span in batch.spans if span.parent_id]
    assert len(pairs) == 600
    for child, parent in pairs:
        # both run on one host and so share its clock
        assert parent.start_ns <= child.start_ns
        assert child.start_ns + child.duration_ns <= parent.start_ns + parent.duration_ns


def test_no_record_is_visible_before_its_end() -> None:
    _, batch = _busy(4)
    slack = MAX_SKEW_NS
    assert all(span.start_ns + span.duration_ns - slack < span.exported_ns for span in batch.spans)
    assert all(log.time_ns - slack < log.exported_ns for log in batch.logs)
    assert all(point.time_ns - slack < point.exported_ns for point in batch.metrics)


def test_take_returns_each_visible_record_once() -> None:
    made = two_services()
    ask(made, 100, 0.1)
    seen: list[str] = []
    for _ in range(60):
        run(made, 0.5)
        batch = _taken(made)
        assert all(span.exported_ns <= made.now_ns for span in batch.spans)
        seen += [span.span_id for span in batch.spans]
    assert len(seen) == len(set(seen)) == 400
    assert not made.recorder.take(made.now_ns, made.now_ns - 10**9).spans


def test_host_clocks_have_a_small_constant_skew() -> None:
    made = World(1, flags=NoFlags(), start_ns=0)
    skews = {made.host(f"node-{number}").skew_ns for number in range(20)}
    assert len(skews) == 20
    assert all(abs(skew) <= MAX_SKEW_NS for skew in skews)
    assert made.host("node-3").skew_ns == World(1, flags=NoFlags(), start_ns=0).host("node-3").skew_ns


def _of(made: World, service: str) -> Call:
    return Call.root(made.service(service).instances[0])


def _result(made: World, steps: Steps, seconds: float = 30.0) -> Any:
    """Run *steps* to their end and return the reply or the failure."""
    found: list[Any] = []

    def watched() -> Steps:
        try:
            found.append((yield from steps))
        except RpcFailure as failure:
            found.append(failure)

    made.spawn(watched())
    run(made, seconds)
    (answer,) = found
    return answer


def _failing(call: Call, _: Any) -> Steps:
    yield from call.work(0.001)
    raise RpcFailure("INTERNAL", "it broke")


FAILED = SpanShape(
    "back.Answer",
    "Server",
    SCOPE,
    {"rpc.system": "grpc"},
    failed=lambda failure: SpanOutcome(
        "Error", failure.message, {"rpc.grpc.status_code": 13}, (exception_event("Boom", failure.message),)
    ),
)


def test_a_failure_reaches_the_caller_and_marks_both_spans() -> None:
    made = two_services(operations={"Answer": Operation(_failing, FAILED)})
    failure = _result(made, _of(made, "front").request("back", "Answer"))
    assert (failure.code, failure.message, failure.kind) == ("INTERNAL", "it broke", "application")
    client, server = sorted(_taken(made).spans, key=lambda span: span.start_ns)
    assert (client.status, client.message) == ("Error", "it broke")
    assert server.attributes == {"rpc.system": "grpc", "rpc.grpc.status_code": 13}
    assert [event.name for event in server.events] == ["exception"]
    assert server.events[0].attributes["exception.message"] == "it broke"
    assert made.counters.requests_failed == made.counters.requests_begun == 1


def test_calls_to_missing_services_fail() -> None:
    made = two_services()
    missing = _result(made, _of(made, "front").request("badAddress", "Answer"))
    assert (missing.kind, missing.code) == ("unresolved", "UNAVAILABLE")
    made.service("back").instances[0].kill("test")
    refused = _result(made, _of(made, "front").request("back", "Answer"), 0.5)
    assert refused.kind == "refused"
    unknown = _result(made, _of(made, "user").request("front", "DELETE /"))
    assert unknown.code == "UNIMPLEMENTED"


def test_a_client_library_may_rephrase_connection_failures() -> None:
    made = world()
    words = RpcFailure("503", "upstream connect error", kind="unresolved")
    made.add(ServiceSpec("proxy", rephrase=lambda _: words))
    assert _result(made, _of(made, "proxy").request("nobody", "GET /")) is words


def _slow(call: Call, request: Any) -> Steps:
    yield from call.wait(5.0)
    return request


def test_a_deadline_ends_the_wait_of_the_caller_but_not_the_work() -> None:
    made = two_services(operations={"Answer": Operation(_slow, BACK)})
    late = _result(made, _of(made, "front").request("back", "Answer", 1, timeout_s=2.0), 3)
    assert (late.code, late.kind) == ("DEADLINE_EXCEEDED", "timeout")
    run(made, 20)
    client, server = sorted(_taken(made).spans, key=lambda span: span.start_ns)
    assert client.duration_ns == pytest.approx(2e9)
    assert server.duration_ns == pytest.approx(5e9, rel=1e-3)
    assert _result(made, _of(made, "front").request("back", "Answer", 7, timeout_s=9.0)) == 7


def test_a_failure_within_the_deadline_is_that_of_the_callee() -> None:
    made = two_services(operations={"Answer": Operation(_failing, BACK)})
    assert _result(made, _of(made, "front").request("back", "Answer", timeout_s=2.0)).code == "INTERNAL"


def test_branches_run_concurrently_and_return_in_order() -> None:
    made = two_services(operations={"Answer": Operation(_slow, BACK)})
    outer = SpanShape("outer", "Internal", SCOPE)

    def branch(number: int) -> Any:
        return lambda call: call.request("back", "Answer", number)

    def behaviour(call: Call) -> Steps:
        with call.span(outer):
            return (yield from call.gather(*(branch(number) for number in range(3))))

    assert _result(made, behaviour(_of(made, "front")), 8) == [0, 1, 2]
    run(made, 20)
    spans = _taken(made).spans
    (root,) = [span for span in spans if span.name == "outer"]
    clients = [span for span in spans if span.kind == "Client"]
    assert {span.parent_id for span in clients} == {root.span_id}
    assert root.duration_ns < 5.1e9


def test_the_first_failure_of_a_branch_is_raised_after_all_have_ended() -> None:
    made = two_services(
        operations={"Answer": Operation(_slow, BACK), "Fail": Operation(_failing, BACK)}, workers=9
    )

    def behaviour(call: Call) -> Steps:
        return (
            yield from call.gather(
                lambda one: one.request("back", "Answer", 1), lambda other: other.request("back", "Fail")
            )
        )

    assert _result(made, behaviour(_of(made, "front"))).message == "it broke"
    assert made.counters.requests_ended == 2


def test_the_death_of_a_caller_cancels_its_branches_and_calls_with_deadlines() -> None:
    made = two_services(operations={"Answer": Operation(_slow, BACK)}, startup_s=0.1, restart_s=0.1)

    def both(call: Call, request: Any) -> Steps:
        return (
            yield from call.gather(
                lambda one: one.request("back", "Answer", request),
                lambda other: other.request("back", "Answer", request, timeout_s=9.0),
            )
        )

    made.add(ServiceSpec("middle", {"Both": Operation(both, BACK)}, client=lambda _target, _op: CLIENT))
    found: list[Any] = []

    def ask_middle() -> Steps:
        try:
            yield from _of(made, "front").request("middle", "Both", 1)
        except RpcFailure as failure:
            found.append(failure.kind)

    made.spawn(ask_middle())
    run(made, 1)
    made.service("middle").instances[0].kill("test")
    run(made, 30)
    assert found == ["lost"]
    assert made.counters.requests_begun == made.counters.requests_ended == 3
    # the callees are cancelled at once and record it
    cancelled = [span for span in _taken(made).spans if span.resource.service == "back"]
    assert {span.message for span in cancelled} == {"context canceled"}
    assert all(span.duration_ns < 2e9 for span in cancelled)
    assert not made.service("back").instances[0].inflight


def test_calls_that_wait_for_a_worker_fail_when_the_process_dies() -> None:
    made = two_services(operations={"Answer": Operation(_slow, BACK)}, workers=1)
    replies = ask(made, 3, 0.1)
    run(made, 1)
    instance = made.service("back").instances[0]
    assert instance.pool.queued == 2
    instance.kill("test")
    instance.kill("again")  # killing a dead process has no effect
    run(made, 10)
    assert [reply.kind for reply in replies] == ["lost"] * 3
    assert made.counters.kills == 1


def test_a_replaced_process_finishes_its_calls_and_exports_what_it_has() -> None:
    made = two_services(operations={"Answer": Operation(_slow, BACK)}, startup_s=0.5)
    replies = ask(made, 2, 0.1)
    run(made, 1)
    old = made.service("back").instances[0]
    made.service("back").replace()
    run(made, 30)
    assert replies == [0, 1]
    assert not old.alive
    served = [span for span in _taken(made).spans if span.resource is old.resource]
    assert len(served) == 2


def test_replacing_a_process_that_dies_meanwhile_keeps_the_number_of_instances() -> None:
    made = two_services(startup_s=2.0, restart_s=1.0)
    made.service("back").replace()
    run(made, 1)
    made.service("back").instances[0].kill("test")
    run(made, 30)
    assert [one.alive for one in made.service("back").instances] == [True]
    assert _result(made, _of(made, "front").request("back", "Answer", 1)) == 2


def _asking(call: Call, _: Any) -> Steps:
    return (yield from call.flag("broken", default=False, context={"user": "u"}))


def test_a_flag_is_evaluated_and_the_hook_records_its_event() -> None:
    client = FlagClient(event=lambda key, answer: ("feature_flag", {"key": key, "variant": answer.variant}))
    made = two_services(flags=Flags(broken=True), operations={"Answer": Operation(_asking, BACK)}, seed=1)
    asking = ServiceSpec("asking", {"Answer": Operation(_asking, BACK)}, flags=client)
    made.add(asking)
    assert _result(made, _of(made, "front").request("back", "Answer")) is True
    assert _result(made, _of(made, "front").request("asking", "Answer")) is True
    events = {span.resource.service: span.events for span in _taken(made).spans if span.kind == "Server"}
    assert events["back"] == ()
    assert [(event.name, event.attributes) for event in events["asking"]] == [
        ("feature_flag", {"key": "broken", "variant": "on"})
    ]


def _flagd(call: Call, request: Any) -> Steps:
    yield from call.work(0.0002)
    key, default, context = request
    return call.world.flags.evaluate(key, default, context)


def test_a_remote_provider_is_called_and_its_failure_means_the_default() -> None:
    resolve = SpanShape("flagd.evaluation.v1.Service/ResolveBoolean", "Server", SCOPE)
    client = FlagClient(remote="flagd", operation=lambda _: "ResolveBoolean")
    made = two_services(
        flags=Flags(broken=True),
        operations={"Answer": Operation(_asking, BACK)},
        client=lambda _target, _op: CLIENT,
    )
    made.add(ServiceSpec("remote", {"Answer": Operation(_asking, BACK)}, flags=client,
                         client=lambda _target, _op: CLIENT))  # fmt: skip
    assert (
        _result(made, _of(made, "front").request("remote", "Answer")) is False
    )  # no service is available yet
    made.add(ServiceSpec("flagd", {"ResolveBoolean": Operation(_flagd, resolve)}))
    assert _result(made, _of(made, "front").request("remote", "Answer")) is True
    assert [span.name for span in _taken(made).spans if span.resource.service == "flagd"] == [resolve.name]


def test_no_flags_returns_defaults() -> None:
    assert NoFlags().evaluate("any", 3, {}) == Evaluation(3, "", "ERROR")


def test_spans_take_attributes_events_and_a_status_without_failing() -> None:
    made = world()
    made.add(ServiceSpec("solo"))
    shape = SpanShape("step", "Internal", SCOPE, {"fixed": 1}, ok=SpanOutcome(attributes={"done": True}))

    def behaviour(call: Call) -> Steps:
        call.set(lost=1)  # no span is open: nothing to set
        call.event("lost")
        call.fail("lost")
        with call.span(shape, **{"dynamic.part": "x"}):
            call.set(**{"set.later": 2})
            call.event("seen", number=1)
            yield from call.work(0.001)
            call.fail("went wrong", SpanOutcome(attributes={"code": 5}, events=(("exception", {}),)))
        with call.span(shape):
            pass

    _result(made, behaviour(_of(made, "solo")))
    first, second = _taken(made).spans
    assert first.attributes == {"fixed": 1, "done": True, "dynamic.part": "x", "set.later": 2, "code": 5}
    assert [event.name for event in first.events] == ["seen", "exception"]
    assert (first.status, first.message) == ("Error", "went wrong")
    assert second.attributes == {"fixed": 1, "done": True}
    assert (second.status, second.events, second.parent_id) == ("Unset", (), "")


def test_logs_carry_the_current_span_unless_uncorrelated() -> None:
    made = two_services()
    replies = ask(made, 1, 1.0)
    run(made, 1)

    def behaviour(call: Call) -> Steps:
        with call.span(BACK):
            call.log("warn", "uncorrelated", correlated=False)
            yield from call.work(0.001)
        call.log("Information", "outside", event_name="an.event")

    _result(made, behaviour(_of(made, "back")))
    assert replies == [1]
    batch = _taken(made)
    by_body = {log.body: log for log in batch.logs}
    spans = {span.span_id for span in batch.spans}
    assert by_body["answered"].span_id in spans
    assert by_body["uncorrelated"].trace_id == ""
    assert by_body["outside"].event_name == "an.event"
    assert [by_body[body].severity_number for body in ("answered", "uncorrelated", "outside")] == [9, 13, 9]


def test_all_spellings_of_severities_are_known() -> None:
    spellings = ("trace", "Debug", "INFO", "Information", "Warning", "error", "Critical", "loud")
    assert [severity_number(text) for text in spellings] == [1, 5, 9, 9, 13, 17, 21, 0]


def test_a_service_is_added_once_and_found_by_its_name() -> None:
    made = two_services()
    with pytest.raises(ConfigurationError, match="already has a service 'back'"):
        made.add(ServiceSpec("back"))
    with pytest.raises(ConfigurationError, match="did you mean 'front'"):
        made.service("frnot")


def test_attributes_may_be_written_as_keywords() -> None:
    assert described(rpc__system="grpc", plain=1) == {"rpc.system": "grpc", "plain": 1}
    assert exception_event("E", "m", "trace", escaped=True)[1]["exception.escaped"] == "True"


def test_bugs_in_a_behaviour_propagate() -> None:
    def broken(call: Call, _: Any) -> Steps:
        yield from call.work(0.001)
        raise ZeroDivisionError

    made = two_services(operations={"Answer": Operation(broken, BACK)})
    made.spawn(_of(made, "front").request("back", "Answer"))
    with pytest.raises(ZeroDivisionError):
        run(made, 1)


@settings(max_examples=25, deadline=None)
@given(
    seed=st.integers(0, 2**31),
    kills=st.lists(st.floats(0.1, 20.0, allow_nan=False), max_size=4),
    fail_every=st.integers(2, 9),
)
def test_every_request_ends_exactly_once_when_processes_die(
    seed: int, kills: list[float], fail_every: int
) -> None:
    def shaky(call: Call, request: Any) -> Steps:
        yield from call.work(0.02)
        yield from call.wait(0.1)
        if request % fail_every == 0:
            raise RpcFailure("INTERNAL", "now and then")
        return request

    made = two_services(
        seed, operations={"Answer": Operation(shaky, BACK)}, workers=2, restart_s=0.5, startup_s=0.5
    )
    replies = ask(made, 60, 0.3)

    def reaper() -> Steps:
        for at in sorted(kills):
            yield made.sleep(max(0.0, at - made.now_s))
            for service in ("back", "front"):
                if made.service(service).instances:
                    made.service(service).instances[0].kill("test")

    made.spawn(reaper())
    run(made, 90)
    counters = made.counters
    assert len(replies) == 60
    assert counters.requests_begun == counters.requests_ended
    host = made.host("node-1")
    assert host.runnable == 0
    for service in made.services.values():
        for instance in service.instances:
            assert (instance.runnable, instance.pool.busy, instance.pool.queued) == (0, 0, 0)
            assert not instance.inflight
    batch = _taken(made)
    ids = [span.span_id for span in batch.spans]
    assert len(ids) == len(set(ids))
