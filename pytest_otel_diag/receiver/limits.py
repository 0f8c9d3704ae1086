"""What the receiver takes, holds and waits for."""

from __future__ import annotations

from dataclasses import dataclass, fields

from pytest_otel_diag.errors import ConfigurationError

_MIB = 1 << 20


@dataclass(frozen=True, slots=True, kw_only=True)
class Limits:
    """Bounds of a receiver; all are larger than zero, raises ConfigurationError else.

    ``request_bytes``: one request, after decompression. ``queue_bytes`` and ``queue_records``: what was
    taken and is not stored yet; ``arriving_bytes``: bodies that are still being read, over all HTTP
    connections. When ``batch_rows`` records wait, or the oldest waits for ``batch_s``, the writer writes,
    about ``insert_rows`` at a time: an insert costs the same 40 ms however small it is.
    ``expanded_bytes``: what a request's resources and scopes may become when they are repeated in every
    row, as the tables have them. ``retry_after_s`` is what refused clients are told. ``connections``: open
    at once over HTTP; more push out idle ones. ``header_s``, ``body_s``: a client's time to send a header,
    a body; ``idle_s``: between requests.
    ``store_s``: how long an insert is tried again while the store is away; ``stop_s``: how long
    :meth:`Receiver.stop` lets the writer go on.
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
    store_s: float = 30.0
    stop_s: float = 60.0

    def __post_init__(self) -> None:
        for field in fields(self):
            value = getattr(self, field.name)
            if not value > 0:
                raise ConfigurationError(f"limit {field.name} of the receiver is {value}; it must be above 0")
        if self.request_bytes > min(self.queue_bytes, self.arriving_bytes):
            raise ConfigurationError(
                f"limit request_bytes of the receiver ({self.request_bytes:,}) is above queue_bytes or "
                "arriving_bytes: such a request could never be taken"
            )
