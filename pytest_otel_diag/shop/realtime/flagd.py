"""Flags of a running flagd, evaluated per request over its gRPC evaluation protocol (port 8013).

We use version 1 of the protocol with the classes that the OpenFeature provider ships, but not the provider:
its release 0.6 uses version 2, which the flagd of older demo releases does not support, and it waits half a
second in every evaluation while flagd is unavailable. flagd evaluates the rules (targeting, fractional). An
evaluation without a rule (STATIC) is cached until flagd reports a change or the connection is lost, so only
flags with a rule cost a round trip each time.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Mapping
from typing import Any

from pytest_otel_diag.errors import ConfigurationError
from pytest_otel_diag.shop.flag_provider import Evaluation, FlagScalar
from pytest_otel_diag.shop.realtime import packages

DEFAULT_PORT = 8013
_AWAY = frozenset({"UNAVAILABLE", "DEADLINE_EXCEEDED", "CANCELLED"})

_Key = tuple[str, type]


def parse_address(text: str) -> str:
    """Return ``host:port`` (8013 without a port); raises ConfigurationError for anything else."""
    host, colon, port = text.strip().rpartition(":")
    if not colon or port.endswith("]"):
        host, port = text.strip(), str(DEFAULT_PORT)
    if not host or "/" in host or not port.isdigit() or not 0 < int(port) < 65_536:
        raise ConfigurationError(f"flagd address {text!r}: write host:port, for example localhost:8013")
    return f"{host}:{port}"


class FlagdProvider:
    """Evaluates flags with the flagd at *address* (``host:port``); a context manager.

    While flagd is unavailable, evaluations return the default with reason ERROR without waiting; *notify*
    gets a line from another thread when flagd becomes unavailable or available. ``deadline_s`` bounds one
    evaluation; after a longer one, flagd counts as unavailable for ``retry_s`` seconds of *monotonic*.
    """

    def __init__(
        self,
        address: str,
        *,
        monotonic: Callable[[], float],
        notify: Callable[[str], object],
        deadline_s: float = 0.5,
        retry_s: float = 1.0,
    ) -> None:
        self._grpc = packages.grpc()
        self._messages, services = packages.flagd_evaluation()
        self._struct = packages.protobuf_structs().Struct
        self._address = parse_address(address)
        self._monotonic = monotonic
        self._notify = notify
        self._deadline_s = deadline_s
        self._retry_s = retry_s
        backoff_ms = max(100, round(retry_s * 1000))
        self._channel = self._grpc.insecure_channel(
            self._address,
            (
                ("grpc.initial_reconnect_backoff_ms", backoff_ms),
                ("grpc.min_reconnect_backoff_ms", backoff_ms),
                ("grpc.max_reconnect_backoff_ms", 5 * backoff_ms),
                ("grpc.enable_http_proxy", 0),
                # No compressed responses: about one in 25,000 was delivered without being decompressed.
                ("grpc.compression_enabled_algorithms_bitset", 1),
            ),
        )
        self._service = services.ServiceStub(self._channel)
        self._static: dict[_Key, Evaluation] = {}
        self._available = threading.Event()
        self._closing = threading.Event()
        self._unavailable_until_s = float("-inf")
        self._reported_unavailable = False
        self._stream: Any = None
        self._thread = threading.Thread(target=self._watch, name="flagd-watch", daemon=True)
        self._thread.start()

    def wait(self, timeout_s: float) -> bool:
        """Return whether flagd responds within *timeout_s* seconds."""
        return self._available.wait(timeout_s)

    def evaluate(self, key: str, default: FlagScalar, context: Mapping[str, FlagScalar]) -> Evaluation:
        """Evaluate a flag in this context with the type of *default*; see the class for failures."""
        static = self._static
        known = static.get((key, default.__class__))
        if known is not None:
            return known
        if not self._available.is_set() or self._monotonic() < self._unavailable_until_s:
            return Evaluation(default, "", "ERROR")
        answer = self._ask(key, default, context)
        if answer.reason == "STATIC":
            # Into the cache from before the request: a change meanwhile has replaced it.
            static[key, default.__class__] = answer
        return answer

    def close(self) -> None:
        """Close the connection; later evaluations return defaults."""
        self._closing.set()
        self._lost()
        if self._stream is not None:
            self._stream.cancel()
        self._thread.join()
        self._channel.close()

    def __enter__(self) -> FlagdProvider:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _ask(self, key: str, default: FlagScalar, context: Mapping[str, FlagScalar]) -> Evaluation:
        struct = self._struct()
        struct.update(context)
        request, call = self._question(default)
        try:
            answer = call(request(flag_key=key, context=struct), timeout=self._deadline_s)
        except self._grpc.RpcError as error:
            if error.code().name in _AWAY:
                self._unavailable_until_s = self._monotonic() + self._retry_s
            return Evaluation(default, "", "ERROR")
        if not answer.variant:  # flagd returns no variant: the flag has no default variant
            return Evaluation(default, "", answer.reason)
        return Evaluation(answer.value, answer.variant, answer.reason)

    def _question(self, default: FlagScalar) -> tuple[Any, Any]:
        if isinstance(default, bool):  # before int: bool is a subclass
            return self._messages.ResolveBooleanRequest, self._service.ResolveBoolean
        if isinstance(default, int):
            return self._messages.ResolveIntRequest, self._service.ResolveInt
        if isinstance(default, float):
            return self._messages.ResolveFloatRequest, self._service.ResolveFloat
        return self._messages.ResolveStringRequest, self._service.ResolveString

    def _watch(self) -> None:
        """Keep flagd's event stream open; each event invalidates the cache."""
        wait_s = self._retry_s
        while not self._closing.is_set():
            try:
                self._stream = self._service.EventStream(self._messages.EventStreamRequest())
                for event in self._stream:
                    self._event(event.type)
                    wait_s = self._retry_s
                reason = "it closed the stream of events"
            except self._grpc.RpcError as error:
                reason = f"{error.code().name}: {error.details()}"
            if self._closing.is_set():
                return
            self._lost()
            if not self._reported_unavailable:
                self._reported_unavailable = True
                self._notify(
                    f"flagd {self._address} is unavailable ({reason}); services use defaults until it is back"
                )
            self._closing.wait(wait_s)
            wait_s = min(2 * wait_s, 5 * self._retry_s)

    def _event(self, kind: str) -> None:
        if kind == "provider_ready":
            self._static = {}
            self._available.set()
            if self._reported_unavailable:
                self._reported_unavailable = False
                self._notify(f"flagd {self._address} is available")
        elif kind == "configuration_change":
            self._static = {}

    def _lost(self) -> None:
        self._available.clear()
        self._static = {}
