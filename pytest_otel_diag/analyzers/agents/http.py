"""Agents that are services behind HTTP: a request with the question, a response or a job with the answer."""

from __future__ import annotations

import asyncio
import hashlib
import json
import os
import ssl
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import quote, urlsplit

from pytest_otel_diag.analyzers.addresses import on_this_machine
from pytest_otel_diag.analyzers.agents import templates
from pytest_otel_diag.analyzers.agents.definition import AgentFile, HttpCall, Poll
from pytest_otel_diag.analyzers.agents.json_paths import found_at, parsed
from pytest_otel_diag.analyzers.agents.question import QuestionTemplate, question_fields, question_text
from pytest_otel_diag.analyzers.agents.turns import Reply, diagnosed, usage_from
from pytest_otel_diag.errors import AnalyzerError, ConfigurationError, ModelUnavailable
from pytest_otel_diag.extras import require
from pytest_otel_diag.gateway import Access, shared_gateway
from pytest_otel_diag.model.diagnosis import Diagnosis
from pytest_otel_diag.ports import Investigation
from pytest_otel_diag.secret import SecretText, credential, masked

_MOST_BYTES = 16 << 20
_SHOWN = 300
_ATTEMPTS = 3
_WAIT_S = 0.5
_LONGEST_WAIT_S = 30.0
_BUSY = frozenset({429, 503})
"""Responses that say that the request was not begun."""
_USERS = frozenset({400, 401, 403, 404, 405, 415, 422})
"""Responses that blame the request, so what the user wrote."""
_TEXTS = ("answer", "analysis", "result", "output", "response", "text", "content")
"""Fields of a response that may hold the text of the answer."""


class HttpAnalyzer:
    """Calls an agent over HTTP for each investigation; raises ConfigurationError for an unusable address."""

    def __init__(self, agent: AgentFile, call: HttpCall, *, folder: Path, question: QuestionTemplate) -> None:
        self._agent = agent
        self._call = call
        self._question = question
        self._url = _address(call.url)
        require("httpx", "agents", "an agent behind HTTP")
        self._tls = _context(call, folder)
        for text in call.headers.values():
            credential(templates.filled(text, {}, variables=True))

    def describe(self) -> Mapping[str, str]:
        """Return address, question and a digest of all that the agent's file says."""
        text = self._agent.model_dump_json(exclude={"description"})
        return {
            "endpoint": str(self._url),
            "question": self._question.version,
            "agent file": hashlib.sha256(text.encode()).hexdigest()[:12],
        }

    async def prepare(self) -> tuple[str, ...]:
        """Check that an agent on this machine listens; raises ModelUnavailable."""
        parts = urlsplit(self._url.reveal())
        if not on_this_machine(self._url.reveal()):
            return ()
        port = parts.port or (443 if parts.scheme == "https" else 80)
        try:
            async with asyncio.timeout(self._call.connect_timeout_s):
                _, writer = await asyncio.open_connection(parts.hostname, port)
        except (OSError, TimeoutError) as error:
            raise ModelUnavailable(f"the agent at {self._url} cannot be reached: {error}") from error
        writer.close()
        return ()

    async def diagnose(self, investigation: Investigation) -> Diagnosis:
        """Return the diagnosis of the agent.

        Raises AnalyzerError for an agent that fails or gives no answer, ModelUnavailable for one that cannot
        be reached, ConfigurationError for one that refuses the request.
        """
        import httpx  # noqa: PLC0415 - only where an agent is called

        question = question_text(investigation, template=self._question)
        await investigation.transcript.add("message", {"role": "user", "text": question})
        timeout_s = _timeout_s(self._agent, investigation)
        ends_s = time.monotonic() + timeout_s
        local = on_this_machine(self._url.reveal())
        with shared_gateway().access(investigation) as access:
            async with httpx.AsyncClient(
                timeout=httpx.Timeout(timeout_s, connect=self._call.connect_timeout_s),
                follow_redirects=False,
                trust_env=not local,
                verify=self._tls,
            ) as client:
                service = _Service(client, self._call, self._url)
                channel = _Asked(
                    service, self._agent, self._question, investigation, access, timeout_s, ends_s
                )
                return await diagnosed(investigation, channel, question, repair=self._agent.repair)

    async def close(self) -> None:
        """Hold nothing between investigations."""


@dataclass(frozen=True)
class _Asked:
    """The channel to a service: each turn is one request; all share the time."""

    service: _Service
    agent: AgentFile
    template: QuestionTemplate
    investigation: Investigation
    access: Access
    timeout_s: float
    ends_s: float

    async def ask(self, question: str) -> Reply:
        """Send the request; raises what :meth:`HttpAnalyzer.diagnose` raises."""
        toolbox = self.access.toolbox
        before = toolbox.submissions
        fields = question_fields(self.investigation, template=self.template) | {"question": question}
        gateway = {
            "url": self.access.url,
            "mcp_url": self.access.mcp_url,
            "token": self.access.token.reveal(),
        }
        values = {"question": question, "question_json": {**fields, "gateway": gateway}, **gateway}
        remarks: tuple[str, ...] = ()
        text = ""
        try:
            async with asyncio.timeout(max(self.ends_s - time.monotonic(), 0.0)):
                text = await self.service.answer(values)
        except TimeoutError:
            if toolbox.submissions == before:
                raise AnalyzerError(f"no answer within {self.timeout_s:.4g} s") from None
            remarks = ("the agent did not end its response after its answer",)
        if text:
            await self.investigation.transcript.add("output", {"stream": "response", "text": text})
        document = parsed(text)
        usage, unread = usage_from(self.agent.usage, document)
        places: list[Mapping[str, Any] | str] = []
        if toolbox.submissions > before and toolbox.submitted is not None:
            places.append(toolbox.submitted)
        places += _places(text, document, self.service.call.answer)
        missing = f"the response holds none: {' '.join(text.split())[:_SHOWN] or 'it is empty'}"
        return Reply(places, usage, (*remarks, *unread), missing)


@dataclass(frozen=True)
class _Service:
    """The requests to one service."""

    client: Any
    call: HttpCall
    url: SecretText

    async def answer(self, values: Mapping[str, Any]) -> str:
        """Return the body of the last response."""
        body = json.dumps(templates.filled_in(self.call.body, values)).encode()
        text = await self._request(self.call.method, self.url.reveal(), str(values["token"]), body)
        poll = self.call.poll
        return text if poll is None else await self._job(poll, parsed(text), str(values["token"]))

    async def _job(self, poll: Poll, begun: Any, token: str) -> str:
        job = found_at(begun, poll.id)
        if not isinstance(job, str | int) or job == "":
            raise AnalyzerError(f"the response has no id of a job at {poll.id!r}")
        url = templates.filled(poll.url.replace("{id}", quote(str(job), safe="")), {})
        while True:
            text = await self._request("GET", url, token, None)
            status = str(found_at(parsed(text), poll.status))
            if status in poll.done:
                return text
            if status in poll.failed:
                raise AnalyzerError(f"the job of the agent ended as {status}: {_start(text)}")
            await asyncio.sleep(poll.interval_s)

    async def _request(self, method: str, url: str, token: str, body: bytes | None) -> str:
        """Return the body of a response; only what the agent has not begun is sent again."""
        import httpx  # noqa: PLC0415 - only where an agent is called

        wait_s = _WAIT_S
        for attempt in range(1, _ATTEMPTS + 1):
            last = attempt == _ATTEMPTS
            try:
                async with self.client.stream(
                    method, url, content=body, headers=self._headers(token)
                ) as response:
                    text = await _read(response)
            except (httpx.ConnectError, httpx.ConnectTimeout) as error:
                if last:
                    raise ModelUnavailable(
                        f"the agent at {masked(url)} cannot be reached: {str(error) or type(error).__name__}"
                    ) from error
            except httpx.HTTPError as error:
                raise AnalyzerError(
                    f"the agent at {masked(url)} broke the connection: {str(error) or type(error).__name__}"
                ) from error
            else:
                if response.status_code not in _BUSY or last:
                    return _checked(response, text, masked(url))
                wait_s = _asked_wait_s(response, wait_s)
            await asyncio.sleep(min(wait_s, _LONGEST_WAIT_S))
            wait_s *= 2
        raise AssertionError("the last attempt returns or raises")

    def _headers(self, token: str) -> dict[str, str]:
        headers = {"content-type": "application/json", "accept": "application/json, text/plain"}
        own = {
            name.lower(): templates.filled(text, {"token": token}, variables=True)
            for name, text in self.call.headers.items()
        }
        return {**headers, **own}


def _checked(response: Any, text: str, url: str) -> str:
    """Return the body of a good response; raises for every other one."""
    status = response.status_code
    if 200 <= status < 300:
        return text
    if 300 <= status < 400:
        place = masked(response.headers.get("location", "no place"))
        raise ConfigurationError(f"the agent at {url} redirects to {place}; write that address")
    words = f"the agent at {url} answered {status} {response.reason_phrase}: {_start(text)}"
    raise ConfigurationError(words) if status in _USERS else AnalyzerError(words)


def _asked_wait_s(response: Any, otherwise_s: float) -> float:
    asked = response.headers.get("retry-after", "")
    return float(asked) if asked.isdecimal() else otherwise_s


async def _read(response: Any) -> str:
    body = bytearray()
    async for part in response.aiter_bytes():
        body += part
        if len(body) > _MOST_BYTES:
            raise AnalyzerError(f"the response of the agent is longer than {_MOST_BYTES:,} bytes")
    return body.decode("utf-8", "replace")


def _places(text: str, document: Any, path: str) -> list[Mapping[str, Any] | str]:
    """Return where the answer may stand: at the path, else in the whole response and fields of texts."""
    if path:
        found = found_at(document, path)
        return [found] if isinstance(found, Mapping | str) else []
    fields = [document.get(name) for name in _TEXTS] if isinstance(document, Mapping) else []
    texts = [one for one in fields if isinstance(one, str) and one.strip()]
    return [*texts, text] if texts else [text]


def _start(text: str) -> str:
    return " ".join(text.split())[:_SHOWN] or "the body is empty"


def _timeout_s(agent: AgentFile, investigation: Investigation) -> float:
    whole_s = investigation.budget.time_s * 0.95
    return whole_s if agent.timeout_s is None else min(agent.timeout_s, whole_s)


def _address(url: str) -> SecretText:
    """Return the address of an agent; raises ConfigurationError for what is none."""
    try:
        parts = urlsplit(url)
        usable = parts.scheme in {"http", "https"} and bool(parts.hostname) and parts.port != 0
    except ValueError:
        usable = False
    if not usable or " " in url:
        raise ConfigurationError(f"{masked(url)!r} is no address of an agent; write http://HOST:PORT/PATH")
    return SecretText(url)


def _context(call: HttpCall, folder: Path) -> ssl.SSLContext:
    """Return the TLS settings; raises ConfigurationError for files that cannot be used."""
    tls = call.tls
    try:
        context = ssl.create_default_context(cafile=str(folder / tls.ca) if tls.ca else None)
        for variable, load in (("SSL_CERT_FILE", "cafile"), ("SSL_CERT_DIR", "capath")):
            if not tls.ca and os.environ.get(variable):
                context.load_verify_locations(**{load: os.environ[variable]})
        if tls.certificate:
            context.load_cert_chain(folder / tls.certificate, folder / tls.key if tls.key else None)
    except OSError as error:
        raise ConfigurationError(f"the certificates of the agent cannot be used: {error}") from error
    if tls.insecure:
        context.check_hostname = False
        context.verify_mode = ssl.CERT_NONE
    return context
