"""What a call can end with instead of a reply."""

from __future__ import annotations

from typing import Literal

FailureKind = Literal["application", "unresolved", "refused", "lost", "overload", "timeout", "cancelled"]


class RpcFailure(Exception):
    """A call failed; a behaviour may catch it as the real code does.

    ``code`` is the protocol's (gRPC's ``"INTERNAL"``, or a text such as ``"500"`` for HTTP), ``message``
    what the callee or the client library says. ``kind`` tells where it arose: "application" in the
    callee's code; the rest in between: name not resolved, connection refused (nobody serves), connection
    lost (the callee died), queue of the callee full, deadline of the caller, cancelled by the caller's death.
    """

    def __init__(self, code: str, message: str = "", *, kind: FailureKind = "application") -> None:
        super().__init__(message or code)
        self.code = code
        self.message = message
        self.kind: FailureKind = kind


def cancelled() -> RpcFailure:
    """Return what a callee is left with whose caller has died."""
    return RpcFailure("CANCELLED", "context canceled", kind="cancelled")
