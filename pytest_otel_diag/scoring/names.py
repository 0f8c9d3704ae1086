"""Equivalent spellings of service and operation names."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping, Sequence

from pytest_otel_diag.errors import nearest

_SEPARATORS = re.compile(r"[\s._\-\u2010-\u2015]+")
_SUFFIX = re.compile(r"(?:services?|svc)$")
_OPERATION_BOUNDARIES = frozenset("/.:# ")


def fold_case(name: str) -> str:
    """Return a name without regard to case and surrounding space."""
    return name.strip().casefold()


def _fold_separators(name: str) -> str:
    return _SEPARATORS.sub("", fold_case(name))


def _fold_suffix(name: str) -> str:
    folded = _fold_separators(name)
    return _SUFFIX.sub("", folded) or folded


_FOLDS = (fold_case, _fold_separators, _fold_suffix)
"""Normalisations of a service name, strictest first: case, separators, the word "service"."""


_DECORATION = re.compile(r"^[\s`'\"]*(?:the\s+)?|[\s`'\".,]*$", re.IGNORECASE)
_KIND_OF_PART = re.compile(r"[\s_-](?:pod|container|instance|deployment)s?$", re.IGNORECASE)
_IN_BRACKETS = re.compile(r"\s*\([^()]*\)$")
_PORT = re.compile(r":\d{1,5}$")
# the pod of a deployment (a hash with digits, and five characters) or of a stateful set (a number)
_POD = re.compile(r"-(?=[a-z]*\d)[a-z0-9]{6,10}-[a-z0-9]{5}$|-\d{1,3}$")


def _views(name: str) -> tuple[str, ...]:
    """Return what a longer name may be about: the service of a pod, an address or an rpc method."""
    plain = _DECORATION.sub("", name)
    for pattern in (_IN_BRACKETS, _PORT, _KIND_OF_PART, _POD):
        plain = pattern.sub("", plain)
    views = [plain]
    for separator in "/.":
        pieces = [piece for view in views for piece in (view.split(separator)[0], view.split(separator)[-1])]
        views += [_POD.sub("", piece) for piece in pieces]
    return tuple(dict.fromkeys(view for view in views if view and view != name))


class ServiceNames:
    """Resolves spellings (``paymentservice``, ``payment-service``, ``Payment``) to known services.

    A spelling resolves to a known service only if it fits no other known service, so two known services are
    never merged: if both ``payment`` and ``payment-service`` are known, each exact name resolves to itself
    and ``PaymentSvc`` to neither. *parts* are names that telemetry gives to parts of services (pods,
    instances, hosts), with the services. Otherwise a name resolves by its form: ``payment-7d9f8b6c5d-x2k4z``,
    ``shop/payment``, ``payment.shop.svc.cluster.local:8080``, ``oteldemo.PaymentService/Charge``. A name
    that may mean several services resolves to none.
    """

    def __init__(self, known: Iterable[str], parts: Mapping[str, Sequence[str]] | None = None) -> None:
        self.known = tuple(dict.fromkeys(known))
        self._parts = dict(parts or {})
        self._exact = frozenset(self.known)
        self._levels = tuple(_unambiguous(self.known, fold) for fold in _FOLDS)

    def spelled(self, name: str) -> str | None:
        """Return the known service of which *name* is a spelling, None for none or several."""
        if name in self._exact:
            return name
        for fold, level in zip(_FOLDS, self._levels, strict=True):
            folded = fold(name)
            if folded in level:
                return level[folded]
        return None

    def resolve(self, name: str) -> str | None:
        """Return the known service that *name* means or is a part of, None for none or several."""
        found = self._meant(name)
        return found[0] if len(found) == 1 else None

    def _meant(self, name: str) -> tuple[str, ...]:
        spelled = self.spelled(name)
        if spelled is not None:
            return (spelled,)
        if any(fold(name) in level for fold, level in zip(_FOLDS, self._levels, strict=True)):
            return ()  # a spelling of several services
        if name in self._parts:
            return tuple(self._parts[name])
        return tuple(dict.fromkeys(service for view in _views(name) if (service := self.spelled(view))))

    def explain(self, name: str) -> str:
        """Return why *name* resolves to no service: the services that it may mean, or the nearest name."""
        found = self._meant(name)
        if len(found) > 1:
            return f"{name} (a part of {', '.join(found)}; name one of them)"
        spelled = self._spelled_alike(name)
        if spelled:
            return f"{name} (may mean {' or '.join(spelled)}; name one of them)"
        return f"{name}{nearest(name, self.known)}"

    def _spelled_alike(self, name: str) -> tuple[str, ...]:
        """Return the known services of which *name* is a spelling alike, strictest normalisation first."""
        for fold in _FOLDS:
            alike = tuple(one for one in self.known if fold(one) == fold(name))
            if alike:
                return alike
        return ()

    def canonical(self, name: str) -> str:
        """Return the known service that *name* means, or the name unchanged."""
        return self.resolve(name) or name

    def same(self, one: str, other: str) -> bool:
        """Return whether both names mean the same service; unknown names may differ only in case."""
        first, second = self.canonical(one), self.canonical(other)
        if first == second:
            return True
        return not {first, second} & self._exact and fold_case(first) == fold_case(second)

    def including(self, names: Iterable[str]) -> ServiceNames:
        """Return a resolver that also knows those of *names* that are no spelling of a known service."""
        added = (name for name in names if self.spelled(name) is None)
        return ServiceNames((*self.known, *added), self._parts)


def _unambiguous(known: Iterable[str], fold: Callable[[str], str]) -> Mapping[str, str | None]:
    level: dict[str, str | None] = {}
    for name in known:
        folded = fold(name)
        level[folded] = None if folded in level else name
    return level


def same_operation(expected: str, found: str | None) -> bool:
    """Return whether *found* is the expected operation, in full or in its last part.

    ``Charge`` matches ``oteldemo.PaymentService/Charge`` and ``/cart`` matches ``GET /cart``;
    case, parameters of an address and the brackets of a call do not matter.
    """
    if found is None:
        return False
    want, have = fold_case(expected), fold_case(found.partition("?")[0]).removesuffix("()")
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
