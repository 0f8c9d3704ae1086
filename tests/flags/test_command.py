"""Flags through a user's command and through a user's class."""

import asyncio
import json
import os
import shlex
import sys
import threading
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from pytest_otel_diag.errors import ConfigurationError, FlagError, LostUpdate
from pytest_otel_diag.flags.access import open_reader
from pytest_otel_diag.flags.access import open_surface as open_any
from pytest_otel_diag.flags.comparison import same_json
from pytest_otel_diag.flags.controller import SurfaceFlags
from pytest_otel_diag.flags.surfaces.command import CommandSurface, ObjectSurface, open_class, open_surface
from pytest_otel_diag.testing.flag_contract import FlagControllerContract, SurfaceContract
from tests.support.deadlines import LoopClock, deadline_s, eventually_async
from tests.support.flagd import Flagd
from tests.support.remote_flags import FLAG, ONE_LOOK, PATIENT, document, switched

FLAGS_SH = """#!/bin/sh
# Reads and writes the document in the file that is its first argument.
case "$2" in
  read) cat "$1" ;;
  write) cat > "$1.new" && mv "$1.new" "$1" ;;
  *) echo "what is $2?" >&2; exit 64 ;;
esac
"""


class MyFlags:
    """A system that returns flags in another order and formatting."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self.name = "my flags"

    def read(self) -> str:
        return json.dumps(json.loads(self._path.read_bytes()), sort_keys=True)

    def write(self, raw: bytes) -> None:
        fresh = self._path.with_suffix(".new")
        fresh.write_bytes(raw)
        fresh.replace(self._path)


class MyAsyncFlags(MyFlags):
    async def read(self) -> bytes:  # type: ignore[override]  # plain and async are both allowed
        await asyncio.sleep(0)
        return super().read().encode()

    async def write(self, raw: bytes) -> None:  # type: ignore[override]  # the same
        await asyncio.sleep(0)
        super().write(raw)


@pytest.fixture
def path(tmp_path: Path) -> Path:
    path = tmp_path / "demo.flagd.json"
    path.write_bytes(document())
    return path


@pytest.fixture
def command(tmp_path: Path, path: Path) -> str:
    script = tmp_path / "flags.sh"
    script.write_text(FLAGS_SH)
    script.chmod(0o755)
    return shlex.join((str(script), str(path)))


class _Contract(FlagControllerContract, SurfaceContract):
    same = staticmethod(same_json)

    @pytest.fixture(scope="class")
    @classmethod
    def flagd(cls, tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Path, Flagd]]:
        path = tmp_path_factory.mktemp("flags") / "demo.flagd.json"
        path.write_bytes(document())
        with Flagd(path, tmp_path_factory.mktemp("log") / "flagd.log") as flagd:
            yield path, flagd

    @pytest.fixture
    async def controller(
        self, flagd: tuple[Path, Flagd], surface: CommandSurface | ObjectSurface
    ) -> AsyncIterator[SurfaceFlags]:
        controller = SurfaceFlags(surface, open_reader(f"ofrep:{flagd[1].ofrep}"), now=time.time_ns)
        before = await controller.document()
        yield controller
        await controller.restore(before)
        await controller.aclose()

    @pytest.fixture
    def rewrite(self, flagd: tuple[Path, Flagd]) -> Callable[[bytes], Awaitable[None]]:
        async def write(raw: bytes) -> None:
            MyFlags(flagd[0]).write(raw)

        return write

    @pytest.fixture
    def flag(self) -> str:
        return FLAG


class TestCommand(_Contract):
    @pytest.fixture
    def surface(self, flagd: tuple[Path, Flagd], tmp_path: Path) -> CommandSurface:
        script = tmp_path / "flags.sh"
        script.write_text(FLAGS_SH)
        script.chmod(0o755)
        return open_surface(f"{script} {flagd[0]}")


class TestClass(_Contract):
    @pytest.fixture
    def surface(self, flagd: tuple[Path, Flagd]) -> ObjectSurface:
        return ObjectSurface(MyAsyncFlags(flagd[0]), "mine:MyAsyncFlags")


async def test_a_command_that_fails_shows_its_exit_code_and_its_last_words(tmp_path: Path) -> None:
    script = tmp_path / "fails.sh"
    script.write_text(f"#!/bin/sh\necho {'x' * 1000} >&2; echo 'the vault is sealed' >&2; exit 7\n")
    script.chmod(0o755)
    surface = open_surface(str(script))
    with pytest.raises(
        FlagError, match=r"fails\.sh read failed with exit code 7.*the vault is sealed"
    ) as failed:
        await surface.read()
    assert len(str(failed.value)) < 700
    with pytest.raises(FlagError, match="exit code 7"):
        await surface.overwrite(document())


async def test_a_command_that_prints_without_end_is_killed(tmp_path: Path) -> None:
    script = tmp_path / "endless.sh"
    script.write_text("#!/bin/sh\nexec cat /dev/zero\n")
    script.chmod(0o755)
    with pytest.raises(FlagError, match=r"printed more than the supported .* bytes and was killed"):
        await open_surface(str(script)).read()


async def test_a_class_that_never_returns_keeps_no_thread_that_the_interpreter_would_wait_for() -> None:
    entered, release, threads = threading.Event(), threading.Event(), []

    class Hangs:
        def read(self) -> bytes:
            threads.append(threading.current_thread())
            entered.set()
            release.wait()
            return b""

        def write(self, raw: bytes) -> None: ...

    with pytest.raises(FlagError, match="did not return within"):
        await ObjectSurface(Hangs(), "mine:Hangs", timeout_s=0.05).read()
    assert await asyncio.to_thread(entered.wait, 5) and threads[0].daemon
    release.set()


async def test_a_command_that_prints_nothing_or_does_not_exist_is_reported(tmp_path: Path) -> None:
    with pytest.raises(FlagError, match="read printed nothing"):
        await open_surface("true").read()
    with pytest.raises(FlagError, match=r"cannot be started: No such file.*on the PATH"):
        await open_surface(str(tmp_path / "nothing")).read()


async def test_a_command_that_hangs_is_killed_with_what_it_started(tmp_path: Path) -> None:
    script = tmp_path / "hangs.sh"
    script.write_text(f"#!/bin/sh\nsleep 600 &\necho $! > {tmp_path / 'pid'}\nwait\n")
    script.chmod(0o755)
    clock = LoopClock()
    reading = asyncio.create_task(CommandSurface(str(script), timeout_s=600).read())
    assert await eventually_async(lambda: _pid(tmp_path))
    while not reading.done():  # the command may write its id before the limit of its time has begun
        await clock.skip(601)
        await asyncio.sleep(0.01)
    with pytest.raises(FlagError, match=r"did not exit within 600 s and was killed"):
        await reading
    assert await eventually_async(lambda: not _runs(_pid(tmp_path)))


def _runs(pid: int) -> bool:
    try:
        os.kill(pid, 0)
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except (ProcessLookupError, FileNotFoundError):
        return False


async def test_a_command_that_is_cancelled_is_killed(tmp_path: Path) -> None:
    script = tmp_path / "hangs.sh"
    script.write_text(f"#!/bin/sh\necho $$ > {tmp_path / 'pid'}\nexec sleep 600\n")
    script.chmod(0o755)
    task = asyncio.create_task(open_surface(str(script)).read())
    assert await eventually_async(lambda: _pid(tmp_path))
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert _pid(tmp_path)
    assert not _runs(_pid(tmp_path))


def _pid(folder: Path) -> int:
    """Return the process id that a script wrote to the folder, 0 until then."""
    path = folder / "pid"
    return int(path.read_text().strip() or 0) if path.exists() else 0


async def test_a_command_that_keeps_nothing_is_found_out(command: str, path: Path) -> None:
    words = shlex.split(command)
    keeps_nothing = f"sh -c 'test $1 = write && exec cat > /dev/null || exec cat {words[1]}' sh"
    surface = CommandSurface(keeps_nothing, retry=ONE_LOOK)
    raw = await surface.read()
    with pytest.raises(FlagError, match="does not keep what is written"):
        await surface.write(switched(raw), expected=raw)
    theirs = switched(raw, "adFailure", "on")
    MyFlags(path).write(theirs)
    with pytest.raises(LostUpdate, match="adFailure"):
        await surface.write(switched(raw), expected=raw)


def test_paths_that_mean_another_file_elsewhere_are_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "flags.py").write_text("")
    for relative in ("./flags.sh", "tools/flags.sh", "python flags.py"):
        with pytest.raises(ConfigurationError, match="relative path"):
            open_surface(relative)
    assert open_surface("kubectl flags https://there/x").name == "command kubectl flags https://there/x"
    assert open_surface("a  b").identity == open_surface("a b").identity
    for bad, message in (("'", "cannot be split"), (" ", "needs a command")):
        with pytest.raises(ConfigurationError, match=message):
            open_surface(bad)


async def test_a_plain_class_works_too(path: Path) -> None:
    surface = ObjectSurface(MyFlags(path), "mine:MyFlags", retry=PATIENT)
    assert surface.name == "my flags"
    raw = await surface.read()
    await surface.write(switched(raw), expected=raw)
    assert same_json(MyFlags(path).read().encode(), switched(raw))
    MyFlags(path).write(b'{"flags": 1}')
    await surface.overwrite(raw)
    assert same_json(MyFlags(path).read().encode(), raw)
    assert surface.lease() is None
    await surface.aclose()


async def test_mistakes_of_a_class_are_reported(path: Path) -> None:
    class Wrong:
        answer: Any = 7
        wait_s = 0.0

        def read(self) -> Any:
            time.sleep(self.wait_s)
            if isinstance(self.answer, Exception):
                raise self.answer
            return self.answer

        def write(self, raw: bytes) -> Awaitable[None]:
            return asyncio.sleep(0)

    wrong = Wrong()
    surface = ObjectSurface(wrong, "mine:Wrong", retry=ONE_LOOK, timeout_s=deadline_s(30))
    with pytest.raises(FlagError, match=r"mine:Wrong\.read\(\) returned int"):
        await surface.read()
    wrong.answer = KeyError("flags")
    with pytest.raises(FlagError, match=r"read\(\) raised KeyError: 'flags'"):
        await surface.read()
    wrong.answer = FlagError("the vault is sealed")
    with pytest.raises(FlagError, match=r"^the vault is sealed$"):
        await surface.read()
    wrong.answer, wrong.wait_s = document(), 0.6
    impatient = ObjectSurface(wrong, "mine:Wrong", retry=ONE_LOOK, timeout_s=0.3)
    with pytest.raises(FlagError, match=r"did not return within 0\.3 s"):
        await impatient.read()
    wrong.wait_s = 0
    await surface.put(document())  # a plain method that returns something to wait for


def test_classes_are_found_and_made(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "shop_flags_of_mine.py").write_text(
        "class Flags:\n"
        "    identity = 'flags of the shop'\n"
        "    def read(self): return b'{}'\n"
        "    def write(self, raw): pass\n"
        "class Needs(Flags):\n"
        "    def __init__(self, what): pass\n"
        "class Half:\n"
        "    def read(self): return b'{}'\n"
        "ready = Flags()\n"
    )
    monkeypatch.syspath_prepend(tmp_path)
    for name in ("Flags", "ready"):
        found = open_any(f"class:shop_flags_of_mine:{name}")
        assert found.identity == f"class:shop_flags_of_mine:{name}:flags of the shop"
        assert found.name == f"class shop_flags_of_mine:{name}"
    wrong = {
        "shop_flags_of_mine:Flag": "did you mean 'Flags'",
        "shop_flags_of_mine:Needs": "called without arguments",
        "shop_flags_of_mine:Half": "no method write",
        "shop_flags_of_yours:Flags": "cannot be imported",
        "shop_flags_of_mine": "write class:MODULE:ATTRIBUTE",
    }
    for text, message in wrong.items():
        with pytest.raises(ConfigurationError, match=message):
            open_class(text)
    sys.modules.pop("shop_flags_of_mine", None)
