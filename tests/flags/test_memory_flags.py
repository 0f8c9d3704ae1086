"""MemoryFlags fulfils the contract; targeting is stored but not evaluated."""

from itertools import count

import pytest

from pytest_otel_diag.errors import FlagError
from pytest_otel_diag.flags.memory import MemoryFlags
from pytest_otel_diag.model.flags import Flag, FlagChange
from pytest_otel_diag.testing.flag_contract import FlagControllerContract

PAYMENT = Flag(
    key="paymentFailure",
    variants={"off": 0, "50%": 0.5, "100%": 1},
    default_variant="off",
    targeting={"if": [True, "100%"]},
)
CART = Flag(key="cartFailure", variants={"off": False, "on": True}, default_variant="off")


class TestMemoryFlags(FlagControllerContract):
    @pytest.fixture
    def controller(self):
        ticks = count(1)
        return MemoryFlags([PAYMENT, CART], now=lambda: next(ticks))

    @pytest.fixture
    def flag(self):
        return "paymentFailure"

    async def test_changes_of_two_flags_are_both_kept(self, controller):
        await controller.apply(FlagChange(key="paymentFailure", variant="50%"))
        await controller.apply(FlagChange(key="cartFailure", variant="on"))
        assert (await controller.served("paymentFailure", {})).value == 0.5
        assert (await controller.served("cartFailure", {})).value is True

    async def test_targeting_survives_a_restore(self, controller):
        before = await controller.document()
        await controller.restore(before)
        assert (await controller.document()).flags["paymentFailure"] == PAYMENT

    async def test_the_error_names_the_nearest_spelling(self, controller):
        with pytest.raises(FlagError, match="did you mean 'paymentFailure'"):
            await controller.apply(FlagChange(key="paymentFailrue", variant="off"))
        with pytest.raises(FlagError, match=r"did you mean '50%'\?.*choose from off, 50%, 100%"):
            await controller.apply(FlagChange(key="paymentFailure", variant="50"))


async def test_without_flags_there_is_still_a_document():
    flags = MemoryFlags([], now=lambda: 1)
    assert (await flags.document()).flags == {}
    with pytest.raises(FlagError, match="known flags: none"):
        await flags.served("anything", {})
