"""Flags evaluated over OFREP, OpenFeature's HTTP protocol.

flagd offers it on its port 8016, and so do other flag systems. A bulk request evaluates all flags and
supplies the names for suggestions when a flag is unknown.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from contextlib import suppress
from typing import Any
from urllib.parse import quote

from pytest_otel_diag.errors import FlagError
from pytest_otel_diag.flags.http import HttpAnswer, HttpClient
from pytest_otel_diag.flags.readers.answers import (
    NotEvaluated,
    UnnamedAnswer,
    disabled,
    no_variant,
    not_evaluated,
    served_flag,
    unknown,
    wall_ns,
)
from pytest_otel_diag.model.base import Nanos
from pytest_otel_diag.model.flags import FlagValue, ServedFlag

PATH = "ofrep/v1/evaluate/flags"
REMEDY = (
    "start flagd, or use the address of its OFREP service (its port 8016; "
    "docker compose port flagd 8016 shows the port on this machine)"
)


def open_reader(rest: str) -> OfrepReader:
    """Return the reader of the service at *rest*; raises ConfigurationError for an invalid address."""
    return OfrepReader(rest)


class OfrepReader:
    """Evaluates flags over the OFREP service at *base* (``http://HOST:PORT``).

    ``timeout_s`` bounds one request. ``now`` returns UTC nanoseconds and dates answers. Raises
    ConfigurationError for an invalid address.
    """

    def __init__(self, base: str, *, timeout_s: float = 5.0, now: Callable[[], Nanos] = wall_ns) -> None:
        self._base = base.strip()
        self._http = HttpClient(base, remedy=REMEDY, timeout_s=timeout_s)
        self._now = now

    @property
    def address(self) -> str:
        """The ``FlagAddress.served`` that opens this reader again."""
        return f"ofrep:{self._base}"

    @property
    def name(self) -> str:
        """Protocol and address."""
        return f"OFREP at {self._http.name}"

    async def served(self, key: str, context: Mapping[str, FlagValue]) -> ServedFlag:
        """Evaluate the flag; raises FlagError (unknown, disabled, broken rule, no answer)."""
        answer = await self._http.post(f"{PATH}/{quote(key, safe='')}", {"context": dict(context)})
        if answer.status == 404 and not _is_json(answer):
            names = await self._names(context)  # some services answer an unknown flag with a page
            if names:
                raise unknown(key, names, self.name)
        body = self._object(answer, "an OFREP evaluation")
        if body.get("key", key) != key:
            raise self._unexpected(answer)
        code, details = str(body.get("errorCode") or ""), str(body.get("errorDetails") or "")
        if answer.status == 200 and not code:
            return self._evaluated(key, body, context)
        if code == "FLAG_NOT_FOUND" or (answer.status == 404 and not code and "key" in body):
            if "disabled" in details.lower():
                raise disabled(key, self.name)
            raise unknown(key, await self._names(context), self.name)
        if not code:
            raise self._unexpected(answer)
        raise not_evaluated(key, context, self.name, code, details or "without a reason")

    async def served_all(self, context: Mapping[str, FlagValue]) -> Mapping[str, ServedFlag]:
        """Evaluate every flag; flags without a value (disabled, broken rule, odd answer) are left out."""
        found = {}
        for key, body in (await self._all(context)).items():
            with suppress(NotEvaluated):
                found[key] = self._evaluated(key, body, context)
        return found

    async def aclose(self) -> None:
        """Close the connections."""
        await self._http.aclose()

    async def _names(self, context: Mapping[str, FlagValue]) -> list[str]:
        try:
            return list(await self._all(context))
        except FlagError:
            return []

    async def _all(self, context: Mapping[str, FlagValue]) -> Mapping[str, Mapping[str, Any]]:
        answer = await self._http.post(PATH, {"context": dict(context)})
        if answer.status != 200:
            raise self._unexpected(answer)
        flags = self._object(answer, "an OFREP bulk evaluation").get("flags")
        if not isinstance(flags, list):
            raise self._unexpected(answer)
        found = {str(flag["key"]): flag for flag in flags if isinstance(flag, dict) and "key" in flag}
        if flags and not found:
            raise self._unexpected(answer)
        return found

    def _evaluated(self, key: str, body: Mapping[str, Any], context: Mapping[str, FlagValue]) -> ServedFlag:
        variant, value, reason = body.get("variant"), body.get("value"), str(body.get("reason") or "").upper()
        if reason == "DISABLED":
            raise disabled(key, self.name)
        if reason == "ERROR" or body.get("errorCode"):
            code, details = body.get("errorCode") or reason, body.get("errorDetails") or "without a reason"
            raise not_evaluated(key, context, self.name, str(code), str(details))
        problem = no_variant(key, context, self.name)
        if value is None:
            raise problem
        if not isinstance(variant, str) or not variant:
            raise UnnamedAnswer(str(problem), value)
        return served_flag(key, variant, value, self.name, at_ns=self._now())

    def _object(self, answer: HttpAnswer, expected: str) -> Mapping[str, Any]:
        if answer.status == 404 and not _is_json(answer):
            raise FlagError(
                f"{answer.url} answered 404 with {answer.excerpt()}: no OFREP service there; {REMEDY}. "
                "For flagd's own protocol, use flagd:URL"
            )
        body = answer.json(expected)
        if not isinstance(body, dict):
            raise self._unexpected(answer)
        return body

    def _unexpected(self, answer: HttpAnswer) -> FlagError:
        return FlagError(
            f"{answer.url} answered {answer.status} with {answer.excerpt()}, not an OFREP "
            f"evaluation; {REMEDY}"
        )


def _is_json(answer: HttpAnswer) -> bool:
    return answer.content_type.startswith("application/json")
