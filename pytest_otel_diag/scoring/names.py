"""Equivalent spellings of service and operation names."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping

_SEPARATORS = re.compile(r"[\s._\-]+")
_SUFFIX = re.compile(r"(?:services?|svc)$")
_OPERATION_BOUNDARIES = frozenset("/.:# ")


def _fold_case(name: str) -> str:
    return name.strip().casefold()


def _fold_separators(name: str) -> str:
    return _SEPARATORS.sub("", _fold_case(name))


def _fold_suffix(name: str) -> str:
    folded = _fold_separators(name)
    return _SUFFIX.sub("", folded) or folded


_FOLDS = (_fold_case, _fold_separators, _fold_suffix)
"""Normalisations of a service name, strictest first: case, separators, the word "service"."""


class ServiceNames:
    """Resolves spellings (``paymentservice``, ``payment-service``, ``Payment``) to known services.

    A spelling resolves to a known service only if it fits no other known service, so two known services are
    never merged: if both ``payment`` and ``payment-service`` are known, each exact name resolves to itself
    and ``PaymentSvc`` to neither.
    """

    def __init__(self, known: Iterable[str]) -> None:
        self.known = tuple(dict.fromkeys(known))
        self._exact = frozenset(self.known)
        self._levels = tuple(_unambiguous(self.known, fold) for fold in _FOLDS)

    def resolve(self, name: str) -> str | None:
        """Return the known service that *name* means, None for none or several."""
        if name in self._exact:
            return name
        for fold, level in zip(_FOLDS, self._levels, strict=True):
            folded = fold(name)
            if folded in level:
                return level[folded]
        return None

    def canonical(self, name: str) -> str:
        """Return the known service that *name* means, or the name unchanged."""
        return self.resolve(name) or name

    def same(self, one: str, other: str) -> bool:
        """Return whether both names mean the same service; unknown names may differ only in case."""
        first, second = self.canonical(one), self.canonical(other)
        if first == second:
            return True
        return not {first, second} & self._exact and _fold_case(first) == _fold_case(second)

    def including(self, names: Iterable[str]) -> ServiceNames:
        """Return a resolver that also knows those of *names* that resolve to no known service."""
        return ServiceNames((*self.known, *(name for name in names if self.resolve(name) is None)))


def _unambiguous(known: Iterable[str], fold: Callable[[str], str]) -> Mapping[str, str | None]:
    level: dict[str, str | None] = {}
    for name in known:
        folded = fold(name)
        level[folded] = None if folded in level else name
    return level


def same_operation(expected: str, found: str | None) -> bool:
    """Return whether *found* is the expected operation, in full or in its last part.

    ``Charge`` matches ``oteldemo.PaymentService/Charge`` and ``/cart`` matches ``GET /cart``;
    case does not matter.
    """
    if found is None:
        return False
    want, have = _fold_case(expected), _fold_case(found)
    if have == want:
        return True
    if not want or not have.endswith(want):
        return False
    return have[-len(want) - 1] in _OPERATION_BOUNDARIES


def mentions(text: str, name: str) -> bool:
    """Return whether *text* contains *name* as a whole word (``payment-gateway`` lacks ``payment``)."""
    if not name:
        return False
    return re.search(rf"(?<![\w-]){re.escape(name)}(?![\w-])", text, re.IGNORECASE) is not None
