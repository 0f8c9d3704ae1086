"""The flags of a running flagd, asked per request, over its gRPC evaluation protocol (port 8013).

We speak version 1 of the protocol with the classes that the OpenFeature provider ships, and not through
the provider itself: its release 0.6 speaks version 2, which the flagd of older demo releases does not
have, and it waits half a second on every evaluation while flagd is away. Rules (targeting, shares) are
evaluated by flagd. An answer that no rule gave (STATIC) is kept until flagd says that something changed,
or until the connection is lost; so a flag costs a round trip only after a change, unless it has a rule.
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


class FlagdReader:
    """Asks the flagd at *address* (``host:port``); a context manager that ends the connection.

    While flagd is away every answer is the caller's default with reason ERROR, at once; *tell* gets a line
    when it goes and when it is back, from another thread. ``deadline_s`` bounds one question; when one
    takes longer, flagd counts as away for ``retry_s`` seconds by *monotonic*.
    """

    def __init__(
        self,
        address: str,
        *,
        monotonic: Callable[[], float],
        tell: Callable[[str], object],
        deadline_s: float = 0.5,
        retry_s: float = 1.0,
    ) -> None:
        self._grpc = packages.grpc()
        self._messages, services = packages.flagd_evaluation()
        self._struct = packages.protobuf_structs().Struct
        self._address = parse_address(address)
        self._monotonic = monotonic
        self._tell = tell
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
                # No compressed answers: one of some 25,000 came through without being unpacked.
                ("grpc.compression_enabled_algorithms_bitset", 1),
            ),
        )
        self._service = services.ServiceStub(self._channel)
        self._static: dict[_Key, Evaluation] = {}
        self._there = threading.Event()
        self._closing = threading.Event()
        self._away_until_s = float("-inf")
        self._told_away = False
        self._stream: Any = None
        self._thread = threading.Thread(target=self._watch, name="flagd-watch", daemon=True)
        self._thread.start()

    def wait(self, timeout_s: float) -> bool:
        """Return whether flagd answers, after at most *timeout_s* seconds."""
        return self._there.wait(timeout_s)

    def evaluate(self, key: str, default: FlagScalar, context: Mapping[str, FlagScalar]) -> Evaluation:
        """Return flagd's answer in this context, of the type of *default*; see the class for failures."""
        static = self._static
        known = static.get((key, default.__class__))
        if known is not None:
            return known
        if not self._there.is_set() or self._monotonic() < self._away_until_s:
            return Evaluation(default, "", "ERROR")
        answer = self._ask(key, default, context)
        if answer.reason == "STATIC":
            # Into the mapping from before the question: a change meanwhile has put a new one in place.
            static[key, default.__class__] = answer
        return answer

    def close(self) -> None:
        """End the connection; later answers are defaults."""
        self._closing.set()
        self._lost()
        if self._stream is not None:
            self._stream.cancel()
        self._thread.join()
        self._channel.close()

    def __enter__(self) -> FlagdReader:
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
                self._away_until_s = self._monotonic() + self._retry_s
            return Evaluation(default, "", "ERROR")
        if not answer.variant:  # no default variant: flagd has nothing to say
            return Evaluation(default, "", answer.reason)
        return Evaluation(answer.value, answer.variant, answer.reason)

    def _question(self, default: FlagScalar) -> tuple[Any, Any]:
        if isinstance(default, bool):  # before int: a bool is one
            return self._messages.ResolveBooleanRequest, self._service.ResolveBoolean
        if isinstance(default, int):
            return self._messages.ResolveIntRequest, self._service.ResolveInt
        if isinstance(default, float):
            return self._messages.ResolveFloatRequest, self._service.ResolveFloat
        return self._messages.ResolveStringRequest, self._service.ResolveString

    def _watch(self) -> None:
        """Hold flagd's stream of events open; every event makes the answers kept so far void."""
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
            if not self._told_away:
                self._told_away = True
                self._tell(
                    f"flagd {self._address} is away ({reason}); flags answer their defaults until it is back"
                )
            self._closing.wait(wait_s)
            wait_s = min(2 * wait_s, 5 * self._retry_s)

    def _event(self, kind: str) -> None:
        if kind == "provider_ready":
            self._static = {}
            self._there.set()
            if self._told_away:
                self._told_away = False
                self._tell(f"flagd {self._address} is there")
        elif kind == "configuration_change":
            self._static = {}

    def _lost(self) -> None:
        self._there.clear()
        self._static = {}
