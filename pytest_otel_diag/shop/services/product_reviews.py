"""product-reviews and llm (Python), only in release 2.2: reviews of a product and answers about them.

llmRateLimitError makes the mock model respond with 429 to some requests; llmInaccurateResponse makes it
answer wrongly about one product, which only the text of the answer shows.
"""

from __future__ import annotations

from typing import Any

from pytest_otel_diag.shop.demo.blueprint import Blueprint
from pytest_otel_diag.shop.demo.instrumentation import Http
from pytest_otel_diag.shop.demo.payloads import HttpRequest, fields
from pytest_otel_diag.shop.kernel import (
    Behaviour,
    Call,
    Operation,
    RpcFailure,
    ServiceSpec,
    SpanOutcome,
    SpanShape,
    Steps,
    exception_event,
)
from pytest_otel_diag.shop.records import Scope
from pytest_otel_diag.shop.services import flagd, product_catalog
from pytest_otel_diag.shop.services.databases import DATABASE

SERVICE = "oteldemo.ProductReviewService"
GET, AVERAGE = f"{SERVICE}/GetProductReviews", f"{SERVICE}/GetAverageProductReviewScore"
ASK = f"{SERVICE}/AskProductAIAssistant"
COMPLETE = "POST /v1/chat/completions"
INACCURATE_PRODUCT = "L9ECAV7KIM"
RATE_LIMITED_RATIO = 0.5
"""Share of requests that the rate-limited mock model rejects."""
_REFUSAL = (
    "Error code: 429 - {'error': {'message': 'Rate limit reached. Please try again later.', "
    "'type': 'rate_limit_exceeded', 'param': 'null', 'code': 'null'}}"
)

_TRACER = Scope("product-reviews", "")
_OPENAI = Scope("opentelemetry.instrumentation.openai.v1", "0.48.0")
_PSYCOPG = Scope("opentelemetry.instrumentation.psycopg2", "0.60b0")
_FLASK = Scope("opentelemetry.instrumentation.flask", "0.60b0")
_LOGGER = Scope("main", "")


def _reviews_route(call: Call, web: HttpRequest) -> Steps:
    return call.request("product-reviews", GET, web.body)


def _average_route(call: Call, web: HttpRequest) -> Steps:
    return call.request("product-reviews", AVERAGE, web.body)


def _ask_route(call: Call, web: HttpRequest) -> Steps:
    return call.request("product-reviews", ASK, web.body)


ROUTES = {
    "GET /api/product-reviews/[productId]": _reviews_route,
    "GET /api/product-reviews-avg-score/[productId]": _average_route,
    "POST /api/product-ask-ai-assistant/[productId]": _ask_route,
}


def _refused(failure: RpcFailure) -> SpanOutcome:
    event = exception_event("openai.RateLimitError", failure.message)
    return SpanOutcome("Error", failure.message, {"error.type": "RateLimitError"}, (event,))


def _assistant(assist: SpanShape, around: float) -> Behaviour:
    """Return the behaviour that asks the model about a product; *around* is the framework's CPU time."""

    def ask(call: Call, product: str) -> Steps:
        yield from call.work(around)
        answer = yield from assisted(call, product)
        yield from call.work(around)
        return answer

    def assisted(call: Call, product: str) -> Steps:
        with call.span(assist, **{"app.product.id": product}):
            limited = yield from call.flag("llmRateLimitError", False)
            if limited and call.instance.rng.random() < RATE_LIMITED_RATIO:
                try:
                    yield from call.request("llm", COMPLETE, "rate-limited")
                except RpcFailure:
                    call.log("ERROR", f"Caught Exception: {_REFUSAL}", scope=_LOGGER)
                    return "The system is unable to process your response. Please try again later."
            yield from call.request("llm", COMPLETE, "")
            yield from call.request("product-catalog", product_catalog.GET, product)
            yield from call.request(DATABASE, "SELECT products")
            inaccurate = False
            if product == INACCURATE_PRODUCT:
                inaccurate = yield from call.flag("llmInaccurateResponse", False)
            yield from call.request("llm", COMPLETE, "inaccurate" if inaccurate else "")
        return "answered"

    return ask


def _reviews(blueprint: Blueprint) -> ServiceSpec:
    rpc = blueprint.rpc("python")
    fetch, assist = (
        SpanShape(name, "Internal", _TRACER) for name in ("get_product_reviews", "get_ai_assistant_response")
    )
    cost, around = blueprint.cpu("product-reviews", 1.2), blueprint.cpu("product-reviews", 0.15)
    query = SpanShape("SELECT", "Client", _PSYCOPG, {"db.system": "postgresql", "db.name": "otel"})
    chat = SpanShape(
        "openai.chat",
        "Client",
        _OPENAI,
        {"gen_ai.system": "openai", "gen_ai.request.model": "astronomy-llm"},
        failed=_refused,
    )

    def get(call: Call, product: str) -> Steps:
        call.log("INFO", f"Receive GetProductReviews for product id:{product}", scope=_LOGGER)
        yield from call.work(around)
        with call.span(fetch, **fields({"app.product.id": product, "app.product_reviews.count": 5})):
            yield from call.work(cost)
            yield from call.request(DATABASE, "SELECT products")
        yield from call.work(around)

    def average(call: Call, product: str) -> Steps:
        call.log("INFO", f"Receive GetAverageProductReviewScore for product id:{product}", scope=_LOGGER)
        yield from call.work(cost)
        yield from call.request(DATABASE, "SELECT product")

    def client(target: str, operation: str) -> SpanShape | None:
        if target == DATABASE:
            return query
        if target == "llm":
            return chat
        return rpc.client(operation, host=target, port=3550) if target == "product-catalog" else None

    operations = {
        GET: Operation(get, rpc.server(GET)),
        AVERAGE: Operation(average, rpc.server(AVERAGE)),
        ASK: Operation(_assistant(assist, around), rpc.server(ASK)),
    }
    return blueprint.spec(
        "product-reviews", operations=operations, client=client, flags=blueprint.flag_client(hook=True),
        loops=(flagd.LISTEN,),
    )  # fmt: skip


def _llm(blueprint: Blueprint) -> ServiceSpec:
    cost = blueprint.cpu("llm", 2.0)

    def complete(call: Call, wanted: Any) -> Steps:
        yield from call.work(cost)
        if wanted == "rate-limited":
            raise RpcFailure("429", _REFUSAL)

    server = Http(_FLASK, "llm", 8000).server("POST", "/v1/chat/completions")
    return blueprint.spec("llm", operations={COMPLETE: Operation(complete, server)})


def specs(blueprint: Blueprint) -> list[ServiceSpec]:
    """Return the specs of both services."""
    return [_reviews(blueprint), _llm(blueprint)]
