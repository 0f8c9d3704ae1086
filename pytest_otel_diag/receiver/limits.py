"""The limits of a receiver."""

from __future__ import annotations

from dataclasses import dataclass, fields

from pytest_otel_diag.errors import ConfigurationError

_MIB = 1 << 20


@dataclass(frozen=True, slots=True, kw_only=True)
class Limits:
    """Limits of a receiver; raises ConfigurationError for one that is not above 0.

    Memory: ``request_bytes`` bounds one request after decompression, ``queue_bytes`` and ``queue_records``
    the accepted requests that are not stored yet, ``arriving_bytes`` the bodies that all HTTP connections
    are still sending, ``header_bytes`` the headers of one request. ``expanded_bytes`` bounds the resources
    and scopes of a request when every row repeats them, as the tables require.

    Writing: the writer inserts once ``batch_rows`` records wait or the oldest has waited ``batch_s``
    seconds, about ``insert_rows`` at a time (even a small insert takes 40 ms). It retries an insert for as
    long as the store is unavailable; :meth:`Receiver.stop` lets it go on for ``stop_s``.

    Clients: a client refused by back-pressure is asked to wait ``retry_after_s``. At most ``connections``
    HTTP connections are open; further ones replace idle ones. A client has ``header_s`` seconds to send
    the headers of a request, ``body_s`` for its body, and ``idle_s`` between requests.
    """

    request_bytes: int = 32 * _MIB
    queue_bytes: int = 128 * _MIB
    queue_records: int = 500_000
    arriving_bytes: int = 128 * _MIB
    batch_rows: int = 25_000
    batch_s: float = 1.0
    insert_rows: int = 50_000
    expanded_bytes: int = 256 * _MIB
    retry_after_s: int = 1
    connections: int = 500
    header_bytes: int = 16_384
    header_s: float = 10.0
    body_s: float = 30.0
    idle_s: float = 120.0
    stop_s: float = 60.0

    def __post_init__(self) -> None:
        for field in fields(self):
            value = getattr(self, field.name)
            if not value > 0:
                raise ConfigurationError(f"limit {field.name} of the receiver is {value}; it must be above 0")
        if self.request_bytes > min(self.queue_bytes, self.arriving_bytes):
            raise ConfigurationError(
                f"limit request_bytes of the receiver ({self.request_bytes:,}) is above queue_bytes or "
                "arriving_bytes: a request of that size could never be accepted"
            )
