"""A flagd document that can be evaluated, changed and put back byte for byte.

:class:`FlagdDocument` is what the services of the simulated shop ask; its answers come from the real
evaluator (``flagd_core``). :class:`DocumentFlags` is the FlagController port over the same document.

Switching a flag means making its services see the variant. For most flags that is ``defaultVariant``. A
rule wins over the default, so a flag whose rule is a choice, ``{"if": [condition, variant, …]}``, is
switched in the rule: position 1, what those get that the condition holds for. The session's witness then
asks with a context for which it holds. A rule of shares (``fractional``) has no single place to switch: it is
replaced, so that everybody gets the variant who was dealt a share before; the document that is restored
afterwards brings the rule back. Rules of another shape are refused; :meth:`FlagdDocument.retarget` replaces
them.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Mapping
from types import MappingProxyType
from typing import Any

from pytest_otel_diag.errors import FlagError, RestoreFailed, nearest
from pytest_otel_diag.flags import document_text
from pytest_otel_diag.flags.evaluator import FlagdEvaluator
from pytest_otel_diag.model.base import Nanos
from pytest_otel_diag.model.flags import (
    Evaluation,
    Flag,
    FlagChange,
    FlagDocument,
    FlagScalar,
    FlagValue,
    ServedFlag,
)

NO_CONTEXT: Mapping[str, Any] = MappingProxyType({})


class FlagdDocument:
    """The flags of one flagd document; not for use from several threads at once.

    ``source`` names the document in errors. Raises FlagError for what flagd would refuse or lose.
    """

    def __init__(self, raw: bytes, *, source: str = "the flagd document") -> None:
        self._source = source
        self._take(document_text.parse(raw, source))

    def _take(self, text: document_text.DocumentText) -> None:
        evaluator = FlagdEvaluator(text.flags)
        self._text = text
        self._evaluator = evaluator
        # Keyed by flag and type asked for: the same flag asked for another type is a mismatch.
        self._static: dict[tuple[str, type], Evaluation] = {}

    @property
    def raw(self) -> bytes:
        """The document's bytes as they are now."""
        return self._text.raw

    @property
    def flags(self) -> Mapping[str, Flag]:
        """The flags by name."""
        return self._text.flags

    def snapshot(self) -> FlagDocument:
        """Return everything, exactly, for a later :meth:`restore`."""
        return FlagDocument(raw=self._text.raw, flags=dict(self._text.flags))

    def evaluate(self, key: str, default: FlagScalar, context: Mapping[str, Any] = NO_CONTEXT) -> Evaluation:
        """Return what an SDK answers a service that asks for the type of *default*.

        Unknown flags, broken rules and values of another type give the default with reason ERROR.
        """
        known = self._static.get((key, default.__class__))
        if known is not None:
            return known
        flag = self._text.flags.get(key)
        if flag is None:
            return Evaluation(default, "", "ERROR")
        if not flag.enabled:
            return Evaluation(default, "", "DISABLED")
        answer = self._evaluator.resolve(key, default, context)
        if answer.reason == "STATIC":
            self._static[key, default.__class__] = answer
        return answer

    def answer(self, key: str, context: Mapping[str, Any] = NO_CONTEXT) -> tuple[str, FlagValue]:
        """Return variant and value that *context* is answered with; raises FlagError when there is none."""
        flag = self._known(key)
        if not flag.enabled:
            raise FlagError(
                f"flag {key!r} is DISABLED in {self._source}: services use their own defaults; "
                "set its state to ENABLED"
            )
        first = next(iter(flag.variants.values()))
        numeric = isinstance(first, int | float) and not isinstance(first, bool)
        evaluation = self._evaluator.resolve(key, 0.0 if numeric else first, context)
        if not evaluation.variant:
            raise FlagError(
                f"flag {key!r} of {self._source} answers no variant for the context {dict(context)}; "
                "check its targeting and default variant"
            )
        return evaluation.variant, flag.variants[evaluation.variant]

    def change(self, key: str, variant: str) -> None:
        """Switch the flag, in its rule where one decides; raises FlagError and then nothing has changed."""
        flag = self._known(key)
        if variant not in flag.variants:
            raise FlagError(
                f"flag {key!r} has no variant {variant!r}{nearest(variant, flag.variants)}; "
                f"there are {', '.join(flag.variants)}"
            )
        if not flag.enabled:
            raise FlagError(
                f"flag {key!r} is DISABLED in {self._source}, so no variant of it is ever served; "
                "set its state to ENABLED"
            )
        body = copy.deepcopy(dict(self._text.body))
        entry = body["flags"][key]
        if flag.targeting is None or _is_share(flag.targeting):
            entry.pop("targeting", None)
            entry["defaultVariant"] = variant
        else:
            # The rule may have come from $evaluators, which other flags share: the flag gets its own.
            entry["targeting"] = copy.deepcopy(dict(flag.targeting))
            _choice(key, entry["targeting"])[1] = variant
        self._rewrite(body)

    def retarget(self, key: str, targeting: Mapping[str, Any] | None) -> None:
        """Replace the flag's rule (None takes it away); raises FlagError and then nothing has changed."""
        self._known(key)
        body = copy.deepcopy(dict(self._text.body))
        body["flags"][key].pop("targeting", None)
        if targeting is not None:
            body["flags"][key]["targeting"] = copy.deepcopy(dict(targeting))
        self._rewrite(body)

    def restore(self, raw: bytes) -> None:
        """Take over *raw* as the document; raises FlagError and then nothing has changed."""
        self._take(document_text.parse(raw, self._source))

    def _rewrite(self, body: Mapping[str, Any]) -> None:
        self.restore(document_text.write(body, self._text.raw))

    def _known(self, key: str) -> Flag:
        flag = self._text.flags.get(key)
        if key in self._text.unusable:
            raise FlagError(f"flag {key!r} of {self._source} cannot be used: {self._text.unusable[key]}")
        if flag is None:
            known = ", ".join(self._text.flags) or "none"
            raise FlagError(
                f"{self._source} has no flag {key!r}{nearest(key, self._text.flags)}; there are {known}"
            )
        return flag


def _is_share(rule: Any) -> bool:
    return isinstance(rule, Mapping) and set(rule) == {"fractional"}


def _choice(key: str, targeting: Mapping[str, Any]) -> list[Any]:
    """Return the arguments of a rule ``{"if": [condition, variant, …]}``; raises FlagError for others.

    In place of the variant there may be a rule of shares.
    """
    arguments = targeting.get("if")
    if set(targeting) != {"if"} or not isinstance(arguments, list) or len(arguments) < 2:
        found = ", ".join(map(repr, targeting))
        raise FlagError(
            f"flag {key!r} answers by a rule of targeting ({found}) that has no single place to switch; "
            'a rule {"if": [condition, variant, …]} has one, and a rule {"fractional": …} is replaced. '
            "Replace the rule, or take it out"
        )
    if not isinstance(arguments[1], str) and not _is_share(arguments[1]):
        raise FlagError(
            f"flag {key!r} answers by a rule whose first choice is {arguments[1]!r}, not a variant; "
            "replace the rule, or take it out"
        )
    return arguments


class DocumentFlags:
    """FlagController over a document in this process. ``now`` dates answers, in UTC nanoseconds."""

    def __init__(self, document: FlagdDocument, *, now: Callable[[], Nanos]) -> None:
        self._document = document
        self._now = now

    async def document(self) -> FlagDocument:
        """Return all flags and their exact text."""
        return self._document.snapshot()

    async def apply(self, change: FlagChange) -> None:
        """Switch one flag; raises FlagError for an unknown flag or variant, then nothing has changed."""
        self._document.change(change.key, change.variant)

    async def restore(self, document: FlagDocument) -> None:
        """Put the document back byte for byte; raises RestoreFailed when flagd would refuse it."""
        try:
            self._document.restore(document.raw)
        except FlagError as error:
            raise RestoreFailed(
                f"the document cannot be put back: {error}; restore the one read before the first change"
            ) from error

    async def served(self, key: str, context: Mapping[str, FlagValue]) -> ServedFlag:
        """Return what the flag answers in *context*; raises FlagError for an unknown or disabled flag."""
        variant, value = self._document.answer(key, context)
        return ServedFlag(key=key, variant=variant, value=value, at_ns=self._now())
