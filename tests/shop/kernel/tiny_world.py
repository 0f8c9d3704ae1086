"""A shop of two services, small enough to reason about: front calls back."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from pytest_otel_diag.shop.flag_provider import Evaluation, FlagScalar
from pytest_otel_diag.shop.kernel import Call, Operation, ServiceSpec, SpanShape, Steps, World
from pytest_otel_diag.shop.records import Scope

START_NS = 1_700_000_000_000_000_000
SCOPE = Scope("tiny", "1.0")
CLIENT = SpanShape("back.Answer", "Client", SCOPE, {"rpc.system": "grpc"})
FRONT = SpanShape("GET /", "Server", SCOPE, {"http.request.method": "GET"})
BACK = SpanShape("back.Answer", "Server", SCOPE, {"rpc.system": "grpc"})
USER = SpanShape("user", "Client", SCOPE)


class Flags:
    """Flags in a dictionary; unknown flags return the default with reason ERROR."""

    def __init__(self, **values: FlagScalar) -> None:
        self.values: dict[str, FlagScalar] = dict(values)

    def evaluate(self, key: str, default: FlagScalar, context: Mapping[str, FlagScalar]) -> Evaluation:
        if key not in self.values:
            return Evaluation(default, "", "ERROR")
        return Evaluation(self.values[key], "on", "STATIC")


def front(call: Call, request: Any) -> Steps:
    yield from call.work(0.002)
    reply = yield from call.request("back", "Answer", request)
    call.log("INFO", "answered", number=reply)
    return reply


def back(call: Call, request: Any) -> Steps:
    yield from call.work(0.003)
    return request + 1


def world(seed: int = 1, flags: Flags | None = None) -> World:
    return World(seed, flags=flags or Flags(), start_ns=START_NS)


def two_services(seed: int = 1, flags: Flags | None = None, **back_options: Any) -> World:
    made = world(seed, flags)
    made.add(ServiceSpec("front", {"GET /": Operation(front, FRONT)}, client=lambda _target, _op: CLIENT))
    options: dict[str, Any] = {"operations": {"Answer": Operation(back, BACK)}, **back_options}
    made.add(ServiceSpec("back", **options))
    made.add(ServiceSpec("user", client=lambda _target, _op: USER))
    return made


def ask(made: World, times: int, every_s: float, operation: str = "GET /") -> list[Any]:
    """Let a user send *times* requests; returns the list that the replies and failures go to."""
    replies: list[Any] = []

    def one(number: int) -> Steps:
        try:
            replies.append(
                (yield from Call.root(made.service("user").instances[0]).request("front", operation, number))
            )
        except Exception as error:
            replies.append(error)

    def user() -> Steps:
        for number in range(times):
            made.spawn(one(number))
            yield made.sleep(every_s)

    made.spawn(user())
    return replies


def run(made: World, seconds: float) -> None:
    made.advance(made.now_ns + round(seconds * 1e9))
