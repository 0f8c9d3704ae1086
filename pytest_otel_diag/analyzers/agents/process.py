"""Runs an agent as a process of its own: clean surroundings, bounded output, and nothing left behind."""

from __future__ import annotations

import asyncio
import os
import secrets
import shutil
import signal
import stat
import sys
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from pytest_otel_diag.analyzers.agents import stragglers, supervisor

_PASSED = frozenset(
    {"PATH", "LANG", "LANGUAGE", "TZ"}
    | {"SSL_CERT_FILE", "SSL_CERT_DIR", "REQUESTS_CA_BUNDLE", "CURL_CA_BUNDLE", "NODE_EXTRA_CA_CERTS"}
    | {"HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY", "NO_PROXY"}
    | {"http_proxy", "https_proxy", "all_proxy", "no_proxy"}
)
_LOCALE = "LC_"
_NO_PROXY = "127.0.0.1,localhost"

_READ_BYTES = 1 << 16
_CLEANUP_S = 10.0
"""How long the end of a process waits for its supervisor beyond the grace."""
_LOOK_S = 0.1


@dataclass(frozen=True)
class Limits:
    """Bounds of a process: memory of each of its processes, output kept of each stream, time to end itself.

    Memory is what a process may write to and shares with nobody (RLIMIT_DATA), so reserved addresses, of
    which Node, Go and Java have many gigabytes, do not count. 0 means no limit.
    """

    memory_bytes: int = 4 << 30
    output_bytes: int = 1 << 20
    grace_s: float = 2.0


@dataclass(frozen=True)
class Finished:
    """How a process ended. ``exit_code`` is 128 plus the number of a signal that ended it.

    ``out_of_time`` says that it was stopped because it took too long.

    Of streams that were too long, the middle is left out and says so.
    """

    exit_code: int
    stdout: str
    stderr: str
    out_of_time: bool = False


@dataclass(frozen=True)
class Workplace:
    """Folders for one process, empty at first: its working directory, HOME and TMPDIR."""

    folder: Path
    work: Path
    environment: Mapping[str, str]

    def read(self, name: str, most_bytes: int) -> bytes | None:
        """Return the first *most_bytes* of a file in the working directory, None without a regular file.

        Follows no links, so that a process cannot make this one read other files.
        """
        try:
            descriptor = os.open(self.work / name, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
        except OSError:
            return None
        with os.fdopen(descriptor, "rb") as file:
            return file.read(most_bytes) if stat.S_ISREG(os.fstat(file.fileno()).st_mode) else None


@contextmanager
def workplace(passed: Sequence[str] = ()) -> Iterator[Workplace]:
    """Yield new folders and the environment for a process; the folders are removed afterwards.

    The environment has what programs need to run and to reach the network, and the variables named in
    *passed*, as far as they are set.
    """
    folder = Path(tempfile.mkdtemp(prefix="otel-diag-agent-"))
    try:
        for name in ("work", "home", "tmp"):
            (folder / name).mkdir()
        kept = {
            name: value
            for name, value in os.environ.items()
            if name in _PASSED or name in passed or name.startswith(_LOCALE)
        }
        for name in ("NO_PROXY", "no_proxy"):  # the gateway is on this machine
            kept[name] = f"{kept[name]},{_NO_PROXY}" if kept.get(name) else _NO_PROXY
        places = {"HOME": str(folder / "home"), "TMPDIR": str(folder / "tmp")}
        yield Workplace(folder, folder / "work", {**kept, **places})
    finally:
        remove(folder)


def remove(folder: Path) -> None:
    """Remove a folder of a process, also what the process made unreadable."""
    shutil.rmtree(folder, ignore_errors=True)
    if folder.exists():
        for place, _, _ in os.walk(folder, followlinks=False):
            with suppress(OSError):
                Path(place).chmod(0o700)
        shutil.rmtree(folder, ignore_errors=True)


@dataclass
class _Kept:
    """The beginning and the end of a stream."""

    most_bytes: int
    head: bytearray = field(default_factory=bytearray)
    tail: bytearray = field(default_factory=bytearray)
    dropped: int = 0

    def add(self, data: bytes) -> None:
        """Keep *data*, or drop what lies between beginning and end."""
        room = max(0, self.most_bytes // 2 - len(self.head))
        self.head += data[:room]
        self.tail += data[room:]
        over = len(self.tail) - self.most_bytes // 2
        if over > 0:
            del self.tail[:over]
            self.dropped += over

    def text(self) -> str:
        """Return the stream as text."""
        gap = f"\n[… {self.dropped:,} bytes left out …]\n".encode() if self.dropped else b""
        return bytes(self.head + gap + self.tail).decode("utf-8", "replace")


class AgentProcess:
    """One command in a workplace, with all processes that it starts.

    They end with the command, with the call of :meth:`run`, and with the process that calls it: a supervisor
    between the two kills what is left, also what has left the process group.
    """

    def __init__(
        self,
        command: Sequence[str],
        place: Workplace,
        *,
        environment: Mapping[str, str] | None = None,
        limits: Limits = Limits(),
    ) -> None:
        self._command = command
        self._place = place
        self._environment = {**place.environment, **(environment or {})}
        self._limits = limits

    async def run(self, stdin: bytes = b"", *, timeout_s: float | None = None) -> Finished:
        """Run the command until it ends; when cancelled, send SIGTERM, after the grace SIGKILL.

        The same happens after *timeout_s*, and what the command wrote by then is returned.

        Raises OSError where no process can be started; a command that cannot be is exit code 127.
        """
        held, control = os.pipe()
        mark = secrets.token_hex(16)
        limits = self._limits
        words = [str(held), str(limits.grace_s), str(limits.memory_bytes), str(self._place.folder)]
        starting = asyncio.ensure_future(
            asyncio.create_subprocess_exec(
                sys.executable,
                *("-I", "-S", supervisor.__file__, *words, *self._command),
                stdin=asyncio.subprocess.PIPE,
                stdout=asyncio.subprocess.PIPE,
                stderr=asyncio.subprocess.PIPE,
                cwd=self._place.work,
                env={**self._environment, stragglers.VARIABLE: mark},
                pass_fds=(held,),
                start_new_session=True,
            )
        )
        cancelled = await _settled(starting)
        os.close(held)
        if starting.exception() is not None:
            os.close(control)
        process = starting.result()
        kept = _Kept(limits.output_bytes), _Kept(limits.output_bytes)
        streams = process.stdout, process.stderr
        readers = [asyncio.ensure_future(_read(*pair)) for pair in zip(streams, kept, strict=True)]
        writer = asyncio.ensure_future(_write(process.stdin, stdin))
        try:
            if cancelled is not None:
                raise cancelled
            await asyncio.wait_for(_exited(process), timeout_s)
            out_of_time = False
        except TimeoutError:
            out_of_time = True
        finally:
            os.close(control)
            await _ended(process, limits.grace_s, mark)
            await asyncio.wait([*readers, writer], timeout=_CLEANUP_S)
            for task in (*readers, writer):
                task.cancel()
        code = -signal.SIGKILL if process.returncode is None else process.returncode
        return Finished(code if code >= 0 else 128 - code, kept[0].text(), kept[1].text(), out_of_time)


async def _settled(starting: asyncio.Future[Any]) -> asyncio.CancelledError | None:
    """Wait for the start of a process even when cancelled; return the cancellation.

    asyncio would kill the supervisor of a start that is cancelled, and so leave the command running.
    """
    cancelled = None
    while not starting.done():
        try:
            await asyncio.wait({starting})
        except asyncio.CancelledError as error:
            cancelled = error
    return cancelled


async def _exited(process: asyncio.subprocess.Process) -> None:
    """Wait until the supervisor has ended, also while others hold its streams (``wait`` waits for these)."""
    waiting = asyncio.ensure_future(process.wait())
    try:
        while process.returncode is None:
            await asyncio.wait({waiting}, timeout=_LOOK_S)
    finally:
        waiting.cancel()


async def _ended(process: asyncio.subprocess.Process, grace_s: float, mark: str) -> None:
    """Wait until the supervisor has ended, kill one that does not, and kill what it left behind."""
    last_s = asyncio.get_running_loop().time() + grace_s + _CLEANUP_S
    while process.returncode is None and asyncio.get_running_loop().time() < last_s:
        with suppress(ProcessLookupError):
            process.send_signal(signal.SIGCONT)  # the agent may have stopped it
        with suppress(TimeoutError):
            await asyncio.wait_for(_exited(process), _LOOK_S)
    if process.returncode is None:
        await stragglers.kill(process.pid, mark, _CLEANUP_S)
        with suppress(ProcessLookupError):
            process.kill()
    await stragglers.kill(None, mark, _CLEANUP_S)


async def _read(stream: asyncio.StreamReader | None, kept: _Kept) -> None:
    assert stream is not None
    while data := await stream.read(_READ_BYTES):
        kept.add(data)


async def _write(stream: asyncio.StreamWriter | None, data: bytes) -> None:
    assert stream is not None
    with suppress(BrokenPipeError, ConnectionResetError):
        stream.write(data)
        await stream.drain()
        stream.close()
        await stream.wait_closed()
