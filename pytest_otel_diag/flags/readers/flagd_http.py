"""Flags evaluated over flagd's own protocol, as JSON over HTTP.

The demo offers it at http://localhost:8080/flagservice.

The protocol has one call per type and refuses a flag of another type. So all flags are evaluated once, which
shows their types, and later calls use the type of the flag. Numbers are requested as floats, since flagd
truncates 0.5 to 0 in an integer call; integers that come as text are accepted too. To this protocol, a flag
without a default variant does not exist.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from pytest_otel_diag.errors import FlagError
from pytest_otel_diag.flags.http import HttpAnswer, HttpClient
from pytest_otel_diag.flags.readers.answers import (
    disabled,
    no_variant,
    not_evaluated,
    number,
    plain,
    served_flag,
    unknown,
    wall_ns,
)
from pytest_otel_diag.model.base import Nanos
from pytest_otel_diag.model.flags import FlagValue, ServedFlag

SERVICE = "flagd.evaluation.v1.Service"
REMEDY = (
    "start flagd, or use the address of its evaluation protocol (its port 8013, or /flagservice behind the "
    "demo's frontend)"
)
_KINDS: Mapping[str, str] = {
    "boolValue": "Boolean",
    "doubleValue": "Float",
    "stringValue": "String",
    "objectValue": "Object",
}
_ZEROS: Mapping[str, FlagValue] = {"Boolean": False, "Float": 0, "String": "", "Object": {}}

_Found = tuple[str, str, Mapping[str, Any]]
"""The message's member with the value, the flag's type, the message."""


def open_reader(rest: str) -> FlagdHttpReader:
    """Return the reader of the flagd at *rest*; raises ConfigurationError for an invalid address."""
    return FlagdHttpReader(rest)


class FlagdHttpReader:
    """Evaluates flags of the flagd at *base* (``http://HOST:PORT[/PATH]``); ``timeout_s`` bounds one request.

    ``now`` returns UTC nanoseconds and dates answers. Raises ConfigurationError for an invalid address.
    """

    def __init__(self, base: str, *, timeout_s: float = 5.0, now: Callable[[], Nanos] = wall_ns) -> None:
        self._base = base.strip()
        self._http = HttpClient(base, remedy=REMEDY, timeout_s=timeout_s)
        self._now = now
        self._kinds: dict[str, str] = {}

    @property
    def address(self) -> str:
        """The ``FlagAddress.served`` that opens this reader again."""
        return f"flagd:{self._base}"

    @property
    def name(self) -> str:
        """Protocol and address."""
        return f"flagd at {self._http.name}"

    async def served(self, key: str, context: Mapping[str, FlagValue]) -> ServedFlag:
        """Evaluate the flag; raises FlagError (unknown, disabled, broken rule, no answer)."""
        for known in (True, False):
            kind = self._kinds.get(key) if known else None
            if kind is None:
                await self._all(context)
                kind = self._kinds.get(key, "Boolean")
            answer = await self._call(f"Resolve{kind}", {"flagKey": key, "context": dict(context)})
            if answer.status == 200:
                return self._evaluated(key, kind, self._object(answer), context)
            code, message = self._failure(answer)
            if code != "invalid_argument":
                break
            self._kinds.pop(key, None)  # the type has changed, or was guessed wrongly
        if code == "not_found":
            raise await self._not_found(key, message, context)
        raise not_evaluated(key, context, self.name, code, message)

    async def served_all(self, context: Mapping[str, FlagValue]) -> Mapping[str, ServedFlag]:
        """Evaluate every flag; flags without a value (disabled, broken rule) are left out."""
        return {
            key: self._evaluated(key, kind, {**body, "value": body.get(field)}, context)
            for key, (field, kind, body) in (await self._all(context)).items()
            if body.get("variant")
        }

    async def aclose(self) -> None:
        """Close the connections."""
        await self._http.aclose()

    async def _all(
        self, context: Mapping[str, FlagValue]
    ) -> Mapping[str, tuple[str, str, Mapping[str, Any]]]:
        answer = await self._call("ResolveAll", {"context": dict(context)})
        if answer.status != 200:
            raise self._unexpected(answer)
        flags = self._object(answer).get("flags", {})  # omitted when empty
        if not isinstance(flags, dict) or not all(isinstance(body, dict) for body in flags.values()):
            raise self._unexpected(answer)
        found = {}
        for key, body in flags.items():
            field = next((name for name in _KINDS if name in body), None)
            if field is not None:
                found[key] = (field, _KINDS[field], body)
        # A broken flag always appears as a boolean, so its type stays unknown.
        self._kinds = {key: kind for key, (_, kind, body) in found.items() if body.get("variant")}
        return found

    async def _not_found(self, key: str, message: str, context: Mapping[str, FlagValue]) -> FlagError:
        if "disabled" in message.lower():
            return disabled(key, self.name)
        names = list(await self._all(context))
        if key in names:
            return no_variant(key, context, self.name)
        return unknown(key, names, self.name)

    async def _call(self, method: str, body: Mapping[str, Any]) -> HttpAnswer:
        return await self._http.post(f"{SERVICE}/{method}", body)

    def _evaluated(
        self, key: str, kind: str, body: Mapping[str, Any], context: Mapping[str, FlagValue]
    ) -> ServedFlag:
        variant = body.get("variant")
        if not isinstance(variant, str) or not variant:
            raise no_variant(key, context, self.name)
        value = body.get("value", _ZEROS[kind])  # messages may omit zero values
        if kind == "Float":
            value = number(value)
        if value is None:
            raise FlagError(f"{self.name} answered {body!r} for flag {key!r}, which is not a {kind.lower()}")
        return served_flag(key, variant, plain(value), self.name, at_ns=self._now())

    def _failure(self, answer: HttpAnswer) -> tuple[str, str]:
        """Return code and message of a refused call; raises FlagError for an answer that is not flagd's."""
        body = self._object(answer) if answer.content_type.startswith("application/json") else {}
        code = body.get("code")
        if not isinstance(code, str):
            raise self._unexpected(answer)
        return code, str(body.get("message", ""))

    def _object(self, answer: HttpAnswer) -> Mapping[str, Any]:
        body = answer.json("an evaluation of flagd")
        if not isinstance(body, dict):
            raise self._unexpected(answer)
        return body

    def _unexpected(self, answer: HttpAnswer) -> FlagError:
        return FlagError(
            f"{answer.url} answered {answer.status} with {answer.excerpt()}, not an evaluation of flagd; "
            f"{REMEDY}"
        )
