"""The contract of flag controllers: what every implementation has to do, ours or third-party.

Subclass in a test module and give two fixtures: ``controller``, a fresh FlagController, and ``flag``,
the key of one of its flags that has at least two variants::

    class TestMine(FlagControllerContract):
        @pytest.fixture
        def controller(self): ...
        @pytest.fixture
        def flag(self): return "paymentFailure"

The test methods are coroutines: run them with pytest-asyncio in auto mode.
"""

from __future__ import annotations

import pytest

from pytest_otel_diag.errors import FlagError, RestoreFailed
from pytest_otel_diag.model.flags import Flag, FlagChange, FlagDocument
from pytest_otel_diag.ports import FlagController


class FlagControllerContract:
    """Behaviour that the session engine relies on."""

    async def test_the_document_names_every_flag_and_is_stable(
        self, controller: FlagController, flag: str
    ) -> None:
        """Two reads without a change between them give the same bytes."""
        first, second = await controller.document(), await controller.document()
        assert flag in first.flags
        assert first.flags[flag].key == flag
        assert first.raw
        assert first.raw == second.raw

    async def test_an_applied_change_is_served_and_documented(
        self, controller: FlagController, flag: str
    ) -> None:
        """What was set is what evaluating answers, with the value of the variant."""
        known = (await controller.document()).flags[flag]
        other = _other(known)
        await controller.apply(FlagChange(key=flag, variant=other))
        answer = await controller.served(flag, {})
        assert (answer.key, answer.variant, answer.value) == (flag, other, known.variants[other])
        assert (await controller.document()).flags[flag].default_variant == other

    async def test_an_unserved_change_leaves_the_answer(self, controller: FlagController, flag: str) -> None:
        """Before any change the default variant is served."""
        known = (await controller.document()).flags[flag]
        assert (await controller.served(flag, {})).variant == known.default_variant

    async def test_restore_puts_the_document_back_byte_for_byte(
        self, controller: FlagController, flag: str
    ) -> None:
        """Whatever was set meanwhile, and as often as it is called."""
        before = await controller.document()
        await controller.apply(FlagChange(key=flag, variant=_other(before.flags[flag])))
        assert (await controller.document()).raw != before.raw
        for _ in range(2):
            await controller.restore(before)
            assert (await controller.document()).raw == before.raw
        assert (await controller.served(flag, {})).variant == before.flags[flag].default_variant

    async def test_unknown_names_are_refused_and_change_nothing(
        self, controller: FlagController, flag: str
    ) -> None:
        """The error names what was asked for, and the nearest spelling."""
        before = await controller.document()
        with pytest.raises(FlagError, match=flag):
            await controller.apply(FlagChange(key=f"{flag}x", variant=_other(before.flags[flag])))
        with pytest.raises(FlagError, match="no-such-variant"):
            await controller.apply(FlagChange(key=flag, variant="no-such-variant"))
        with pytest.raises(FlagError, match="no-such-flag"):
            await controller.served("no-such-flag", {})
        assert (await controller.document()).raw == before.raw

    async def test_a_damaged_document_is_not_restored(self, controller: FlagController, flag: str) -> None:
        """A failed restore is loud and leaves the flags as they are."""
        before = await controller.document()
        for raw in (b"", b"not flags", b"[]", b'{"flags": {"a": {"variants": 1}}}'):
            with pytest.raises(RestoreFailed):
                await controller.restore(FlagDocument(raw=raw, flags={}))
        assert (await controller.document()).raw == before.raw
        assert (await controller.served(flag, {})).key == flag

    async def test_answers_are_dated_in_order(self, controller: FlagController, flag: str) -> None:
        """Time does not go back between two reads."""
        first, second = await controller.served(flag, {}), await controller.served(flag, {})
        assert 0 < first.at_ns <= second.at_ns


def _other(flag: Flag) -> str:
    return next(variant for variant in flag.variants if variant != flag.default_variant)
