"""Records the answers of a model to a folder and plays them back: runs without a provider, for CI.

Each process of a run writes one JSONL file: a header (model, versions, date, run), then messages, each once,
and calls that name them by their hash. A call that was not recorded fails and names the difference; it is
never sent to a provider.
"""

from __future__ import annotations

import dataclasses
import json
import threading
from collections.abc import Iterable, Iterator, Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, cast

from pytest_otel_diag.analyzers.investigator.chat_model import (
    ChatModel,
    ChatReply,
    ChatRequest,
    ContextOverflow,
    Finish,
    ModelUnavailable,
    ReplyUsage,
    ToolCall,
    ToolsUnsupported,
)
from pytest_otel_diag.analyzers.investigator.tape_text import (
    TapedRequest,
    Volatile,
    difference,
    digest,
    strings_changed,
)
from pytest_otel_diag.analyzers.investigator.wrapped_model import WrappedModel
from pytest_otel_diag.errors import ConfigurationError
from pytest_otel_diag.secret import cleaned

VERSION = 1

_FAILURES: Mapping[str, type[Exception]] = {
    "context_overflow": ContextOverflow,
    "tools_unsupported": ToolsUnsupported,
    "unavailable": ModelUnavailable,
}
"""Answers that are no replies, after which an investigation goes another way, or ends."""
_PROBE = 100_000


class TapeMiss(ConfigurationError):
    """A request was not recorded."""


class RecordingModel(WrappedModel):
    """Asks *inner*, and appends what it answers to a file of this process in *folder*.

    *run* is the id of the run: its processes share a folder, which no other run may have used before.
    """

    def __init__(self, inner: ChatModel, folder: Path, run: str, details: Mapping[str, str]) -> None:
        super().__init__(inner)
        self._folder = folder
        self._run = run
        self._details = details
        self._lock = threading.Lock()
        self._file: Any = None
        self._known: set[str] = set()
        for file in _tapes(folder):
            if _header(file).get("run") != run:
                raise ConfigurationError(
                    f"{folder} holds the tape of another run ({file.name}); delete it, or record to another "
                    "folder: a tape is the record of one run"
                )

    async def complete(self, request: ChatRequest) -> ChatReply:
        """Make one attempt and record it, unless another attempt may succeed."""
        taped = TapedRequest(self.name, request)
        try:
            reply = await self._inner.complete(request)
        except tuple(_FAILURES.values()) as failure:
            kind = next(name for name, known in _FAILURES.items() if isinstance(failure, known))
            self._append(taped, {"failure": kind, "words": cleaned(str(failure))})
            raise
        kept = strings_changed(dataclasses.asdict(reply), taped.volatile.known)
        self._append(taped, {"reply": kept})
        return reply

    async def close(self) -> None:
        """Close the model and the file."""
        await super().close()
        with self._lock:
            if self._file is not None:
                self._file.close()
                self._file = None

    def _append(self, taped: TapedRequest, outcome: Mapping[str, Any]) -> None:
        texts = (*taped.messages, taped.tools)
        with self._lock:
            stream = self._stream()
            new = {digest(text): text for text in texts if digest(text) not in self._known}
            for name, text in new.items():
                _write(stream, {"kind": "text", "id": name, "text": text})
            self._known.update(new)
            call = {
                "kind": "call",
                "key": taped.key,
                "messages": [digest(text) for text in taped.messages],
                "tools": digest(taped.tools),
                "parameters": taped.parameters,
                **outcome,
            }
            _write(stream, call)
            stream.flush()

    def _stream(self) -> Any:
        if self._file is None:
            self._folder.mkdir(parents=True, exist_ok=True)
            now = datetime.now(tz=UTC)
            number = 1 + sum(1 for _ in _tapes(self._folder))
            while self._file is None:
                path = self._folder / f"tape-{number:03d}.jsonl"
                try:
                    self._file = path.open("x", encoding="utf-8", errors="surrogatepass")
                except FileExistsError:  # another process of the run has taken the number
                    number += 1
            header = {
                "kind": "tape",
                "version": VERSION,
                "recorded": now.isoformat(timespec="seconds"),
                "run": self._run,
                "supports_tools": self.supports_tools,
                "price": _price(self._inner),
                "analyzer": dict(self._details) | dict(self.describe()),
            }
            _write(self._file, header)
            self._file.flush()
        return self._file


class ReplayedModel:
    """Answers from the tape in *folder*; a request that it does not hold raises TapeMiss.

    A request that was recorded several times gets the replies in their order, then from the start again, so
    that repeats of a session can be replayed from one.
    """

    def __init__(self, name: str, parameters: Mapping[str, str], folder: Path) -> None:
        self._model = name
        self._folder = folder
        self._lock = threading.Lock()
        self._turns: dict[str, int] = {}
        self._calls: dict[str, list[Mapping[str, Any]]] = {}
        self._texts: dict[str, str] = {}
        headers = [self._read(file) for file in _tapes(folder)]
        if not headers:
            raise ConfigurationError(
                f"{folder} holds no tape; record one with --otel-diag-llm-tape=record:{folder}"
            )
        self._parameters = parameters
        self._headers = [header for header in headers if header["analyzer"].get("model") == name]
        if not self._headers:
            recorded = ", ".join(sorted({repr(header["analyzer"].get("model")) for header in headers}))
            raise ConfigurationError(f"the tape in {folder} was recorded with {recorded}, not with {name!r}")

    @property
    def name(self) -> str:
        """The name of the model that was recorded."""
        return self._model

    @property
    def supports_tools(self) -> bool | None:
        """What the model said when it was recorded."""
        return cast("bool | None", self._headers[0]["supports_tools"])

    def describe(self) -> Mapping[str, str]:
        """Return name, parameters, and where and when the answers were recorded."""
        header = self._headers[0]
        before = header["analyzer"]
        library = {"litellm": before["litellm"]} if "litellm" in before else {}
        replayed = f"replayed from {self._folder}, recorded {header['recorded']}"
        return {"model": self._model, **library, **self._parameters, "tape": replayed}

    def worst_case_cost_usd(self, request: ChatRequest) -> float | None:
        """Return what the request would have cost at most, so that budgets end where they ended before."""
        price = self._headers[0]["price"]
        if price is None:
            return None
        into, out = price
        return float(into * request.input_tokens_bound() + out * request.max_output_tokens)

    async def complete(self, request: ChatRequest) -> ChatReply:
        """Return the recorded answer, or raise the recorded failure; raises TapeMiss."""
        taped = TapedRequest(self._model, request)
        with self._lock:
            calls = self._calls.get(taped.key)
            turn = self._turns.get(taped.key, 0)
            self._turns[taped.key] = turn + 1
        if not calls:
            raise TapeMiss(
                f"the tape in {self._folder} has no answer to this request ({len(taped.messages)} messages): "
                f"{difference(taped, self._recorded())}; replay with the telemetry that was recorded, or "
                "record anew"
            )
        call = calls[turn % len(calls)]
        if "failure" in call:
            raise _FAILURES[call["failure"]](call["words"])
        return _reply(call["reply"], taped.volatile)

    async def close(self) -> None:
        """Hold nothing but what was read."""

    def _recorded(self) -> Iterable[tuple[tuple[str, ...], str, Mapping[str, Any]]]:
        for calls in self._calls.values():
            for call in calls[:1]:
                messages = tuple(self._texts[name] for name in call["messages"])
                yield messages, self._texts[call["tools"]], call["parameters"]

    def _read(self, file: Path) -> Mapping[str, Any]:
        header = _header(file)
        try:
            for line in _lines(file):
                if line["kind"] == "text":
                    self._texts[line["id"]] = line["text"]
                elif line["kind"] == "call":
                    self._calls.setdefault(line["key"], []).append(line)
        except (KeyError, TypeError, ValueError) as error:
            raise ConfigurationError(f"{file} is damaged ({error!r}); record the tape anew") from error
        return header


def _write(stream: Any, line: Mapping[str, Any]) -> None:
    stream.write(json.dumps(line, ensure_ascii=False) + "\n")


def _tapes(folder: Path) -> Iterator[Path]:
    """Yield the tapes in a folder; an empty file is one that its process has just created."""
    yield from (file for file in sorted(folder.glob("tape-*.jsonl")) if file.stat().st_size)


def _lines(file: Path) -> Iterator[dict[str, Any]]:
    """Yield the lines of a tape; one that its process did not finish is left out."""
    *whole, _ = file.read_bytes().decode("utf-8", "surrogatepass").split("\n")
    for line in whole:
        yield json.loads(line)


def _header(file: Path) -> dict[str, Any]:
    try:
        header = next(_lines(file))
        version = header["version"]
    except (StopIteration, ValueError, KeyError, TypeError) as error:
        raise ConfigurationError(f"{file} is no tape of a model ({error!r}); delete it") from error
    if version != VERSION:
        raise ConfigurationError(f"{file} has version {version} of tapes, this release reads {VERSION}")
    return header


def _price(model: ChatModel) -> tuple[float, float] | None:
    """Return the prices of an input token and of an output token at most, None where they are not known."""
    probe = ChatRequest(messages=(), max_output_tokens=0, most_input_tokens=_PROBE)
    into = model.worst_case_cost_usd(probe)
    out = model.worst_case_cost_usd(dataclasses.replace(probe, max_output_tokens=_PROBE, most_input_tokens=0))
    return None if into is None or out is None else (into / _PROBE, out / _PROBE)


def _reply(kept: Mapping[str, Any], volatile: Volatile) -> ChatReply:
    filled = strings_changed(kept, volatile.filled)
    return ChatReply(
        message=filled["message"],
        content=filled["content"],
        tool_calls=tuple(ToolCall(**call) for call in filled["tool_calls"]),
        finish=cast("Finish", filled["finish"]),
        usage=ReplyUsage(**filled["usage"]),
        refusal=filled["refusal"],
        reasoning=filled["reasoning"],
        model=filled["model"],
    )
