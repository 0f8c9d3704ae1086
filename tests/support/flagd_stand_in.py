"""A stand-in for flagd: its evaluation protocol (version 1) over gRPC, answers from the same rules.

Not flagd: it evaluates with flagd's rules library for Python, through our document. The tests that need
the real one look for its binary.
"""

from __future__ import annotations

import queue
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import grpc
from google.protobuf.json_format import MessageToDict
from openfeature.schemas.protobuf.flagd.evaluation.v1 import evaluation_pb2 as messages
from openfeature.schemas.protobuf.flagd.evaluation.v1 import evaluation_pb2_grpc as services

from pytest_otel_diag.flags.document import FlagdDocument


class _Service(services.ServiceServicer):
    def __init__(self, document: FlagdDocument) -> None:
        self.document = document
        self.questions = 0
        self.listeners: list[queue.SimpleQueue[str | None]] = []
        self.lock = threading.Lock()

    def EventStream(self, request: Any, context: Any) -> Iterator[Any]:
        events: queue.SimpleQueue[str | None] = queue.SimpleQueue()
        events.put("provider_ready")
        self.listeners.append(events)
        context.add_callback(lambda: events.put(None))
        while (kind := events.get()) is not None:
            yield messages.EventStreamResponse(type=kind)

    def ResolveBoolean(self, request: Any, context: Any) -> Any:
        return self._resolve(request, context, False, messages.ResolveBooleanResponse)

    def ResolveInt(self, request: Any, context: Any) -> Any:
        return self._resolve(request, context, 0, messages.ResolveIntResponse)

    def ResolveFloat(self, request: Any, context: Any) -> Any:
        return self._resolve(request, context, 0.0, messages.ResolveFloatResponse)

    def ResolveString(self, request: Any, context: Any) -> Any:
        return self._resolve(request, context, "", messages.ResolveStringResponse)

    def _resolve(self, request: Any, context: Any, default: Any, response: Any) -> Any:
        with self.lock:
            self.questions += 1
            answer = self.document.evaluate(request.flag_key, default, MessageToDict(request.context))
        if answer.reason == "DISABLED" or request.flag_key not in self.document.flags:
            context.abort(grpc.StatusCode.NOT_FOUND, f"flag {request.flag_key}")  # as flagd: both alike
        if answer.reason == "ERROR":
            context.abort(grpc.StatusCode.INVALID_ARGUMENT, f"flag {request.flag_key}")
        return response(value=answer.value, variant=answer.variant or "", reason=answer.reason)


class FlagdStandIn:
    """Serves *raw*; can be stopped and started again on the same port."""

    def __init__(self, raw: bytes) -> None:
        self._service = _Service(FlagdDocument(raw))
        self.port = 0
        self._server: Any = None
        self.start()

    @property
    def address(self) -> str:
        return f"127.0.0.1:{self.port}"

    @property
    def questions(self) -> int:
        return self._service.questions

    def start(self) -> None:
        self._server = grpc.server(ThreadPoolExecutor(8))
        services.add_ServiceServicer_to_server(self._service, self._server)
        self.port = self._server.add_insecure_port(f"127.0.0.1:{self.port}")
        self._server.start()

    def stop(self) -> None:
        self._server.stop(grace=None).wait()

    def write(self, raw: bytes) -> None:
        """Serve another document, and notify the clients that listen."""
        with self._service.lock:
            self._service.document = FlagdDocument(raw)
        for listener in self._service.listeners:
            listener.put("configuration_change")
