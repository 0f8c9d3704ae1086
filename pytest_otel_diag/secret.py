"""Credentials in addresses and command lines: one type that never prints them, and masks for other texts.

:class:`SecretText` holds a URL, a DSN, a header or a command. Printing, logging or serialising it shows a
mask; :meth:`SecretText.reveal` returns the text to connect with. Credentials of every such text are
remembered, so that :func:`cleaned` removes them from other texts, such as the error of a client library.
"""

from __future__ import annotations

import base64
import re
import secrets
from collections.abc import Callable, Iterator, Sequence
from typing import Any
from urllib.parse import quote, unquote

MASK = "***"

_TOKEN_PREFIX = "otd_"  # noqa: S105 - how tokens begin
_TOKEN = re.compile(r"otd_[A-Za-z0-9_-]{43}")
"""A token of :func:`new_token`. It is found by its form, so that nothing has to remember it."""

_SHORTEST = 6
"""Shorter credentials are masked in their place only: elsewhere they would garble words."""

_BARE_LOGIN = re.compile(r"^([^/@:]*:(?!/).*|\w+:/(?!/)[^/@:]*:[^@]*)@", re.DOTALL)
"""A login without //, also where a slash of a URL is missing."""
_KIND = (
    r"(?:token|secret|passw(?:or)?d|passphrase|pass(?![a-z])|pwd|api[-_]?key|access[-_]?key|auth[-_]?key"
    r"|private[-_]?key|credential|authorization|signature|cookie)"
)
_REST = rf"[\w-]{{0,64}}{_KIND}[\w-]{{0,64}}"
"""Bounded, so that long words cost linear time."""
_NAME = rf"(?<![\w-]){_REST}"
_QUERY_NAME = r"(?:[\w-]*(?:auth|key|sig|jwt)|code|pw|session[\w-]*|sid)"
"""Names that mean a credential in the query of a URL, where others mean an option."""
_PATTERNS = (
    re.compile(
        r"((?:authorization|cookie)[\"']?\s*[=:]\s*[\"']?)([a-z][\w-]*\s+)?([^\s\"'][^\"'\r\n]*)",
        re.IGNORECASE,
    ),
    re.compile(
        rf"({_NAME}[\"']?\s*(?:[=:]|%3d)\s*[\"']?)((?:bearer|basic)\s+)?([^\s&,;\"']+)", re.IGNORECASE
    ),
    re.compile(rf"([?&]{_QUERY_NAME}(?:=|%3d))()([^\s&#\"']+)", re.IGNORECASE),
    re.compile(r"(\b(?:bearer|basic)[\s:]+)()([^\s,;\"']+)", re.IGNORECASE),
    re.compile(rf"((?<![\w-])-{_REST}\s+)()([^\s-]\S*)", re.IGNORECASE),
    re.compile(r"((?:^|\s)(?:-u|--(?:proxy-)?user)[\s=]*[\"']?)()([^\s:\"']+:[^\s\"']+)"),
    re.compile(
        r"((?:^|\s)(?:-H|--header)[\s=]*[\"']?[\w-]+:\s*(?:(?:bearer|basic)\s+)?)()([^\"'\r\n]+)",
        re.IGNORECASE,
    ),
)
"""What precedes a credential, its scheme, the credential."""
_OPTION = re.compile(rf"-{_REST}", re.IGNORECASE)
_USER_OPTION = re.compile("-u|--(?:proxy-)?user")
_HEADER_OPTION = re.compile("-H|--header")

_known: set[str] = set()
"""Credentials of every SecretText of this process, as they may appear in texts."""


class SecretText:
    """A text that may contain credentials; ``str()``, ``repr()``, formats and JSON show it masked.

    *mask* returns the form to show, :func:`masked` by default. The text may begin with *plain*, in which
    nothing is a credential.
    """

    __slots__ = ("_shown", "_text")

    def __init__(self, text: str, *, mask: Callable[[str], str] | None = None, plain: str = "") -> None:
        self._text = text
        rest = text.removeprefix(plain)
        self._shown = text[: len(text) - len(rest)] + (mask or masked)(rest)
        for fragment in (*_credentials(rest), *([] if mask is None else _values(rest))):
            _remember(fragment)

    def reveal(self) -> str:
        """Return the text with its credentials, to connect with."""
        return self._text

    @property
    def complete(self) -> bool:
        """Whether the credentials are there; they are not where the text was read from a file of ours."""
        return MASK not in self._text

    def __str__(self) -> str:
        return self._shown

    def __repr__(self) -> str:
        return repr(self._shown)

    def __bool__(self) -> bool:
        return bool(self._text)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, SecretText) and other._text == self._text

    def __hash__(self) -> int:
        return hash(self._text)

    @classmethod
    def __get_pydantic_core_schema__(cls, source: Any, handler: Any) -> Any:
        from pydantic_core import core_schema  # noqa: PLC0415 - options are read without pydantic

        return core_schema.no_info_plain_validator_function(
            lambda value: value if isinstance(value, cls) else cls(_text(value)),
            serialization=core_schema.to_string_ser_schema(),
        )


def new_token() -> SecretText:
    """Return a random token of 256 bits, which :func:`cleaned` removes from texts in every process."""
    return SecretText(f"{_TOKEN_PREFIX}{secrets.token_urlsafe(32)}", mask=lambda _: MASK)


def hidden(text: str) -> SecretText:
    """Return a text of which every value is secret, such as ``key=value`` headers: only names are shown."""
    return SecretText(text, mask=lambda whole: re.sub(r"=[^,]*", f"={MASK}", whole) if "=" in whole else MASK)


def spec(text: str) -> SecretText:
    """Return ``scheme:rest``, such as ``chat:MODEL@URL``, of which only the rest may hold credentials."""
    scheme, colon, _ = text.partition(":")
    return SecretText(text, plain=f"{scheme}{colon}")


def credential(text: str) -> SecretText:
    """Return a text that is a credential as a whole, such as the key of an API."""
    _remember(text)
    return SecretText(text, mask=lambda whole: MASK if whole else "")


def masked(text: str) -> str:
    """Return one value, such as a URL, a DSN or a header, with its credentials replaced by ``***``.

    Masked are the login of a URL (the user too, since it may be a token), that of ``user:password@host``,
    values of names such as ``password`` or ``--api-key``, headers of a command, and what follows ``Bearer``
    and ``Basic``.
    """
    begin, end = _login(text)
    shown = f"{text[:begin]}{MASK}{text[end:]}" if end else text
    for pattern in _PATTERNS:
        shown = pattern.sub(rf"\1{MASK}", shown)
    return shown


def masked_command(words: Sequence[str]) -> str:
    """Return a command line with the credentials of each word masked, values of secret options included."""
    return " ".join(_masked_word(word, before) for word, before in zip(words, ("", *words), strict=False))


def _login(text: str) -> tuple[int, int]:
    """Return where the login of a URL begins and ends, zeros where there is none.

    It ends at the last @, because a password may contain any character.
    """
    slashes, end = text.find("//"), text.rfind("@")
    if slashes >= 0:
        return (slashes + 2, end) if slashes + 2 <= end else (0, 0)
    return (0, end) if _BARE_LOGIN.search(text) else (0, 0)


def _masked_word(word: str, before: str) -> str:
    if _OPTION.fullmatch(before) or (_USER_OPTION.fullmatch(before) and ":" in word):
        return MASK
    name, colon, _ = word.partition(":")
    return f"{name}: {MASK}" if colon and _HEADER_OPTION.fullmatch(before) else masked(word)


def cleaned(text: str) -> str:
    """Return the text without the credentials of any SecretText of this process, and without tokens."""
    if _TOKEN_PREFIX in text:
        text = _TOKEN.sub(MASK, text)
    for fragment in sorted(_known, key=len, reverse=True):
        if fragment in text:
            text = text.replace(fragment, MASK)
    return text


def _text(value: object) -> str:
    if not isinstance(value, str):
        raise ValueError("must be a text")
    return value


def _remember(fragment: str) -> None:
    if len(fragment) >= _SHORTEST and fragment != MASK:
        plain = unquote(fragment)
        _known.update(
            {fragment, plain, *(quote(one, safe=safe) for one in (fragment, plain) for safe in ("", "/"))}
        )


def _credentials(text: str) -> Iterator[str]:
    begin, end = _login(text)
    if end:
        user, colon, password = text[begin:end].partition(":")
        yield password if colon else user
        yield base64.b64encode(unquote(f"{user}:{password}").encode()).decode()
    for pattern in _PATTERNS:
        for found in pattern.finditer(text):
            yield found.group(3)
            yield re.split(r"[\s,;]", found.group(3))[0]


def _values(text: str) -> Iterator[str]:
    for part in text.split(","):
        yield part.partition("=")[2].strip()
