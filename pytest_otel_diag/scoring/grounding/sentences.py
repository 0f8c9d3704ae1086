"""Splits texts into sentences and clauses of words and numbers, in linear time."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property

_TOKEN = re.compile(
    r"(?P<time>\d{4}-\d\d-\d\d\w*|\d{1,2}:\d\d(?::\d\d)?)"
    r"|(?P<number>\d[\d.,]*(?<![.,]))"
    r"|(?P<arrow>[-=]>|→)"
    r"|(?P<word>[^\W\d]\w*)"
    r"|(?P<mark>[^\s\w])"
)
_SENTENCE_ENDS = frozenset({";", "!", "?", "\n"})
_CLAUSE_ENDS = frozenset({",", "(", ")", ":"})
_JOINERS = frozenset("-–—:#.+_$€/\\@=&*^'\"")

TIME = "<time>"
"""The word that stands for a date or a time of day."""


@dataclass(frozen=True, slots=True)
class Token:
    """A word or mark in lower case, or a number; ``start`` and ``end`` are its place in the text."""

    text: str
    start: int
    end: int
    number: bool = False


@dataclass(frozen=True)
class Clause:
    """The tokens ``[low, high)`` of a sentence."""

    text: str
    tokens: Sequence[Token]
    low: int
    high: int

    @cached_property
    def words(self) -> frozenset[str]:
        """The words of the clause."""
        return self.between(self.low, self.high)

    def between(self, low: int, high: int) -> frozenset[str]:
        """Return the words of the tokens ``[low, high)`` that belong to the clause."""
        return frozenset(one.text for one in self.tokens[max(low, self.low) : min(high, self.high)])

    def word(self, index: int) -> str:
        """Return the token at *index*, '' outside of the clause."""
        return self.tokens[index].text if self.low <= index < self.high else ""

    def numbers(self) -> Iterator[int]:
        """Yield the indexes of numbers."""
        return (index for index in range(self.low, self.high) if self.tokens[index].number)

    def is_number(self, index: int) -> bool:
        """Whether a number stands at *index*."""
        return self.low <= index < self.high and self.tokens[index].number

    def separate(self, index: int, units: frozenset[str], *, slash: bool = False) -> bool:
        """Whether the number stands for itself: no part of a word, a version, a range or an address.

        A unit may follow without a space; with *slash*, ``/`` may touch it.
        """
        token = self.tokens[index]
        before, after = self.text[token.start - 1 : token.start], self.text[token.end : token.end + 1]
        allowed = "/" if slash else ""
        if before and (before.isalnum() or before in _JOINERS - {allowed, "="}):
            return False
        if after.isalnum():
            return self.word(index + 1) in units
        if after in _JOINERS and after != allowed:
            # a full stop, a closing quotation mark or a dash at the end of a word is no part of a number
            return not self.text[token.end + 1 : token.end + 2].isalnum()
        return True

    def quoted(self, first: int, last: int) -> str:
        """Return the text from the token *first* to the token *last*."""
        last = min(last, self.high - 1)
        return self.text[self.tokens[first].start : self.tokens[last].end]


def sentences(text: str) -> Iterator[Clause]:
    """Yield the sentences of *text*, each as one clause."""
    tokens: list[Token] = []
    for token in _tokens(text):
        full_stop = token.text == "." and not text[token.end : token.end + 1].strip()
        if full_stop or token.text in _SENTENCE_ENDS:
            if tokens:
                yield Clause(text, tokens, 0, len(tokens))
            tokens = []
        else:
            tokens.append(token)
    if tokens:
        yield Clause(text, tokens, 0, len(tokens))


def clauses(sentence: Clause) -> Iterator[Clause]:
    """Yield the parts of a sentence between commas, colons and brackets."""
    low = sentence.low
    for index in range(sentence.low, sentence.high + 1):
        if index == sentence.high or sentence.tokens[index].text in _CLAUSE_ENDS:
            if index > low:
                yield Clause(sentence.text, sentence.tokens, low, index)
            low = index + 1


def _tokens(text: str) -> Iterator[Token]:
    position = 0
    for match in _TOKEN.finditer(text):
        if "\n" in text[position : match.start()]:
            yield Token("\n", position, match.start())
        position = match.end()
        kind = match.lastgroup
        shown = {"time": TIME, "arrow": "→"}.get(str(kind), match[0].lower())
        yield Token(shown, match.start(), match.end(), kind == "number")
