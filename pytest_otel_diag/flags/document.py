"""A flagd document that can be evaluated, changed and restored byte for byte.

The services of the simulated shop evaluate flags with :class:`FlagdDocument`, which uses flagd's own library
(see ``evaluator``). :class:`DocumentFlags` is the FlagController over the same document.

Setting a flag makes its services see the variant; module ``switching`` decides where it is set. Rules that
cannot be set to one variant are refused; :meth:`FlagdDocument.retarget` replaces them.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Hashable, Mapping
from types import MappingProxyType
from typing import Any

from pytest_otel_diag.errors import FlagError, RestoreFailed, nearest
from pytest_otel_diag.flags import document_json, document_text
from pytest_otel_diag.flags.evaluator import FlagdEvaluator
from pytest_otel_diag.flags.switching import switched
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
        text = self._text
        return FlagDocument(raw=text.raw, flags=dict(text.flags), unusable=dict(text.unusable))

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
        variant = self._evaluator.variant(key, context)
        if not variant:
            raise FlagError(
                f"flag {key!r} of {self._source} has no variant for the context {dict(context)}; "
                "check its targeting and default variant"
            )
        return variant, flag.variants[variant]

    def change(self, key: str, variant: str, context: Mapping[str, FlagValue] | None = None) -> None:
        """Set the flag, in its rule if it has one, so that *context* gets the variant; see ``switching``.

        Raises FlagError, then nothing has changed.
        """
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
        wanted = switched(flag, variant, context)
        rewritten = self._body()
        entry = self._entry(rewritten, key)
        default = wanted.default_variant
        _set(entry, "defaultVariant", default, keep=default == flag.default_variant)
        # A rule may come from $evaluators, which other flags share, so a changed flag gets its own.
        _set(entry, "targeting", wanted.targeting, keep=wanted.targeting == flag.targeting)
        self._rewrite(rewritten)

    def retarget(self, key: str, targeting: Mapping[str, Any] | None) -> None:
        """Replace the flag's rule (None removes it); raises FlagError, then nothing has changed."""
        self._known(key)
        rewritten = self._body()
        _set(self._entry(rewritten, key), "targeting", targeting, keep=False)
        self._rewrite(rewritten)

    def _body(self) -> dict[str, Any]:
        return copy.deepcopy(dict(self._text.body))

    def _entry(self, body: Mapping[str, Any], key: str) -> dict[str, Any]:
        """Return the flag's definition in *body*, to be changed; raises FlagError when "flags" lacks it."""
        entry = document_text.definitions(body).get(key)
        if document_text.is_reference(entry):
            entry = copy.deepcopy(self._text.entries[key])
            document_text.define(body, key, entry)
        if not isinstance(entry, dict):
            raise FlagError(
                f"flag {key!r} of {self._source} is defined by a reference to '$evaluators' that covers more "
                "than this flag; write the flag itself into 'flags'"
            )
        return entry

    def restore(self, raw: bytes) -> None:
        """Replace the document by *raw*; raises FlagError, then nothing has changed."""
        self._take(document_text.parse(raw, self._source))

    def _rewrite(self, body: Mapping[str, Any]) -> None:
        self.restore(document_json.write(body, self._text.raw))

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


def _set(entry: dict[str, Any], name: str, value: Any, *, keep: bool) -> None:
    """Set the member that flagd takes for *name*, or remove it if *value* is None; *keep* does nothing."""
    if keep:
        return
    written = document_json.members(entry, name)
    if value is None:
        for each in written:
            del entry[each]
    else:
        entry[written[-1] if written else name] = copy.deepcopy(value)


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
        self._document.change(change.key, change.variant, change.context)

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
