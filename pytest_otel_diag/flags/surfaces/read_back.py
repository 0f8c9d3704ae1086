"""Replacing a document in a place that promises little: compare, write, and look until it is kept.

Such a place (a web interface, a user's command) has no lock and no version. It may answer before it has
written, answer and not write, or write and not answer. So every write is read back; a write that is not
kept is sent again, a bounded number of times; and a document that is neither the one before nor ours means
that somebody else wrote. One thing cannot be seen from outside: somebody who writes after our comparison
and before our write arrives is overwritten.
"""

from __future__ import annotations

import asyncio
import json
import time
from dataclasses import dataclass
from typing import Any, Protocol

from pytest_otel_diag.errors import FlagError, LostUpdate

_NAMES_SHOWN = 5
_NO_MEANING = ("$schema",)  # flagd does not look at it, and some places drop it


class Doubtful(FlagError):
    """A request failed in a way that says nothing of whether it was carried out; it may be sent again."""


@dataclass(frozen=True)
class Patience:
    """How long is waited: ``kept_s`` for a write to be kept, looked at every ``poll_s``; ``tries`` in all.

    The longest wait for one write is about ``tries`` × (``kept_s`` + the time of one request).
    """

    tries: int = 3
    kept_s: float = 5.0
    poll_s: float = 0.1


class Place(Protocol):
    """What is needed of a place."""

    @property
    def name(self) -> str:
        """What errors call it."""
        ...

    async def read(self) -> bytes:
        """Return the document; raises FlagError."""
        ...

    async def put(self, raw: bytes) -> None:
        """Ask once for *raw* to be kept; raises Doubtful when that may have worked, FlagError when not."""
        ...

    def same(self, one: bytes, other: bytes) -> bool:
        """Whether two texts are one document."""
        ...


async def replace(place: Place, raw: bytes, *, expected: bytes | None, patience: Patience) -> None:
    """Write *raw* and return when it is read back; *expected* None replaces whatever is there.

    Raises LostUpdate when something else than *expected* is there before or after, FlagError when the
    write is not kept however often it is sent.
    """
    if expected is not None:
        found = await place.read()
        if not place.same(found, expected):
            raise LostUpdate(
                f"{place.name} is not as it was read ({differing(expected, found)}): somebody else wrote it; "
                "nothing was written. Stop the other writer (another run, the flagd-ui page, its scheduler, "
                "an editor of the file) and start again"
            )
    failure: FlagError | None = None
    for _ in range(patience.tries):
        try:
            await place.put(raw)
            failure = None
        except Doubtful as error:
            failure = error
        try:
            if await _kept(place, raw, expected, patience):
                return
        except Doubtful as error:
            failure = failure or error
    told = f"the last answer was: {failure}" if failure else "every write was answered as if it were kept"
    raise FlagError(
        f"{place.name} does not keep what is written: after {patience.tries} writes the document there is "
        f"still another ({told}). A late one may still arrive; look with: otel-diag flags list"
    )


async def _kept(place: Place, raw: bytes, expected: bytes | None, patience: Patience) -> bool:
    """Look until *raw* is there; False when the document before still is, Doubtful when nothing is known."""
    deadline_s = time.monotonic() + patience.kept_s
    strange = b""
    failure: FlagError | None = None
    seen = False
    while True:
        try:
            found = await place.read()
        except FlagError as error:
            failure = error
        else:
            seen = True
            if place.same(found, raw):
                return True
            if expected is not None and not place.same(found, expected):
                # Twice the same, or it might be a document that is being written.
                if strange and place.same(found, strange):
                    raise LostUpdate(
                        f"{place.name} holds a document of somebody else after our write "
                        f"({differing(raw, found)}): they wrote over it, or flagd-ui was started again and "
                        "has its first document (a pod starts from its ConfigMap). Stop the other writer"
                    )
                strange = found
        if time.monotonic() >= deadline_s:
            if not seen and failure is not None:
                raise Doubtful(str(failure)) from failure
            return False
        await asyncio.sleep(patience.poll_s)


def same_json(one: bytes, other: bytes) -> bool:
    """Whether two texts hold the same JSON: order, spaces, ``1`` against ``1.0`` and ``$schema`` aside."""
    if one == other:
        return True
    try:
        return _plain(json.loads(one)) == _plain(json.loads(other))
    except (ValueError, RecursionError):
        return False


def differing(one: bytes, other: bytes) -> str:
    """Return in what two documents differ, for errors: names of flags where both can be read."""
    try:
        before, after = json.loads(one)["flags"], json.loads(other)["flags"]
        names = [
            name
            for name in dict.fromkeys((*before, *after))
            if canonical(before.get(name)) != canonical(after.get(name))
        ]
    except (ValueError, LookupError, TypeError, AttributeError, RecursionError):
        return f"{len(one)} bytes against {len(other)}"
    if not names:
        return "the flags are alike, something beside them differs"
    more = f" and {len(names) - _NAMES_SHOWN} more" if len(names) > _NAMES_SHOWN else ""
    return f"different: {', '.join(names[:_NAMES_SHOWN])}{more}"


def canonical(value: Any) -> str:
    """Return a text that is equal for equal JSON: sorted keys, whole numbers without a fraction."""
    return json.dumps(_numbers(value), sort_keys=True)


def _plain(document: Any) -> str:
    if isinstance(document, dict):
        document = {key: value for key, value in document.items() if key not in _NO_MEANING}
    return canonical(document)


def _numbers(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _numbers(item) for key, item in value.items()}
    if isinstance(value, list):
        return [_numbers(item) for item in value]
    if isinstance(value, float) and value.is_integer():
        return int(value)
    return value
