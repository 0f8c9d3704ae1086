"""Serves OTLP/gRPC with grpcio."""

from __future__ import annotations

import threading
from collections import Counter
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

from pytest_otel_diag.errors import ConfigurationError
from pytest_otel_diag.receiver import packages
from pytest_otel_diag.receiver.addresses import join_address, split_address
from pytest_otel_diag.receiver.export_service import Busy, ExportService, Malformed
from pytest_otel_diag.receiver.packages import Signal

_THREADS = 4
_RESOURCE_EXHAUSTED = 8
UNREAD = "never read: too large, badly compressed or broken off"


class GrpcServer:
    """Listens from :meth:`start` to :meth:`stop`.

    grpcio never hands over a call whose message is incomplete or too large. Such calls are the difference
    between calls begun and messages received; :meth:`stop` counts them.
    """

    def __init__(self, service: ExportService, address: str) -> None:
        self._service = service
        self._host, self._port = split_address(address)
        self._lock = threading.Lock()
        self._begun: Counter[Signal] = Counter()
        self._server = self._make()

    def start(self) -> str:
        """Listen and return the address; raises ConfigurationError when that is not possible."""
        address = join_address(self._host, self._port)
        try:
            port = self._server.add_insecure_port(address)
        except RuntimeError as error:
            raise ConfigurationError(
                f"cannot listen for OTLP/gRPC on {address}; "
                "stop the program that uses the port, or choose another address"
            ) from error
        self._server.start()
        return join_address(self._host, port)

    def stop(self, grace_s: float) -> None:
        """Refuse new calls, give those in progress *grace_s* seconds, and end."""
        self._server.stop(grace_s).wait()
        with self._lock:
            for signal, number in self._begun.items():
                self._service.tally.refused(signal, UNREAD, number)
            self._begun.clear()

    def _make(self) -> Any:
        grpc = packages.grpc()
        limits = self._service.limits
        server = grpc.server(
            ThreadPoolExecutor(_THREADS, thread_name_prefix="otel-diag-receiver-grpc"),
            interceptors=[_Beginnings(self._count)],
            options=[
                ("grpc.max_receive_message_length", limits.request_bytes),
                ("grpc.max_metadata_size", limits.header_bytes),
                ("grpc.max_concurrent_streams", 32),
                ("grpc.max_connection_idle_ms", round(limits.idle_s * 1000)),
                ("grpc.so_reuseport", 0),  # without it a second receiver would share the port silently
            ],
        )
        server.add_generic_rpc_handlers(self._handlers())
        return server

    def _handlers(self) -> list[Any]:
        grpc = packages.grpc()
        return [
            grpc.method_handlers_generic_handler(
                service.method.split("/")[1],
                {"Export": grpc.unary_unary_rpc_method_handler(self._export(signal))},
            )
            for signal, service in packages.services().items()
        ]

    def _count(self, signal: Signal, change: int) -> None:
        with self._lock:
            self._begun[signal] += change

    def _export(self, signal: Signal) -> Any:
        grpc = packages.grpc()

        def export(body: bytes, context: Any) -> bytes:
            self._count(signal, -1)
            try:
                return bytes(self._service.export(signal, body).SerializeToString())
            except Malformed as error:
                context.abort(grpc.StatusCode.INVALID_ARGUMENT, str(error))
            except Busy as error:
                self._busy(context, error)
            raise AssertionError("abort always raises")

        return export

    def _busy(self, context: Any, error: Busy) -> None:
        """Refuse the call with the status that makes clients retry."""
        grpc = packages.grpc()
        if error.stopping:
            context.abort(grpc.StatusCode.UNAVAILABLE, str(error))
        wait_s = self._service.limits.retry_after_s
        status = packages.status(_RESOURCE_EXHAUSTED, str(error), retry_after_s=wait_s)
        context.set_trailing_metadata(
            (
                ("grpc-status-details-bin", status.SerializeToString()),
                # the trailer that the Python SDK reads
                ("google.rpc.retryinfo-bin", packages.retry_info(wait_s).SerializeToString()),
            )
        )
        context.abort(grpc.StatusCode.RESOURCE_EXHAUSTED, str(error))


class _Beginnings:
    """A grpcio interceptor that counts calls before their message is read."""

    def __init__(self, count: Callable[[Signal, int], None]) -> None:
        self._count = count
        self._signals = {service.method: signal for signal, service in packages.services().items()}

    def intercept_service(self, continuation: Callable[[Any], Any], handler_call_details: Any) -> Any:
        """Count the call and continue."""
        if signal := self._signals.get(handler_call_details.method):
            self._count(signal, 1)
        return continuation(handler_call_details)
