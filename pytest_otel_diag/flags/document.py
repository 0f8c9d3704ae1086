"""A flagd document that can be evaluated, changed and restored byte for byte.

The services of the simulated shop evaluate flags with :class:`FlagdDocument`, which uses flagd's own library
(see ``evaluator``). :class:`DocumentFlags` is the FlagController over the same document.

Setting a flag makes its services see the variant. Most flags are set by ``defaultVariant``. Targeting rules
take precedence over the default, so a flag with a rule ``{"if": [condition, variant, …]}`` is set in the
rule, at position 1; the session's witness then evaluates it in a context that meets the condition. A
``fractional`` rule splits its users between variants, so it is removed and everyone gets the set variant,
until the document is restored. Other rules are refused; :meth:`FlagdDocument.retarget` replaces them.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Hashable, Mapping
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

_MOST_KEPT = 4096
"""Answers of rules that are kept: a rule may be evaluated for each of many users."""


class FlagdDocument:
    """The flags of one flagd document; not thread-safe.

    ``source`` names the document in errors. Raises FlagError for a document that flagd would refuse or lose.
    """

    def __init__(self, raw: bytes, *, source: str = "the flagd document") -> None:
        self._source = source
        self._take(document_text.parse(raw, source))

    def _take(self, text: document_text.DocumentText) -> None:
        evaluator = FlagdEvaluator(text.flags)
        self._text = text
        self._evaluator = evaluator
        # Keyed by flag and requested type, since another type is a mismatch.
        self._static: dict[tuple[str, type], Evaluation] = {}
        self._targeted: dict[Hashable, Evaluation] = {}
        rules = {key: flag.targeting for key, flag in text.flags.items() if flag.targeting is not None}
        self._repeatable = {key for key, rule in rules.items() if _reads_context_only(rule)}

    @property
    def raw(self) -> bytes:
        """The current bytes of the document."""
        return self._text.raw

    @property
    def flags(self) -> Mapping[str, Flag]:
        """The flags by name."""
        return self._text.flags

    def snapshot(self) -> FlagDocument:
        """Return the whole document, exactly, for a later :meth:`restore`."""
        return FlagDocument(raw=self._text.raw, flags=dict(self._text.flags))

    def evaluate(self, key: str, default: FlagScalar, context: Mapping[str, Any] = NO_CONTEXT) -> Evaluation:
        """Evaluate the flag as an SDK does for a service that requests the type of *default*.

        Unknown flags, broken rules and values of another type yield the default with reason ERROR.
        """
        known = self._static.get((key, default.__class__))
        if known is not None:
            return known
        flag = self._text.flags.get(key)
        if flag is None:
            return Evaluation(default, "", "ERROR")
        if not flag.enabled:
            return Evaluation(default, "", "DISABLED")
        if key in self._repeatable:
            return self._repeated(key, default, context)
        answer = self._evaluator.resolve(key, default, context)
        if answer.reason == "STATIC":
            self._static[key, default.__class__] = answer
        return answer

    def _repeated(self, key: str, default: FlagScalar, context: Mapping[str, Any]) -> Evaluation:
        """Evaluate a flag whose rule answers the same for the same context."""
        # With classes, since true, 1 and 1.0 are equal in Python but not in a rule.
        values = tuple([(name, value.__class__, value) for name, value in context.items()])
        asked = (key, default.__class__, default, values)
        try:
            known = self._targeted.get(asked)
        except TypeError:  # lists and objects in the context are not hashable
            return self._evaluator.resolve(key, default, context)
        if known is None:
            if len(self._targeted) >= _MOST_KEPT:
                self._targeted.clear()
            known = self._targeted[asked] = self._evaluator.resolve(key, default, context)
        return known

    def answer(self, key: str, context: Mapping[str, Any] = NO_CONTEXT) -> tuple[str, FlagValue]:
        """Return variant and value for *context*; raises FlagError when the flag has none."""
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
                f"flag {key!r} of {self._source} has no variant for the context {dict(context)}; "
                "check its targeting and default variant"
            )
        return evaluation.variant, flag.variants[evaluation.variant]

    def change(self, key: str, variant: str) -> None:
        """Set the flag, in its rule if it has one; raises FlagError, then nothing has changed."""
        flag = self._known(key)
        if variant not in flag.variants:
            raise FlagError(
                f"flag {key!r} has no variant {variant!r}{nearest(variant, flag.variants)}; "
                f"choose from {', '.join(flag.variants)}"
            )
        if not flag.enabled:
            raise FlagError(
                f"flag {key!r} is DISABLED in {self._source}, so none of its variants is served; "
                "set its state to ENABLED"
            )
        body = copy.deepcopy(dict(self._text.body))
        entry = body["flags"][key]
        if flag.targeting is None or _is_fractional(flag.targeting):
            entry.pop("targeting", None)
            entry["defaultVariant"] = variant
        else:
            # The rule may come from $evaluators, which other flags share, so the flag gets a copy.
            entry["targeting"] = copy.deepcopy(dict(flag.targeting))
            _choice(key, entry["targeting"])[1] = variant
        self._rewrite(body)

    def retarget(self, key: str, targeting: Mapping[str, Any] | None) -> None:
        """Replace the flag's rule (None removes it); raises FlagError, then nothing has changed."""
        self._known(key)
        body = copy.deepcopy(dict(self._text.body))
        body["flags"][key].pop("targeting", None)
        if targeting is not None:
            body["flags"][key]["targeting"] = copy.deepcopy(dict(targeting))
        self._rewrite(body)

    def restore(self, raw: bytes) -> None:
        """Replace the document by *raw*; raises FlagError, then nothing has changed."""
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
                f"{self._source} has no flag {key!r}{nearest(key, self._text.flags)}; known flags: {known}"
            )
        return flag


def _reads_context_only(rule: Any) -> bool:
    """Whether a rule reads named members of the context and nothing else, above all not the time."""
    if isinstance(rule, Mapping):
        variables = all(_is_member(operand) for operator, operand in rule.items() if operator == "var")
        return variables and all(map(_reads_context_only, rule.values()))
    return not isinstance(rule, list | tuple) or all(map(_reads_context_only, rule))


def _is_member(variable: Any) -> bool:
    """Whether the operand of ``var`` names one member of the context, with or without a default."""
    name = variable[0] if isinstance(variable, list | tuple) and variable else variable
    return isinstance(name, str) and bool(name) and not name.startswith("$flagd")


def _is_fractional(rule: Any) -> bool:
    return isinstance(rule, Mapping) and set(rule) == {"fractional"}


def _choice(key: str, targeting: Mapping[str, Any]) -> list[Any]:
    """Return the arguments of a rule ``{"if": [condition, variant, …]}``; raises FlagError for other rules.

    The variant may also be a ``fractional`` rule.
    """
    arguments = targeting.get("if")
    if set(targeting) != {"if"} or not isinstance(arguments, list) or len(arguments) < 2:
        found = ", ".join(map(repr, targeting))
        raise FlagError(
            f"flag {key!r} has a targeting rule ({found}) that cannot be set to one variant; supported are "
            '{"if": [condition, variant, …]} and {"fractional": …}. Replace the rule, or remove it'
        )
    if not isinstance(arguments[1], str) and not _is_fractional(arguments[1]):
        raise FlagError(
            f"flag {key!r} has a rule whose first choice is {arguments[1]!r}, not a variant; "
            "replace the rule, or remove it"
        )
    return arguments


class DocumentFlags:
    """FlagController over a document in this process; ``now`` returns UTC nanoseconds and dates answers."""

    def __init__(self, document: FlagdDocument, *, now: Callable[[], Nanos]) -> None:
        self._document = document
        self._now = now

    async def document(self) -> FlagDocument:
        """Return all flags and their exact text."""
        return self._document.snapshot()

    async def apply(self, change: FlagChange) -> None:
        """Set one flag; raises FlagError for an unknown flag or variant, then nothing has changed."""
        self._document.change(change.key, change.variant)

    async def restore(self, document: FlagDocument) -> None:
        """Restore the document byte for byte; raises RestoreFailed when flagd would refuse it."""
        try:
            self._document.restore(document.raw)
        except FlagError as error:
            raise RestoreFailed(
                f"the document cannot be restored: {error}; restore the one read before the first change"
            ) from error

    async def served(self, key: str, context: Mapping[str, FlagValue]) -> ServedFlag:
        """Evaluate the flag in *context*; raises FlagError for an unknown or disabled flag."""
        variant, value = self._document.answer(key, context)
        return ServedFlag(key=key, variant=variant, value=value, at_ns=self._now())
