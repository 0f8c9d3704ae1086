"""The contract that every flag controller fulfils.

Subclass it in a test module and provide two fixtures: ``controller``, a fresh FlagController, and ``flag``,
the key of one of its flags that has at least two variants and no rule::

    class TestMine(FlagControllerContract):
        @pytest.fixture
        def controller(self): ...
        @pytest.fixture
        def flag(self): return "paymentFailure"

Inherit from further classes for optional abilities: :class:`FlagRulesContract` if the controller evaluates
targeting rules, :class:`FlagDocumentContract` if it holds a whole flagd document, and
:class:`SurfaceContract` for a surface, which stores the document and which other clients write to.

Writes may be asynchronous: the tests wait up to ``within_s`` seconds for an evaluation to change, and it must
then stay. The test methods are coroutines: run them with pytest-asyncio in auto mode.
"""

from __future__ import annotations

import asyncio
import json
import operator
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field

import pytest

from pytest_otel_diag.errors import FlagError, LostUpdate, RestoreFailed
from pytest_otel_diag.flags.surface import Surface
from pytest_otel_diag.model.flags import Flag, FlagChange, FlagDocument, FlagValue, ServedFlag
from pytest_otel_diag.ports import FlagController

READS_IN_A_ROW = 5
_POLL_S = 0.05
_USERS = tuple({"targetingKey": f"user-{number}"} for number in range(30))


async def answered(
    controller: FlagController,
    key: str,
    variant: str,
    context: Mapping[str, FlagValue] | None = None,
    *,
    within_s: float = 10.0,
) -> ServedFlag:
    """Return the first of several answers in a row that are *variant*, waited for at most *within_s* seconds.

    Raises AssertionError with the last answer when the variant does not come, or does not stay.
    """
    clock = asyncio.get_running_loop().time
    deadline_s = clock() + within_s
    while (answer := await controller.served(key, context or {})).variant != variant:
        assert clock() < deadline_s, f"{key} still answers {answer.variant!r} after {within_s:g} s"
        await asyncio.sleep(_POLL_S)
    for _ in range(READS_IN_A_ROW - 1):
        again = await controller.served(key, context or {})
        assert again.variant == variant, f"{key} answered {variant!r}, and then {again.variant!r}"
    return answer


class _Waiting:
    within_s: float = 10.0
    """Seconds until an evaluation must reflect a write."""
    same: Callable[[bytes, bytes], bool] = staticmethod(operator.eq)
    """Compares two documents; override it for surfaces that reformat the text."""


class FlagControllerContract(_Waiting):
    """Subclass this to test a flag controller."""

    async def test_the_document_names_every_flag_and_is_stable(
        self, controller: FlagController, flag: str
    ) -> None:
        """Two reads without a change in between return the same bytes."""
        first, second = await controller.document(), await controller.document()
        assert flag in first.flags
        assert first.flags[flag].key == flag
        assert first.raw
        assert first.raw == second.raw

    async def test_an_applied_change_is_served_and_documented(
        self, controller: FlagController, flag: str
    ) -> None:
        """Evaluations return the variant that was set, and its value, consistently."""
        known = (await controller.document()).flags[flag]
        for variant in (*_others(known), known.default_variant):
            await controller.apply(FlagChange(key=flag, variant=variant))
            answer = await answered(controller, flag, variant, within_s=self.within_s)
            assert (answer.key, answer.variant, answer.value) == (flag, variant, known.variants[variant])
            assert type(answer.value) is type(known.variants[variant])
            assert (await controller.document()).flags[flag].default_variant == variant

    async def test_the_default_is_served_before_any_change(
        self, controller: FlagController, flag: str
    ) -> None:
        """Before any change the default variant is served."""
        known = (await controller.document()).flags[flag]
        assert (await controller.served(flag, {})).variant == known.default_variant

    async def test_a_change_touches_no_other_flag(self, controller: FlagController) -> None:
        """Other flags stay unchanged, and a second change keeps the first."""
        before = (await controller.document()).flags
        changes = {
            key: _others(known)[0]
            for key, known in before.items()
            if known.enabled and not known.targeting and _others(known)
        }
        for key, variant in changes.items():
            await controller.apply(FlagChange(key=key, variant=variant))
        after = (await controller.document()).flags
        for key, known in before.items():
            wanted = changes.get(key, known.default_variant)
            assert after[key] == known.model_copy(update={"default_variant": wanted})
        for key, variant in changes.items():
            await answered(controller, key, variant, within_s=self.within_s)

    async def test_restore_puts_the_document_back_byte_for_byte(
        self, controller: FlagController, flag: str
    ) -> None:
        """Restoring is exact after any change, and can be repeated."""
        before = await controller.document()
        await controller.apply(FlagChange(key=flag, variant=_others(before.flags[flag])[0]))
        assert (await controller.document()).raw != before.raw
        for _ in range(2):
            await controller.restore(before)
            assert self.same((await controller.document()).raw, before.raw)
        await answered(controller, flag, before.flags[flag].default_variant, within_s=self.within_s)

    async def test_unknown_names_are_refused_and_change_nothing(
        self, controller: FlagController, flag: str
    ) -> None:
        """The error names the unknown name and the nearest known one."""
        before = await controller.document()
        with pytest.raises(FlagError, match=flag):
            await controller.apply(FlagChange(key=f"{flag}x", variant=_others(before.flags[flag])[0]))
        with pytest.raises(FlagError, match="no-such-variant"):
            await controller.apply(FlagChange(key=flag, variant="no-such-variant"))
        with pytest.raises(FlagError, match="no-such-flag"):
            await controller.served("no-such-flag", {})
        with pytest.raises(FlagError, match=f"did you mean '{flag}'"):
            await controller.served(f"{flag}x", {})
        assert (await controller.document()).raw == before.raw

    async def test_a_damaged_document_is_not_restored(self, controller: FlagController, flag: str) -> None:
        """A failed restore raises and leaves the flags unchanged."""
        before = await controller.document()
        for raw in (b"", b"not flags", b"[]", b'{"flags": {"a": {"variants": 1}}}', before.raw[:-5]):
            with pytest.raises(RestoreFailed):
                await controller.restore(FlagDocument(raw=raw, flags={}))
        assert (await controller.document()).raw == before.raw
        assert (await controller.served(flag, {})).key == flag

    async def test_answers_are_dated_in_order(self, controller: FlagController, flag: str) -> None:
        """Times of evaluations never decrease."""
        first, second = await controller.served(flag, {}), await controller.served(flag, {})
        assert 0 < first.at_ns <= second.at_ns


@dataclass(frozen=True)
class Targeted:
    """A flag that a rule ``{"if": [condition, variant, …]}`` decides, which holds ``inside`` alone."""

    key: str
    inside: Mapping[str, FlagValue]
    outside: Mapping[str, FlagValue] = field(default_factory=dict)


class FlagRulesContract(_Waiting):
    """Rules decide what is served.

    Fixtures: ``targeted``, a :class:`Targeted`, and ``shared``, the key of a flag whose rule (``fractional``)
    deals two variants or more out to users, in shares that are not tiny.
    """

    async def test_a_targeted_flag_is_switched_where_its_rule_holds(
        self, controller: FlagController, targeted: Targeted
    ) -> None:
        """Contexts that match the rule get the variant, others keep theirs; a restore reverts it."""
        before = await controller.document()
        known = before.flags[targeted.key]
        inside = await controller.served(targeted.key, targeted.inside)
        outside = await controller.served(targeted.key, targeted.outside)
        other = next(variant for variant in known.variants if variant != inside.variant)
        await controller.apply(FlagChange(key=targeted.key, variant=other))
        switched = await answered(controller, targeted.key, other, targeted.inside, within_s=self.within_s)
        assert switched.value == known.variants[other]
        assert (await controller.served(targeted.key, targeted.outside)).variant == outside.variant
        after = (await controller.document()).flags[targeted.key]
        assert (after.default_variant, after.variants) == (known.default_variant, known.variants)
        await controller.restore(before)
        await answered(controller, targeted.key, inside.variant, targeted.inside, within_s=self.within_s)

    async def test_every_user_gets_a_shared_flag_while_it_is_set(
        self, controller: FlagController, shared: str
    ) -> None:
        """Every user gets the variant, and after a restore the previous one, byte for byte."""
        before = await controller.document()
        dealt = [(await controller.served(shared, user)).variant for user in _USERS]
        assert len(set(dealt)) > 1, "the flag of the fixture does not deal variants out"
        for variant in dict.fromkeys(dealt):
            await controller.apply(FlagChange(key=shared, variant=variant))
            for user in _USERS:
                await answered(controller, shared, variant, user, within_s=self.within_s)
        await controller.restore(before)
        assert self.same((await controller.document()).raw, before.raw)
        for user, variant in zip(_USERS, dealt, strict=True):
            await answered(controller, shared, variant, user, within_s=self.within_s)


class FlagDocumentContract(_Waiting):
    """A controller over one flagd document, which flagd rejects as a whole for one mistake."""

    async def test_what_flagd_would_refuse_is_refused_by_name(
        self, controller: FlagController, flag: str
    ) -> None:
        """A bad default variant of any flag prevents the write, and the error names the flag."""
        before = await controller.document()
        body = json.loads(before.raw)
        body["flags"]["culprit"] = {"state": "ENABLED", "variants": {"a": 1}, "defaultVariant": "b"}
        with pytest.raises(RestoreFailed, match="culprit"):
            await controller.restore(FlagDocument(raw=json.dumps(body).encode(), flags={}))
        assert (await controller.document()).raw == before.raw
        known = before.flags[flag]
        await answered(controller, flag, known.default_variant, within_s=self.within_s)


class SurfaceContract(_Waiting):
    """A place that holds the document and that others write to.

    Fixtures ``surface`` (a Surface) and ``rewrite``, which writes bytes behind its back and returns when they
    are kept: ``async def rewrite(raw: bytes) -> None``. The document has to hold a flag with two variants and
    no rule.
    """

    async def test_what_is_written_is_read(self, surface: Surface) -> None:
        """A read returns the last write, immediately and later."""
        first = await surface.read()
        changed = _switched(first)
        await surface.write(changed, expected=first)
        assert surface.same(await surface.read(), changed)
        assert not surface.same(first, changed)
        await surface.write(first, expected=await surface.read())
        assert surface.same(await surface.read(), first)

    async def test_the_write_of_another_client_is_not_lost(
        self, surface: Surface, rewrite: Callable[[bytes], Awaitable[None]]
    ) -> None:
        """A write is refused when another client has changed the document, whose change stays."""
        first = await surface.read()
        theirs = _described(first)
        await rewrite(theirs)
        with pytest.raises(LostUpdate, match="another client"):
            await surface.write(_switched(first), expected=first)
        assert surface.same(await surface.read(), theirs)
        await surface.write(first, expected=await surface.read())

    async def test_the_place_has_one_name_and_one_identity(self, surface: Surface) -> None:
        """Name and identity do not change with the document."""
        found = surface.name, surface.identity
        assert all(found)
        first = await surface.read()
        await surface.write(_switched(first), expected=first)
        assert (surface.name, surface.identity) == found

    async def test_the_place_describes_itself(self, surface: Surface) -> None:
        """It reports how to open it again, how long a write may take, and that it has not moved."""
        assert surface.control
        assert surface.write_timeout_s > 0
        assert surface.name in await surface.describe()
        assert surface.moved_from(surface.identity) is None

    async def test_any_document_can_be_overwritten(
        self, surface: Surface, rewrite: Callable[[bytes], Awaitable[None]]
    ) -> None:
        """An overwrite succeeds whatever the current document is."""
        first = await surface.read()
        await rewrite(_described(first))
        await surface.overwrite(first)
        assert surface.same(await surface.read(), first)

    async def test_a_lease_keeps_others_out(self, surface: Surface) -> None:
        """A lease, if the surface has one, refuses a second owner and names the first until its release."""
        lease = surface.lease()
        if lease is None:
            return
        assert await lease.acquire("first", seconds=60) is None
        assert await lease.acquire("first", seconds=60) is None
        assert "first" in (await lease.acquire("second", seconds=60) or "")
        await lease.release("second")
        assert "first" in (await lease.acquire("second", seconds=60) or "")
        await lease.release("first")
        assert await lease.acquire("second", seconds=60) is None
        await lease.release("second")


def _others(flag: Flag) -> list[str]:
    return [variant for variant in flag.variants if variant != flag.default_variant]


def _switched(raw: bytes) -> bytes:
    """Return the document with its first flag without a rule set to another variant."""
    body = json.loads(raw)
    for entry in body["flags"].values():
        others = [variant for variant in entry["variants"] if variant != entry.get("defaultVariant")]
        if others and not entry.get("targeting"):
            entry["defaultVariant"] = others[0]
            return json.dumps(body, indent=2).encode()
    raise AssertionError("the document has no flag with two variants and no rule")


def _described(raw: bytes) -> bytes:
    """Return the document with a description added to its first flag."""
    body = json.loads(raw)
    next(iter(body["flags"].values()))["description"] = "changed from outside"
    return json.dumps(body, indent=2).encode()
