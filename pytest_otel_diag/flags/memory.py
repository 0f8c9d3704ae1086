"""Flags held in memory, for targets whose faults need no system, such as recordings."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from pydantic import ValidationError

from pytest_otel_diag.errors import FlagError, RestoreFailed, nearest
from pytest_otel_diag.model.base import Nanos
from pytest_otel_diag.model.flags import Flag, FlagChange, FlagDocument, FlagValue, ServedFlag


class MemoryFlags:
    """FlagController without a system behind it. Targeting rules are kept but not evaluated.

    ``now`` returns UTC nanoseconds and dates the answers.
    """

    def __init__(self, flags: Sequence[Flag], *, now: Callable[[], Nanos]) -> None:
        self._flags = {flag.key: flag for flag in flags}
        self._now = now

    async def document(self) -> FlagDocument:
        """Return all flags and their exact text."""
        return FlagDocument(raw=_dump(self._flags), flags=dict(self._flags))

    async def apply(self, change: FlagChange) -> None:
        """Set one flag; raises FlagError for an unknown flag or variant, then nothing has changed."""
        flag = self._known(change.key)
        if change.variant not in flag.variants:
            guess = nearest(change.variant, flag.variants)
            known = ", ".join(flag.variants)
            raise FlagError(
                f"flag {change.key!r} has no variant {change.variant!r}{guess}; choose from {known}"
            )
        self._flags[change.key] = flag.model_copy(update={"default_variant": change.variant})

    async def restore(self, document: FlagDocument) -> None:
        """Restore the document; raises RestoreFailed for a text that is not a document of flags."""
        self._flags = _load(document.raw)

    async def served(self, key: str, context: Mapping[str, FlagValue]) -> ServedFlag:  # noqa: ARG002 - the port
        """Return the variant that the flag is set to; raises FlagError for an unknown flag."""
        flag = self._known(key)
        return self.answer(flag, flag.default_variant)

    def answer(self, flag: Flag, variant: str) -> ServedFlag:
        """Return the answer of a flag that serves *variant*, dated now."""
        return ServedFlag(key=flag.key, variant=variant, value=flag.variants[variant], at_ns=self._now())

    def _known(self, key: str) -> Flag:
        flag = self._flags.get(key)
        if flag is None:
            known = ", ".join(self._flags) or "none"
            raise FlagError(f"unknown flag {key!r}{nearest(key, self._flags)}; known flags: {known}")
        return flag


def _dump(flags: Mapping[str, Flag]) -> bytes:
    body = {key: flag.model_dump(mode="json", exclude={"key"}) for key, flag in flags.items()}
    return json.dumps({"flags": body}, indent=2).encode()


def _load(raw: bytes) -> dict[str, Flag]:
    try:
        body: dict[str, Any] = json.loads(raw)["flags"]
        return {key: Flag.model_validate({"key": key, **values}) for key, values in body.items()}
    except (ValueError, TypeError, KeyError, AttributeError, ValidationError) as error:
        raise RestoreFailed(
            f"the document cannot be restored, since it does not hold these flags ({error}); "
            "restore the document that was read before the first change"
        ) from error
