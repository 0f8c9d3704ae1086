"""The file controller and every reader against the real flagd."""

import asyncio
import os
import time
from contextlib import AsyncExitStack

import pytest

from pytest_otel_diag.errors import FlagError
from pytest_otel_diag.flags.access import open_flags, open_reader
from pytest_otel_diag.flags.readers.answers import FlagDisabled, UnknownFlag
from pytest_otel_diag.flags.surface import FlagAddress
from pytest_otel_diag.model.flags import FlagChange
from pytest_otel_diag.testing.flag_contract import (
    READS_IN_A_ROW,
    FlagControllerContract,
    FlagDocumentContract,
    FlagRulesContract,
    answered,
)
from tests.flags.documents import FLAGS, RAW, TARGETED, edited
from tests.support.deadlines import deadline_s
from tests.support.flagd import Flagd

READERS = ("ofrep", "flagd", "grpc", "probed URL", "probed address")
CYCLES = 60
POLLED_CYCLES = 2


def access(flagd, path, reader):
    served = {
        "ofrep": f"ofrep:{flagd.ofrep}",
        "flagd": f"flagd:{flagd.http}/",
        "grpc": f"grpc:{flagd.grpc}",
        "probed URL": flagd.ofrep,
        "probed address": flagd.grpc,
    }
    return FlagAddress(control=f"file:{path}", served=served[reader])


@pytest.fixture(scope="module")
def running(tmp_path_factory):
    """A flagd for many tests, each of which first writes its document."""
    folder = tmp_path_factory.mktemp("flagd")
    path = folder / "demo.flagd.json"
    path.write_bytes(RAW)
    with Flagd(path, folder / "log") as flagd:
        yield flagd, path


@pytest.fixture(params=READERS)
async def controller(request, running):
    flagd, path = running
    flags = open_flags(access(flagd, path, request.param), now=time.time_ns)
    await flags.surface.overwrite(RAW)
    for key, variant in (("paymentFailure", "off"), ("adFailure", "off"), ("imageSlowLoad", "off")):
        await answered(flags, key, variant)
    await answered(flags, "loadGeneratorVUs", "5")
    await answered(flags, "productCatalogFailure", "off", TARGETED.inside)
    yield flags
    await flags.aclose()


class TestRealFlagd(FlagControllerContract, FlagRulesContract, FlagDocumentContract):
    @pytest.fixture
    def flag(self):
        return "paymentFailure"

    @pytest.fixture
    def targeted(self):
        return TARGETED

    @pytest.fixture
    def shared(self):
        return "dealtOut"

    async def test_values_have_the_type_of_the_document(self, controller):
        """1 and 1.0, integers, text and objects keep their types over every protocol."""
        document = await controller.document()
        everything = await controller.served_all({})
        answering = set(FLAGS) - {"asleep", "broken"}
        assert set(everything) == answering
        for key in answering - {"dealtOut", "productCatalogFailure"}:
            written = document.flags[key].variants[document.flags[key].default_variant]
            for answer in (everything[key], await controller.served(key, {})):
                assert (answer.value, type(answer.value)) == (written, type(written))
        for variant in ("b", "a"):
            await controller.apply(FlagChange(key="shape", variant=variant))
            assert (await answered(controller, "shape", variant)).value == FLAGS["shape"]["variants"][variant]

    async def test_flags_that_answer_nothing_say_why(self, controller):
        with pytest.raises(FlagDisabled, match=r"'asleep', which is DISABLED.*ENABLED"):
            await controller.served("asleep", {})
        with pytest.raises(FlagError, match=r"'broken' cannot be evaluated.*targeting may name a variant"):
            await controller.served("broken", {})

    async def test_a_flag_of_another_type_is_asked_with_the_right_call(self, controller):
        """After the document is replaced, a reader that knew the type learns the new one."""
        await answered(controller, "adFailure", "off")
        document = await controller.document()
        other = edited(adFailure={"variants": {"text": "x", "more": "y"}, "defaultVariant": "more"})
        await controller.surface.write(other, expected=document.raw)
        await controller.document()
        assert (await answered(controller, "adFailure", "more")).value == "y"
        await controller.restore(document)
        assert (await answered(controller, "adFailure", "off")).value is False


def test_one_controller_serves_several_loops_one_after_the_other(running):
    """As in a guardian or a command, which runs a loop per operation."""
    flagd, path = running
    for reader in READERS:
        flags = open_flags(access(flagd, path, reader), now=time.time_ns)
        for _ in range(2):
            assert asyncio.run(flags.served("loadGeneratorVUs", {})).value == "5"
        asyncio.run(flags.aclose())


# What flagd does with what others write.


@pytest.fixture
def document(tmp_path):
    path = tmp_path / "demo.flagd.json"
    path.write_bytes(RAW)
    return path


def replaced(path, raw, *, mtime_ns=None):
    """Replace the file by rename, as another client may."""
    new = path.with_suffix(".theirs")
    new.write_bytes(raw)
    if mtime_ns is not None:
        os.utime(new, ns=(mtime_ns, mtime_ns))
    new.rename(path)


async def settled(flagd, marker):
    """Wait until flagd's log holds *marker*."""
    deadline = time.monotonic() + deadline_s(10)
    while marker not in flagd.said():
        assert time.monotonic() < deadline, f"{marker!r} not in: {flagd.said()[-2000:]}"
        await asyncio.sleep(0.02)


async def test_one_bad_default_makes_flagd_refuse_the_whole_file_and_we_never_write_one(document, tmp_path):
    with Flagd(document, tmp_path / "log") as flagd:
        flags = open_flags(access(flagd, document, "ofrep"), now=time.time_ns)
        await answered(flags, "paymentFailure", "off")
        # Somebody sets one flag, and another one to a variant that it does not have.
        theirs = edited(paymentFailure={"defaultVariant": "50%"}, imageSlowLoad={"defaultVariant": "on"})
        replaced(document, theirs)
        await settled(flagd, "imageSlowLoad")
        for _ in range(READS_IN_A_ROW):
            assert (await flags.served("paymentFailure", {})).variant == "off"
        # We refuse, by the name of the culprit, and leave the file alone.
        for change in (
            FlagChange(key="adFailure", variant="on"),
            FlagChange(key="imageSlowLoad", variant="off"),
        ):
            with pytest.raises(FlagError, match=r"'imageSlowLoad' has the default variant 'on'"):
                await flags.apply(change)
        assert document.read_bytes() == theirs
        await flags.surface.overwrite(RAW)
        await flags.apply(FlagChange(key="paymentFailure", variant="50%"))
        await answered(flags, "paymentFailure", "50%")
        await flags.aclose()


async def test_a_flagd_that_started_on_a_bad_file_serves_nothing_and_the_error_says_so(document, tmp_path):
    document.write_bytes(edited(imageSlowLoad={"defaultVariant": "on"}))
    flagd = Flagd(document, tmp_path / "log")
    try:
        try:
            flagd.start()
        except AssertionError:
            pass  # not ready without flags: as good an answer
        else:
            with pytest.raises(UnknownFlag):
                await open_reader(f"ofrep:{flagd.ofrep}").served("paymentFailure", {})
        assert "imageSlowLoad" in flagd.said()
    finally:
        flagd.kill()


async def test_an_emptied_file_leaves_the_fault_on_and_a_restore_ends_it(document, tmp_path):
    """flagd keeps its flags when a program truncates the file and stops."""
    with Flagd(document, tmp_path / "log") as flagd:
        flags = open_flags(access(flagd, document, "ofrep"), now=time.time_ns)
        before = await flags.document()
        await flags.apply(FlagChange(key="paymentFailure", variant="50%"))
        await answered(flags, "paymentFailure", "50%")
        document.write_bytes(b"")
        await settled(flagd, "is empty")
        await answered(flags, "paymentFailure", "50%")
        with pytest.raises(FlagError, match="empty"):
            await flags.apply(FlagChange(key="paymentFailure", variant="off"))
        await flags.restore(before)
        await answered(flags, "paymentFailure", "off")
        assert document.read_bytes() == RAW
        flagd.stop()
        document.write_bytes(b"")  # and one that starts on it has no flag at all
        flagd.start()
        with pytest.raises(
            UnknownFlag, match=r"serves no flag 'paymentFailure'\. .*demo\.flagd\.json has it"
        ):
            await flags.served("paymentFailure", {})
        assert await flags.served_all({}) == {}
        await flags.restore(before)
        await _comes_back(flags, "paymentFailure")
        await flags.aclose()


async def test_a_document_without_flags_takes_them_all_away_and_a_restore_brings_them_back(
    document, tmp_path
):
    with Flagd(document, tmp_path / "log") as flagd:
        flags = open_flags(access(flagd, document, "grpc"), now=time.time_ns)
        before = await flags.document()
        replaced(document, b'{"flags": {}}')
        deadline = time.monotonic() + deadline_s(10)
        with pytest.raises(
            UnknownFlag, match=r"serves no flag 'paymentFailure'\. .*demo\.flagd\.json has it"
        ):
            while time.monotonic() < deadline:
                await flags.served("paymentFailure", {})
        await flags.restore(before)
        for key in ("paymentFailure", "adFailure"):
            await _comes_back(flags, key)
        await flags.aclose()


async def _comes_back(flags, key):
    deadline = time.monotonic() + deadline_s(10)
    while True:
        try:
            await answered(flags, key, "off")
            return
        except UnknownFlag:
            assert time.monotonic() < deadline
            await asyncio.sleep(0.02)


async def test_the_poller_ignores_an_older_file_and_takes_ours(document, tmp_path):
    """flagd's default outside Kubernetes polls once a second and loads only newer files."""
    with Flagd(document, tmp_path / "log", provider="file") as flagd:
        flags = open_flags(access(flagd, document, "ofrep"), now=time.time_ns)
        before = await flags.document()
        found_ns = document.stat().st_mtime_ns
        theirs = edited(paymentFailure={"defaultVariant": "50%"})
        for mtime_ns in (found_ns, found_ns - 3_600_000_000_000):  # cp -p, mv of a backup
            replaced(document, theirs, mtime_ns=mtime_ns)
        until = time.monotonic() + 2.5
        while time.monotonic() < until:
            assert (await flags.served("paymentFailure", {})).variant == "off"
            await asyncio.sleep(0.1)
        # The same through us is taken up.
        await flags.apply(FlagChange(key="paymentFailure", variant="50%"))
        await answered(flags, "paymentFailure", "50%")
        # Also when the file's time lies in the future, where any time of today would be older.
        future_ns = time.time_ns() + 3_600_000_000_000
        replaced(document, edited(paymentFailure={"defaultVariant": "95%"}), mtime_ns=future_ns)
        await answered(flags, "paymentFailure", "95%")
        await flags.restore(before)
        await answered(flags, "paymentFailure", "off")
        assert document.read_bytes() == RAW
        await flags.aclose()


@pytest.mark.parametrize("reader", ["ofrep", "flagd", "grpc", "probed URL"])
async def test_a_restarted_flagd_is_reported_while_down_and_correct_afterwards(document, tmp_path, reader):
    with Flagd(document, tmp_path / "log") as flagd:
        flags = open_flags(access(flagd, document, reader), now=time.time_ns)
        before = await flags.document()
        await flags.apply(FlagChange(key="paymentFailure", variant="50%"))
        await answered(flags, "paymentFailure", "50%")
        flagd.kill()
        for _ in range(2):
            with pytest.raises(FlagError, match=r"does not answer.*start flagd"):
                await flags.served("paymentFailure", {})
        await flags.restore(before)  # the file can be put back without flagd
        await flags.apply(FlagChange(key="paymentFailure", variant="95%"))
        flagd.start()
        await _answers_again(flags)
        await answered(flags, "paymentFailure", "95%")
        await flags.restore(before)
        await answered(flags, "paymentFailure", "off")
        await flags.aclose()


async def _answers_again(flags):
    deadline = time.monotonic() + deadline_s(10)
    while True:
        try:
            return await flags.served("paymentFailure", {})
        except FlagError:
            assert time.monotonic() < deadline
            await asyncio.sleep(0.05)


# Many cycles under load.


class Watcher:
    """Evaluates continuously; an evaluation after a variant was confirmed must answer it."""

    def __init__(self, reader):
        self.reader = reader
        self.wanted = None  # None while a change is on its way
        self.turn = 0
        self.checked = 0
        self.asked = 0

    async def run(self):
        while True:
            turn, wanted = self.turn, self.wanted
            answer = await self.reader.served("paymentFailure", {})
            self.asked += 1
            assert answer.variant in {"off", "50%"}
            if turn == self.turn and wanted is not None:
                assert answer.variant == wanted, (
                    f"{self.reader.name} answered {answer.variant} after {wanted}"
                )
                assert answer.value == {"off": 0, "50%": 0.5}[wanted]
                self.checked = turn
            await asyncio.sleep(0.004)


async def cycles(flagd, path, count):
    """Set and restore *count* times under four readers; return how many answers each got."""
    specs = (f"ofrep:{flagd.ofrep}", f"ofrep:{flagd.ofrep}", f"flagd:{flagd.http}", f"grpc:{flagd.grpc}")
    flags = open_flags(access(flagd, path, "grpc"), now=time.time_ns)
    async with AsyncExitStack() as stack:
        stack.push_async_callback(flags.aclose)
        watchers = [Watcher(open_reader(spec)) for spec in specs]
        before = await flags.document()
        async with asyncio.TaskGroup() as group:
            tasks = []
            for watcher in watchers:
                stack.push_async_callback(watcher.reader.aclose)
                tasks.append(group.create_task(watcher.run()))
            for _ in range(count):
                await phase(
                    watchers, flags, "50%", flags.apply(FlagChange(key="paymentFailure", variant="50%"))
                )
                await phase(watchers, flags, "off", flags.restore(before))
                assert path.read_bytes() == RAW
            for task in tasks:
                task.cancel()
        return [watcher.asked for watcher in watchers]


async def confirmed(flags, variant):
    deadline, row = time.monotonic() + deadline_s(10), 0
    while row < READS_IN_A_ROW:
        row = row + 1 if (await flags.served("paymentFailure", {})).variant == variant else 0
        assert time.monotonic() < deadline, f"{variant} is not served"


async def phase(watchers, flags, variant, change):
    """Make the change, confirm it as served, and let every watcher check it at least once."""
    for watcher in watchers:
        watcher.turn, watcher.wanted = watcher.turn + 1, None
    await change
    await confirmed(flags, variant)
    for watcher in watchers:
        watcher.turn, watcher.wanted = watcher.turn + 1, variant
    deadline = time.monotonic() + deadline_s(20)
    while any(watcher.checked < watcher.turn for watcher in watchers):
        assert time.monotonic() < deadline, "a reader does not get through"
        await asyncio.sleep(0.001)


async def test_no_wrong_value_is_served_after_any_of_many_restores(document, tmp_path):
    with Flagd(document, tmp_path / "log") as flagd:
        asked = await cycles(flagd, document, CYCLES)
    assert min(asked) >= 2 * CYCLES


async def test_no_wrong_value_is_served_after_restores_that_flagd_polls_for(document, tmp_path):
    with Flagd(document, tmp_path / "log", provider="fileinfo") as flagd:
        asked = await cycles(flagd, document, POLLED_CYCLES)
    assert min(asked) >= 2 * POLLED_CYCLES
