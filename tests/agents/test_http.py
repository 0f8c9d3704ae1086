"""Agents behind HTTP: a real server, the request it gets, jobs, failures in words, and credentials."""

from __future__ import annotations

import json
import threading
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

from pytest_otel_diag.analyzers.agents.opening import open_agent, open_http
from pytest_otel_diag.config.settings import Settings
from pytest_otel_diag.errors import AnalyzerError, ConfigurationError, ModelUnavailable

ANSWER = {"root_causes": ["middle"]}
Reply = tuple[int, Any] | tuple[int, Any, dict[str, str]]


class Service:
    """A server whose replies a test scripts; it keeps what it was asked."""

    def __init__(self) -> None:
        self.asked: list[tuple[str, dict[str, str], Any]] = []
        self.replies: list[Reply] = []
        outer = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                body = self.rfile.read(int(self.headers["content-length"]))
                outer.reply(self, json.loads(body))

            def do_GET(self) -> None:
                outer.reply(self, None)

            def log_message(self, *_: Any) -> None:
                pass

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.server.daemon_threads = True
        self.url = f"//127.0.0.1:{self.server.server_port}"
        threading.Thread(target=self.server.serve_forever, args=(0.01,), daemon=True).start()

    def reply(self, handler: BaseHTTPRequestHandler, body: Any) -> None:
        self.asked.append((handler.path, dict(handler.headers), body))
        status, content, *headers = self.replies.pop(0) if len(self.replies) > 1 else self.replies[0]
        data = content if isinstance(content, bytes) else json.dumps(content).encode()
        handler.send_response(status)
        for name, value in (headers[0] if headers else {}).items():
            handler.send_header(name, value)
        handler.send_header("content-length", str(len(data)))
        handler.end_headers()
        handler.wfile.write(data)


@pytest.fixture
def service() -> Iterator[Service]:
    made = Service()
    yield made
    made.server.shutdown()
    made.server.server_close()


@pytest.fixture
def diagnose(investigation, service, tmp_path: Path) -> Callable[..., Any]:
    async def call(*replies: Reply, agent: dict[str, Any] | None = None, **http: Any) -> Any:
        service.replies = list(replies)
        if not (agent or http):
            return await open_http(f"{service.url}/diagnose", Settings()).diagnose(investigation)
        file = tmp_path / "agent.yaml"
        file.write_text(json.dumps({"http": {"url": f"http:{service.url}/", **http}, **(agent or {})}))
        return await open_agent(str(file), Settings()).diagnose(investigation)

    return call


@pytest.mark.parametrize(
    "response",
    [
        ANSWER,
        {"diagnosis": ANSWER, "trace": [1]},
        {"analysis": f"It is clear.\n```json\n{json.dumps(ANSWER)}\n```"},
        b"Root cause: middle",
    ],
)
async def test_an_address_alone_is_enough(diagnose, service, investigation, response):
    diagnosis = await diagnose((200, response))

    assert diagnosis.root_causes[0].service == "middle"
    path, headers, body = service.asked[0]
    assert path == "/diagnose"
    assert body["incident"]["start_ns"] == investigation.incident.start_ns
    assert body["gateway"]["url"].startswith("http://127.0.0.1:")
    assert "Authorization" not in headers


async def test_request_answer_and_usage_follow_the_file(diagnose, service, transcript, monkeypatch):
    monkeypatch.setenv("AGENT_TOKEN", "a-secret-of-the-agent")

    diagnosis = await diagnose(
        (200, {"data": {"text": "Root cause: middle", "tokens": 5}}),
        headers={"Authorization": "Bearer {env.AGENT_TOKEN}"},
        body={"ask": "Please: {question}", "mcp": {"url": "{mcp_url}", "key": "{token}"}, "n": 1},
        answer="data.text",
        agent={"usage": {"output_tokens": "data.tokens"}},
    )

    assert (diagnosis.root_causes[0].service, diagnosis.usage.output_tokens) == ("middle", 5)
    _, headers, body = service.asked[0]
    assert headers["authorization"] == "Bearer a-secret-of-the-agent"
    assert body["ask"].startswith("Please: You investigate")
    assert body["mcp"]["key"].startswith("otd_")
    assert body["n"] == 1
    assert "otd_" not in transcript.of("message")


async def test_a_job_is_polled_until_it_is_done(diagnose, service):
    diagnosis = await diagnose(
        (202, {"job": {"id": "a/b"}}),
        (200, {"state": "running"}),
        (200, {"state": "done", "result": ANSWER}),
        answer="result",
        poll={
            "id": "job.id",
            "url": f"http:{service.url}/jobs/{{id}}",
            "status": "state",
            "interval_s": 0.01,
        },
    )

    assert diagnosis.root_causes[0].service == "middle"
    assert [path for path, _, _ in service.asked] == ["/", "/jobs/a%2Fb", "/jobs/a%2Fb"]


async def test_a_job_that_fails_says_so(diagnose, service):
    with pytest.raises(AnalyzerError, match=r"ended as failed: .*no credits"):
        await diagnose(
            (202, {"id": 7}),
            (200, {"status": "failed", "why": "no credits"}),
            poll={"id": "id", "url": f"http:{service.url}/{{id}}"},
        )


async def test_a_busy_agent_is_asked_again(diagnose, service):
    diagnosis = await diagnose((503, "busy", {"retry-after": "0"}), (200, ANSWER))

    assert diagnosis.detected
    assert len(service.asked) == 2


@pytest.mark.parametrize(
    ("reply", "error", "words"),
    [
        ((401, {"error": "bad key"}), ConfigurationError, "answered 401 Unauthorized: .*bad key"),
        ((404, b""), ConfigurationError, "404 Not Found: the body is empty"),
        ((500, b"stack trace"), AnalyzerError, "500 Internal Server Error: stack trace"),
        (
            (302, b"", {"location": "http://u:pw-of-mine@h/"}),
            ConfigurationError,
            r"redirects to http://\*\*\*@h/",
        ),
        ((200, b"I do not know"), AnalyzerError, "unparsed: .*I do not know"),
        ((200, b""), AnalyzerError, "no answer: the response holds none: it is empty"),
    ],
)
async def test_failures_are_in_words_and_not_repeated(diagnose, service, reply, error, words):
    with pytest.raises(error, match=words):
        await diagnose(reply)

    assert len(service.asked) == 1


async def test_one_repair_is_asked_for_and_counted(diagnose, service):
    diagnosis = await diagnose((200, b"It must be middle, I think"), (200, ANSWER), agent={"repair": True})

    assert diagnosis.usage.repairs == 1
    assert "Return only this JSON" in service.asked[1][2]["question"]


async def test_an_agent_that_does_not_listen_is_no_failure_of_the_analyzer(service, investigation):
    service.server.shutdown()
    service.server.server_close()
    analyzer = open_http(f"{service.url}/", Settings())

    with pytest.raises(ModelUnavailable, match="cannot be reached"):
        await analyzer.prepare()
    with pytest.raises(ModelUnavailable, match="cannot be reached"):
        await analyzer.diagnose(investigation)


@pytest.mark.parametrize(
    ("http", "words"),
    [
        ({"url": "http://"}, "is no address of an agent"),
        ({"url": "http://h/", "headers": {"A": "{env.NO_SUCH_KEY}"}}, "NO_SUCH_KEY is not set"),
        ({"url": "http://h/", "body": {"q": "{questions}"}}, "did you mean 'question'"),
        ({"url": "https://h/", "tls": {"ca": "none.pem"}}, "certificates of the agent cannot be used"),
    ],
)
def test_mistakes_in_a_call_are_found_before_anything_runs(tmp_path, http, words):
    file = tmp_path / "agent.yaml"
    file.write_text(json.dumps({"http": http}))

    with pytest.raises(ConfigurationError, match=words):
        open_agent(str(file), Settings())


def test_an_address_is_described_without_its_login():
    described = open_http("//user:pass-of-mine@host/x", Settings()).describe()

    assert described["endpoint"] == "http://***@host/x"


async def test_the_usage_of_an_answer_that_cannot_be_read_is_kept(diagnose, transcript):
    reply = (200, {"text": "I do not know", "tokens": 90, "cost": 0.25})
    with pytest.raises(AnalyzerError, match="unparsed"):
        await diagnose(reply, answer="text", agent={"usage": {"input_tokens": "tokens", "cost_usd": "cost"}})
    (used,) = [content for kind, content in transcript.entries if kind == "usage"]
    assert used == {"input_tokens": 90, "cost_usd": 0.25}
