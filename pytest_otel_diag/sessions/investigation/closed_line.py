"""The line between an analyzer and its session, of which the analyzer holds only its own end.

An analyzer may follow every attribute and closure of what it is given. :class:`AnalyzerEnd` therefore holds
nothing but a queue of the C library; a thread of the session takes the requests from it. Everything that the
analyzer sends is converted to plain values in that thread, whose delays are the analyzer's own time, and
errors reach the analyzer without the frames they were raised in.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine, Mapping
from concurrent.futures import CancelledError, Future
from contextlib import suppress
from dataclasses import dataclass, field
from queue import SimpleQueue
from typing import Any

from pytest_otel_diag.daemon import start_thread
from pytest_otel_diag.errors import BudgetExceeded

Call = Callable[..., Coroutine[Any, Any, Any]]
Answered = Callable[[Any, BaseException | None], None]

SESSION_OVER = "the session is over"


@dataclass(frozen=True, slots=True, eq=False)
class Request:
    """One call of the analyzer: the name of a service of the session, its arguments, and who gets the answer.

    *answered* runs in a thread of the session.
    """

    service: str
    arguments: tuple[Any, ...]
    answered: Answered


class AnalyzerEnd:
    """What the analyzer holds: it sends requests and gets answers, on whatever thread or event loop."""

    __slots__ = ("_over", "_requests")

    def __init__(self, requests: SimpleQueue[Any]) -> None:
        self._requests = requests
        self._over = ""

    def close(self, why: str) -> None:
        """Refuse every further request with BudgetExceeded(*why*)."""
        self._over = why

    def send(self, request: Request) -> None:
        """Send one request; raises BudgetExceeded once the line is closed."""
        self._refuse()
        self._requests.put(request)
        self._refuse()  # the session looks at the queue once more after it has closed the line

    def _refuse(self) -> None:
        if self._over:
            raise BudgetExceeded(self._over)

    def post(self, what: object) -> None:
        """Send what needs no answer, also over a closed line."""
        self._requests.put(what)

    async def ask(self, service: str, *arguments: Any) -> Any:
        """Return the session's answer; cancelling the wait cancels the call."""
        loop = asyncio.get_running_loop()
        waiting: asyncio.Future[Any] = loop.create_future()

        def answered(value: Any, error: BaseException | None) -> None:
            with suppress(RuntimeError):  # the analyzer has closed its loop meanwhile
                loop.call_soon_threadsafe(_settle, waiting, value, error)

        request = Request(service, arguments, answered)
        self.send(request)
        try:
            return await waiting
        except asyncio.CancelledError:
            self.post(Cancelled(request))
            raise

    def ask_at_once(self, service: str, *arguments: Any) -> Any:
        """Return the session's answer to a call that does not wait for anything."""
        answers: SimpleQueue[tuple[Any, BaseException | None]] = SimpleQueue()
        self.send(Request(service, arguments, lambda value, error: answers.put((value, error))))
        value, error = answers.get()
        if error is not None:
            raise error
        return value


def _settle(waiting: asyncio.Future[Any], value: Any, error: BaseException | None) -> None:
    if waiting.done():
        return
    if error is not None:
        waiting.set_exception(error)
    else:
        waiting.set_result(value)


@dataclass(frozen=True, slots=True)
class Cancelled:
    """The analyzer no longer waits for the answer to *request*."""

    request: Request


@dataclass(frozen=True, slots=True)
class Ended:
    """How the analyzer ended: its answer as JSON, or the *kind* of error that stopped it, as text."""

    answer: str = ""
    kind: str = ""
    reason: str = ""
    trace: str = ""


@dataclass(frozen=True, slots=True)
class _Done:
    """A call of *request* has ended."""

    request: Request
    outcome: Future[Any]


@dataclass(frozen=True, slots=True)
class _Aside:
    work: Callable[[], object]


@dataclass(frozen=True, slots=True)
class _Close:
    why: str


@dataclass
class SessionEnd:
    """The session's end, created on the event loop that its services run on.

    *services* run there; those of *prompt* run in the thread of the line, must return at once, and need no
    loop. *plain* converts the arguments of a request, and raises for what cannot be one. ``ended`` becomes
    how the analyzer ended.
    """

    services: Mapping[str, Call]
    prompt: Mapping[str, Callable[[], Any]]
    plain: Callable[[str, tuple[Any, ...]], tuple[Any, ...]]
    ended: asyncio.Future[Ended] = field(init=False)
    analyzer_end: AnalyzerEnd = field(init=False)

    def __post_init__(self) -> None:
        self._loop = asyncio.get_running_loop()
        self._requests: SimpleQueue[Any] = SimpleQueue()
        self._calls: dict[Request, Future[Any]] = {}
        self._over = ""
        self.ended = self._loop.create_future()
        self.analyzer_end = AnalyzerEnd(self._requests)
        start_thread(self._serve, "otel-diag investigation")

    def close(self, why: str) -> None:
        """Refuse every further request, and those that have no answer yet, with BudgetExceeded(*why*)."""
        self.analyzer_end.close(why)
        self._requests.put(_Close(why))

    def aside(self, work: Callable[[], object]) -> None:
        """Run *work*, which may call code of the analyzer, in the thread of the line."""
        self._requests.put(_Aside(work))

    def _serve(self) -> None:
        while not (self._over and self._requests.empty()):
            with suppress(BaseException):  # whatever the analyzer put there must not end the line
                self._take(self._requests.get())

    def _take(self, item: object) -> None:
        if type(item) is Request:
            self._start(item)
        elif type(item) is _Done:
            if self._calls.pop(item.request, None) is not None:
                item.request.answered(*_outcome(item.outcome))
        elif type(item) is Cancelled:
            call = self._calls.pop(item.request, None)
            if call is not None:
                call.cancel()
        elif type(item) is Ended:
            texts = (item.answer, item.kind, item.reason, item.trace)
            self._loop.call_soon_threadsafe(self._end, Ended(*map(str.__str__, texts)))
        elif type(item) is _Aside:
            item.work()
        elif type(item) is _Close:
            self._over = item.why
            while self._calls:
                request, call = self._calls.popitem()
                call.cancel()
                request.answered(None, BudgetExceeded(self._over))

    def _start(self, request: Request) -> None:
        if self._over:
            request.answered(None, BudgetExceeded(self._over))
            return
        try:
            arguments = self.plain(request.service, request.arguments)
            prompt = self.prompt.get(request.service)
            if prompt is not None:
                request.answered(prompt(), None)
                return
            work = self.services[request.service](*arguments)
        except Exception as error:
            request.answered(None, bare(error))
            return
        try:
            call = asyncio.run_coroutine_threadsafe(work, self._loop)
        except RuntimeError:  # the loop of the session was closed
            work.close()
            request.answered(None, BudgetExceeded(SESSION_OVER))
            return
        self._calls[request] = call
        call.add_done_callback(lambda outcome: self._requests.put(_Done(request, outcome)))

    def _end(self, ended: Ended) -> None:
        if not self.ended.done():
            self.ended.set_result(ended)


def _outcome(outcome: Future[Any]) -> tuple[Any, BaseException | None]:
    try:
        return outcome.result(), None
    except CancelledError:
        return None, asyncio.CancelledError()
    except BaseException as error:
        return None, bare(error)


def bare(error: BaseException) -> BaseException:
    """Return the error without the frames, causes and contexts that lead into the session."""
    error.__cause__ = error.__context__ = None
    return error.with_traceback(None)
