"""Failures of calls between services."""

from __future__ import annotations

from typing import Literal

FailureKind = Literal["application", "unresolved", "refused", "lost", "overload", "timeout", "cancelled"]


class RpcFailure(Exception):
    """A call failed; a behaviour may catch it as the real service's code does.

    ``code`` is the protocol's status (``"INTERNAL"`` for gRPC, ``"500"`` for HTTP), ``message`` the text of
    the callee or the client library. ``kind`` says where the failure arose: "application" in the callee's
    code; "unresolved" name, connection "refused" (no instance runs), connection "lost" (the callee died),
    "overload" (the callee's queue is full), "timeout" of the caller, "cancelled" by the caller's death.
    """

    def __init__(self, code: str, message: str = "", *, kind: FailureKind = "application") -> None:
        super().__init__(message or code)
        self.code = code
        self.message = message
        self.kind: FailureKind = kind


def cancelled() -> RpcFailure:
    """Return the failure that a callee sees when its caller has died."""
    return RpcFailure("CANCELLED", "context canceled", kind="cancelled")
