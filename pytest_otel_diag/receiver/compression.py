"""Bodies out of gzip and deflate, bounded: what would become too large is never made."""

from __future__ import annotations

import zlib

ENCODINGS = {"gzip": 31, "x-gzip": 31, "deflate": 15}
"""Content-Encoding → window bits of zlib, which also tell it the format."""

MAX_MEMBERS = 100
"""Members of one body; exporters send one."""


class TooLarge(Exception):
    """The body would be larger than allowed."""


class BadEncoding(Exception):
    """The body is not compressed as it says."""


def decompress(body: bytes, encoding: str, max_bytes: int) -> bytes:
    """Return the plain body; *encoding* is one of ENCODINGS. Raises TooLarge or BadEncoding.

    A gzip body may have several members, as the format allows; nothing may follow the last.
    More than MAX_MEMBERS raise BadEncoding: zlib copies what follows a member, each time, so that a
    body of very many empty ones would take quadratic time.
    """
    pieces: list[bytes] = []
    room = max_bytes
    rest = body
    while rest or not pieces:
        if len(pieces) == MAX_MEMBERS:
            raise BadEncoding(f"the body has more than {MAX_MEMBERS} {encoding} members; send it as one")
        engine = zlib.decompressobj(ENCODINGS[encoding])
        try:
            piece = engine.decompress(rest, room + 1)
        except zlib.error as error:
            raise BadEncoding(f"the body is not {encoding}: {error}") from error
        if len(piece) > room:
            raise TooLarge
        if not engine.eof:
            raise BadEncoding(f"the body is not {encoding}: it ends too early")
        pieces.append(piece)
        room -= len(piece)
        rest = engine.unused_data
    return b"".join(pieces)
