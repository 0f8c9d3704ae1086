"""Decompresses gzip and deflate bodies without ever producing more than the allowed size."""

from __future__ import annotations

import zlib

ENCODINGS = {"gzip": 31, "x-gzip": 31, "deflate": 15}
"""Content-Encoding → zlib's window bits, which also select the format."""

MAX_MEMBERS = 100
"""Members that one body may have; exporters send one."""


class TooLarge(Exception):
    """The decompressed body is larger than allowed."""


class BadEncoding(Exception):
    """The body is not valid in its content encoding."""


def decompress(body: bytes, encoding: str, max_bytes: int) -> bytes:
    """Return the decompressed body; *encoding* is one of ENCODINGS. Raises TooLarge or BadEncoding.

    A gzip body may have several members; trailing bytes are an error. More than MAX_MEMBERS raise
    BadEncoding: zlib copies the rest of the body after each member, which takes quadratic time.
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
