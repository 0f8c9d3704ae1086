"""Masks credentials in text that people or files get to see: messages, command lines, addresses."""

from __future__ import annotations

import re
from collections.abc import Sequence

MASK = "***"

_URL_LOGIN = re.compile(r"://.*@", re.DOTALL)
"""Up to the last @, because a password may contain any character."""
_BARE_LOGIN = re.compile(r"^[^/@:]*:(?!/).*@", re.DOTALL)
_NAME = r"[\w-]*(?:token|secret|passw(?:or)?d|api[-_]?key|credential|authorization)[\w-]*"
_ASSIGNMENT = re.compile(rf"({_NAME}\s*[=:]\s*)(?:(?:bearer|basic)\s+)?[^\s&,;]+", re.IGNORECASE)
_SCHEME = re.compile(r"\b(bearer|basic)\s+\S+", re.IGNORECASE)
_OPTION = re.compile(rf"--?{_NAME}", re.IGNORECASE)


def masked(text: str) -> str:
    """Return one value, such as a URL, a DSN or a header, with its credentials replaced by ``***``.

    Masked are the login of a URL (the user too, since it may be a token), that of ``user:password@host``,
    values assigned to names such as ``password`` or ``api_key``, and what follows ``Bearer`` and ``Basic``.
    """
    shown = _URL_LOGIN.sub(f"://{MASK}@", text) if "://" in text else _BARE_LOGIN.sub(f"{MASK}@", text)
    return _SCHEME.sub(rf"\1 {MASK}", _ASSIGNMENT.sub(rf"\1{MASK}", shown))


def masked_command(words: Sequence[str]) -> str:
    """Return a command line with the credentials of each word masked, values of secret options included."""
    return " ".join(
        MASK if _OPTION.fullmatch(before) else masked(word)
        for word, before in zip(words, ("", *words), strict=False)
    )
