"""Flags evaluated over flagd's own protocol, as JSON over HTTP.

The demo offers it at http://localhost:8080/flagservice.

The protocol has a call for each type, and refuses a flag of another type. So all flags are asked once,
which tells their types, and from then on a flag is asked with the call of its type. Numbers are asked as
floats: asked as an integer, flagd cuts 0.5 down to 0. It writes integers as text, which is read as well. A
flag without a default variant is one that this protocol does not know.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from pytest_otel_diag.errors import FlagError
from pytest_otel_diag.flags.http import HttpAnswer, HttpClient
from pytest_otel_diag.flags.readers.answers import (
    NotEvaluated,
    disabled,
    no_variant,
    number,
    plain,
    unknown,
    wall_ns,
)
from pytest_otel_diag.model.base import Nanos
from pytest_otel_diag.model.flags import FlagValue, ServedFlag

SERVICE = "flagd.evaluation.v1.Service"
WAY_OUT = (
    "start flagd, or give the address of its evaluation protocol (its port 8013, or /flagservice behind the "
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
"""Member of the message that holds the value, type, message."""


def open_reader(rest: str) -> FlagdHttpReader:
    """Return the reader of the flagd at *rest*; raises ConfigurationError for what is no address."""
    return FlagdHttpReader(rest)


class FlagdHttpReader:
    """Asks the flagd at *base* (``http://HOST:PORT[/PATH]``). ``timeout_s`` bounds one question.

    ``now`` dates answers, in UTC nanoseconds. Raises ConfigurationError when *base* is no address.
    """

    def __init__(self, base: str, *, timeout_s: float = 5.0, now: Callable[[], Nanos] = wall_ns) -> None:
        self._base = base.strip()
        self._http = HttpClient(base, way_out=WAY_OUT, timeout_s=timeout_s)
        self._now = now
        self._kinds: dict[str, str] = {}

    @property
    def address(self) -> str:
        """The ``FlagAccess.served`` that opens this reader again."""
        return f"flagd:{self._base}"

    @property
    def name(self) -> str:
        """Protocol and address."""
        return f"flagd at {self._http.name}"

    async def served(self, key: str, context: Mapping[str, FlagValue]) -> ServedFlag:
        """Return what the flag answers; raises FlagError (unknown, disabled, broken rule, no answer)."""
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
            self._kinds.pop(key, None)  # another type than last time, or than the first guess
        if code == "not_found":
            raise await self._not_found(key, message, context)
        raise NotEvaluated(
            f"flag {key!r} cannot be evaluated by {self.name} in the context {dict(context)}: {code}, "
            f"{message}; its targeting may name a variant that it does not have"
        )

    async def served_all(self, context: Mapping[str, FlagValue]) -> Mapping[str, ServedFlag]:
        """Return what every flag answers; those that answer nothing (disabled, broken) are left out."""
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
        flags = self._object(answer).get("flags", {})  # left out when there is none
        if not isinstance(flags, dict) or not all(isinstance(body, dict) for body in flags.values()):
            raise self._unexpected(answer)
        found = {}
        for key, body in flags.items():
            field = next((name for name in _KINDS if name in body), None)
            if field is not None:
                found[key] = (field, _KINDS[field], body)
        # A broken flag is shown as a boolean whatever it is: its type is not known from that.
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
        value = body.get("value", _ZEROS[kind])  # zeros may be left out of a message
        if kind == "Float":
            value = number(value)
        if value is None:
            raise FlagError(f"{self.name} answers {body!r} for flag {key!r}, which is no {kind.lower()}")
        return ServedFlag(key=key, variant=variant, value=plain(value), at_ns=self._now())

    def _failure(self, answer: HttpAnswer) -> tuple[str, str]:
        """Return code and message of a refused call; raises FlagError when it was not flagd that answered."""
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
            f"{WAY_OUT}"
        )
