"""Flags evaluated over flagd's gRPC protocol, version 1, which most services of the demo use.

Messages and stub come with the OpenFeature provider (``pytest-otel-diag[live]``). As over HTTP, all flags are
evaluated once to learn their types; see ``flagd_http``. A channel belongs to one event loop, so each loop
gets its own.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping
from functools import cache
from typing import Any, NamedTuple

from pytest_otel_diag.errors import ConfigurationError, FlagError
from pytest_otel_diag.extras import require
from pytest_otel_diag.flags.own_requests import headers
from pytest_otel_diag.flags.readers.answers import (
    disabled,
    no_variant,
    not_evaluated,
    number,
    plain,
    unknown,
    wall_ns,
)
from pytest_otel_diag.model.base import Nanos
from pytest_otel_diag.model.flags import FlagValue, ServedFlag

DEFAULT_PORT = 8013
_PROTOCOL = "openfeature.schemas.protobuf.flagd.evaluation.v1"
_KINDS: Mapping[str, str] = {
    "bool_value": "Boolean",
    "double_value": "Float",
    "string_value": "String",
    "object_value": "Object",
}


class _Library(NamedTuple):
    aio: Any
    messages: Any
    services: Any
    json_format: Any
    error: type[Exception]


@cache
def _library() -> _Library:
    return _Library(
        _require("grpc.aio"),
        _require(f"{_PROTOCOL}.evaluation_pb2"),
        _require(f"{_PROTOCOL}.evaluation_pb2_grpc"),
        _require("google.protobuf.json_format"),
        _require("grpc").RpcError,
    )


def _require(module: str) -> Any:
    over_http = "read over HTTP with flagd:http://HOST:8013"
    return require(module, "live", "reading flags over gRPC", alternative=over_http)


def open_reader(rest: str) -> FlagdGrpcReader:
    """Return the reader of the flagd at *rest*; raises ConfigurationError for an invalid address."""
    return FlagdGrpcReader(rest)


def parse_address(text: str) -> str:
    """Return ``host:port`` (8013 without a port); raises ConfigurationError for anything else."""
    found = text.strip().removeprefix("//")
    host, colon, port = found.rpartition(":")
    if not colon or port.endswith("]"):
        host, port = found, str(DEFAULT_PORT)
    if not host or "/" in found or not port.isdigit() or not 0 < int(port) < 65_536:
        raise ConfigurationError(f"flagd: {text!r} is not a gRPC address; write grpc:HOST:PORT")
    return f"{host}:{port}"


class FlagdGrpcReader:
    """Evaluates flags of the flagd at *address* (``host:port``); ``timeout_s`` bounds one request.

    ``now`` returns UTC nanoseconds and dates answers. Raises ConfigurationError for an invalid address, and
    when the protocol's classes are not installed.
    """

    def __init__(self, address: str, *, timeout_s: float = 5.0, now: Callable[[], Nanos] = wall_ns) -> None:
        self._address = parse_address(address)
        self._lib = _library()
        self._timeout_s = timeout_s
        self._now = now
        self._kinds: dict[str, str] = {}
        self._metadata = tuple((key, value) for key, value in headers().items() if key != "user-agent")
        self._channel: Any = None
        self._stub: Any = None
        self._loop: asyncio.AbstractEventLoop | None = None

    @property
    def address(self) -> str:
        """The ``FlagAddress.served`` that opens this reader again."""
        return f"grpc:{self._address}"

    @property
    def name(self) -> str:
        """Protocol and address."""
        return f"flagd over gRPC at {self._address}"

    async def served(self, key: str, context: Mapping[str, FlagValue]) -> ServedFlag:
        """Evaluate the flag; raises FlagError (unknown, disabled, broken rule, no answer)."""
        code, message = "", ""
        for known in (True, False):
            kind = self._kinds.get(key) if known else None
            if kind is None:
                await self._all(context)
                kind = self._kinds.get(key, "Boolean")
            request = getattr(self._lib.messages, f"Resolve{kind}Request")
            code, message, answer = await self._call(
                f"Resolve{kind}", request(flag_key=key, context=self._struct(context))
            )
            if answer is not None:
                return self._evaluated(key, answer.variant, self._value(answer, "value"), context)
            if code != "INVALID_ARGUMENT":
                break
            self._kinds.pop(key, None)  # the type has changed, or was guessed wrongly
        if code == "NOT_FOUND":
            raise await self._not_found(key, message, context)
        raise not_evaluated(key, context, self.name, code, message)

    async def served_all(self, context: Mapping[str, FlagValue]) -> Mapping[str, ServedFlag]:
        """Evaluate every flag; flags without a value (disabled, broken rule) are left out."""
        return {
            key: self._evaluated(key, flag.variant, self._value(flag, field), context)
            for key, (field, flag) in (await self._all(context)).items()
            if flag.variant
        }

    async def aclose(self) -> None:
        """Close the connection."""
        channel, self._channel = self._channel, None
        if channel is not None and self._loop is asyncio.get_running_loop():
            await channel.close()

    async def _all(self, context: Mapping[str, FlagValue]) -> Mapping[str, tuple[str, Any]]:
        request = self._lib.messages.ResolveAllRequest(context=self._struct(context))
        code, message, answer = await self._call("ResolveAll", request)
        if answer is None:
            raise FlagError(
                f"{self.name} does not list its flags: {code}, {message}; check that it is flagd's port 8013"
            )
        flags = {key: (flag.WhichOneof("value"), flag) for key, flag in answer.flags.items()}
        self._kinds = {key: _KINDS[field] for key, (field, flag) in flags.items() if field and flag.variant}
        return {key: (field, flag) for key, (field, flag) in flags.items() if field}

    async def _not_found(self, key: str, message: str, context: Mapping[str, FlagValue]) -> FlagError:
        if "disabled" in message.lower():
            return disabled(key, self.name)
        return unknown(key, await self._all(context), self.name)

    async def _call(self, method: str, request: Any) -> tuple[str, str, Any]:
        """Return code, message and answer; the answer is None when flagd refused. Raises FlagError."""
        try:
            call = getattr(self._connected(), method)
            answer = await call(request, timeout=self._timeout_s, metadata=self._metadata)
        except self._lib.error as error:
            found: Any = error  # a call's error has code and details, which the base class does not declare
            code, message = found.code().name, found.details() or ""
        else:
            if answer is None:  # grpc's result for bytes that it cannot decode
                raise FlagError(f"{self.name} answered {method} with an undecodable message; try again")
            return "OK", "", answer
        if code in {"UNAVAILABLE", "DEADLINE_EXCEEDED", "CANCELLED", "UNIMPLEMENTED"}:
            raise FlagError(
                f"{self.name} does not answer ({code}: {message}); start flagd, or use the address of its "
                "gRPC port (8013; docker compose port flagd 8013 shows the one on this machine)"
            )
        return code, message, None

    def _connected(self) -> Any:
        loop = asyncio.get_running_loop()
        if self._channel is None or self._loop is not loop:
            self._loop = loop
            self._channel = self._lib.aio.insecure_channel(
                self._address,
                # Reconnects quickly to a restarted flagd, since the witness polls every second or so.
                options=(
                    ("grpc.enable_http_proxy", 0),
                    ("grpc.primary_user_agent", headers()["user-agent"]),
                    # No compression: about one answer in 25,000 arrived without being decompressed.
                    ("grpc.compression_enabled_algorithms_bitset", 1),
                    ("grpc.initial_reconnect_backoff_ms", 100),
                    # Despite its name, this limits one attempt to connect: the call's own limit comes first.
                    ("grpc.min_reconnect_backoff_ms", int(self._timeout_s * 2000)),
                    ("grpc.max_reconnect_backoff_ms", 1000),
                ),
            )
            self._stub = self._lib.services.ServiceStub(self._channel)
        return self._stub

    def _struct(self, context: Mapping[str, FlagValue]) -> Any:
        struct = _require("google.protobuf.struct_pb2").Struct()
        struct.update(dict(context))
        return struct

    def _value(self, message: Any, field: str) -> Any:
        value = getattr(message, field)
        if isinstance(value, bool | str):
            return value
        if isinstance(value, int | float):
            return number(value)
        return self._lib.json_format.MessageToDict(value)

    def _evaluated(self, key: str, variant: str, value: Any, context: Mapping[str, FlagValue]) -> ServedFlag:
        if not variant:
            raise no_variant(key, context, self.name)
        return ServedFlag(key=key, variant=variant, value=plain(value), at_ns=self._now())
