"""An investigation in another process, over the JSON API of the gateway."""

from __future__ import annotations

import http.client
import json
import threading
from collections.abc import Mapping
from queue import Empty, SimpleQueue
from typing import Any, TypeVar, cast

from pytest_otel_diag.daemon import in_daemon
from pytest_otel_diag.errors import BudgetExceeded, QueryRejected
from pytest_otel_diag.gateway import wire
from pytest_otel_diag.gateway.failures import raised
from pytest_otel_diag.model.base import Nanos
from pytest_otel_diag.model.diagnosis import Diagnosis
from pytest_otel_diag.model.questions import FOR_ANALYZERS, Question
from pytest_otel_diag.model.session import Budget
from pytest_otel_diag.model.telemetry import QueryLimits, Table, TelemetrySchema
from pytest_otel_diag.model.windows import Window
from pytest_otel_diag.ports import Investigation, Telemetry
from pytest_otel_diag.sessions.investigation.answer import as_diagnosis
from pytest_otel_diag.sessions.investigation.transcript import as_text, checked_entry

T = TypeVar("T")

_UNAUTHORIZED = 401
_CONNECTIONS = 64
"""Most connections at a time; the gateway refuses more than about twice as many. Further calls wait here."""


class Client:
    """Calls the gateway from any thread; connections are kept and used again."""

    def __init__(self, port: int, token: str) -> None:
        self._port = port
        self._headers = {"Authorization": f"Bearer {token}", "Content-Type": "application/json"}
        self._idle: SimpleQueue[http.client.HTTPConnection] = SimpleQueue()
        self._free = threading.BoundedSemaphore(_CONNECTIONS)

    async def call(self, path: str, arguments: Mapping[str, Any] | None = None) -> Any:
        """Return the answer of a path, without blocking the event loop; raises the error that it reports."""
        return await in_daemon(lambda: self.call_at_once(path, arguments), "otel-diag remote call")

    def call_at_once(self, path: str, arguments: Mapping[str, Any] | None = None) -> Any:
        """Return the answer of a path; raises the error that it reports."""
        body = None if arguments is None else json.dumps(arguments, allow_nan=False).encode()
        status, text = self._exchange("GET" if body is None else "POST", path, body)
        answer = json.loads(text)
        if status == _UNAUTHORIZED:
            raise BudgetExceeded(str(answer["error"]["message"]))
        if status != http.client.OK:
            raise raised(answer["error"])
        return answer

    def _exchange(self, method: str, path: str, body: bytes | None) -> tuple[int, bytes]:
        with self._free:
            return self._exchange_on(self._connection(), method, path, body)

    def _exchange_on(
        self, connection: http.client.HTTPConnection, method: str, path: str, body: bytes | None
    ) -> tuple[int, bytes]:
        try:
            connection.request(method, path, body, self._headers)
            response = connection.getresponse()
            text = response.read()
        except (OSError, http.client.HTTPException) as error:
            connection.close()
            raise BudgetExceeded(
                f"the session no longer answers ({type(error).__name__}); the investigation is over"
            ) from None
        self._idle.put(connection)
        return response.status, text

    def _connection(self) -> http.client.HTTPConnection:
        try:
            return self._idle.get_nowait()
        except Empty:
            return http.client.HTTPConnection("127.0.0.1", self._port)


class RemoteTelemetry(Telemetry):
    """The session's telemetry."""

    def __init__(self, client: Client) -> None:
        self._client = client

    async def query(
        self, sql: str, parameters: Mapping[str, Any] | None = None, limits: QueryLimits | None = None
    ) -> Table:
        """Run one SELECT; see :meth:`pytest_otel_diag.ports.Telemetry.query`."""
        if not isinstance(sql, str):
            raise QueryRejected(f"a statement is a text, not {type(sql).__name__}")
        if limits is not None and not isinstance(limits, QueryLimits):
            raise TypeError(f"limits must be QueryLimits, these are {type(limits).__name__}")
        try:
            values = None if parameters is None else wire.encoded(parameters)
        except (TypeError, RecursionError) as error:
            raise QueryRejected(f"a parameter cannot be sent: {error}") from None
        if values is not None and not isinstance(values, dict):
            raise QueryRejected(f"parameters are names with values, not {type(parameters).__name__}")
        arguments = {"sql": sql, "parameters": values, "limits": wire.encoded_limits(limits)}
        return wire.decoded_table(await self._client.call("/v1/table", arguments))

    async def schema(self) -> TelemetrySchema:
        """Return tables and columns; free of charge."""
        return wire.decoded_schema(await self._client.call("/v1/schema"))

    async def ask(self, question: Question[T]) -> T:
        """Answer a typed question; see :meth:`pytest_otel_diag.ports.Telemetry.ask`."""
        if not isinstance(question, Question):
            known = ", ".join(kind.__name__ for kind in FOR_ANALYZERS)
            raise QueryRejected(f"{type(question).__name__} is no question to telemetry; ask one of {known}")
        answer = await self._client.call("/v1/ask", wire.encoded_question(question))
        return wire.decoded_answer(question, answer["answer"])


class RemoteClock:
    """The target's clock."""

    def __init__(self, client: Client) -> None:
        self._client = client

    def now(self) -> Nanos:
        """Return the target's time."""
        return cast("Nanos", self._client.call_at_once("/v1/clock")["now_ns"])

    async def sleep(self, seconds: float) -> None:
        """Let *seconds* pass on the target's clock."""
        await self._client.call("/v1/clock/sleep", {"seconds": float(seconds)})


class RemoteGuidance:
    """The hints of the session."""

    def __init__(self, client: Client) -> None:
        self._client = client

    async def next(self, diagnosis: Diagnosis | None) -> str | None:
        """Return the next hint; see :meth:`pytest_otel_diag.ports.Guidance.next`."""
        attempt = None if diagnosis is None else as_diagnosis(diagnosis).model_dump(mode="json")
        return cast("str | None", (await self._client.call("/v1/guidance", {"diagnosis": attempt}))["hint"])


class RemoteTranscript:
    """The transcript of the session."""

    def __init__(self, client: Client) -> None:
        self._client = client

    async def add(self, kind: str, content: Mapping[str, Any]) -> None:
        """Append one entry; see :meth:`pytest_otel_diag.ports.Transcript.add`."""
        checked, plain = checked_entry(kind, as_text(content))
        await self._client.call("/v1/transcript", {"kind": checked, "content": plain})


def remote_investigation(port: int, token: str) -> Investigation:
    """Return the investigation that the token of a gateway opens."""
    client = Client(port, token)
    question = client.call_at_once("/v1/question")
    baseline = question["baseline"]
    return Investigation(
        session_id=question["session_id"],
        incident=Window(**question["incident"]),
        baseline=Window(**baseline) if baseline else None,
        reference=tuple(Window(**window) for window in question["reference"]),
        telemetry=RemoteTelemetry(client),
        clock=RemoteClock(client),
        budget=Budget(**{name: wire.decoded(value) for name, value in question["budget"].items()}),
        seed=question["seed"],
        guidance=RemoteGuidance(client),
        transcript=RemoteTranscript(client),
    )
