"""Flags of any other system, through the user's own command or class.

``command:CMD ARG…`` runs ``CMD ARG… read``, which prints the whole document (flagd's format) to standard
output, and ``CMD ARG… write``, which reads the document from standard input. No shell is involved. Exit code
0 means success; otherwise its standard error is shown.

``class:MODULE:ATTRIBUTE`` uses an object with two methods, plain or async; a class is instantiated without
arguments::

    class MyFlags:
        def read(self) -> bytes:            # the whole document, in flagd's format
            return to_flagd(my_system.export())
        def write(self, raw: bytes) -> None:
            my_system.import_(from_flagd(raw))

It may have the attributes ``name`` and ``identity``; ``identity`` should be the same text in every process
that reaches the same flags. flagd's format is ``{"flags": {name: {"state": "ENABLED", "variants": {…},
"defaultVariant": …}}}``. What is *served* is read over OFREP or flagd's own protocols.

A write is read back, and sent again when it was not stored. Key order and whitespace may change.
"""

from __future__ import annotations

import asyncio
import contextlib
import importlib
import inspect
import os
import shlex
import signal
from functools import partial
from pathlib import Path
from typing import Any

from pytest_otel_diag.daemon import in_daemon
from pytest_otel_diag.errors import ConfigurationError, FlagError, nearest
from pytest_otel_diag.flags.comparison import same_json
from pytest_otel_diag.flags.document_text import LONGEST_BYTES
from pytest_otel_diag.flags.surface import Moved, RemoteLease
from pytest_otel_diag.flags.surfaces.read_back import RetryPolicy, replace

_TIMEOUT_S = 30.0
_GRACE_S = 2.0
_SHOWN = 400
_CHUNK_BYTES = 65_536
_METHODS = ("read", "write")


class _ReadBackSurface:
    """Base of surfaces whose writes are compared and read back."""

    name: str
    identity: str
    control: str

    def __init__(self, retry: RetryPolicy | None, timeout_s: float) -> None:
        self._retry = retry or RetryPolicy()
        self._timeout_s = timeout_s

    @property
    def write_timeout_s(self) -> float:
        """The longest that one write may take, in seconds, when every attempt fails late."""
        return self._retry.tries * (self._timeout_s + self._retry.kept_s)

    async def read(self) -> bytes:
        """Return the document; raises FlagError."""
        raise NotImplementedError

    async def put(self, raw: bytes) -> None:
        """Write once; raises FlagError."""
        raise NotImplementedError

    async def write(self, raw: bytes, *, expected: bytes) -> None:
        """Replace the document and return once it reads back; raises LostUpdate, FlagError."""
        await replace(self, raw, expected=expected, retry=self._retry)

    async def overwrite(self, raw: bytes) -> None:
        """Replace whatever document is stored; raises FlagError."""
        await replace(self, raw, expected=None, retry=self._retry)

    def same(self, one: bytes, other: bytes) -> bool:
        """Return whether two texts hold the same JSON, ``$schema`` aside."""
        return same_json(one, other)

    def lease(self) -> RemoteLease | None:
        """Return None: a lease cannot be stored."""
        return None

    def moved_from(self, identity: str) -> Moved | None:  # noqa: ARG002 - the port
        """Return None: a command has no links to follow."""
        return None

    async def describe(self) -> str:
        """Return the name."""
        return self.name

    async def aclose(self) -> None:
        """Do nothing: no connection is held open."""


class CommandSurface(_ReadBackSurface):
    """The document that a command reads and writes; ``timeout_s`` bounds one run of it, in seconds.

    Raises ConfigurationError for an invalid command line.
    """

    def __init__(
        self, command: str, *, retry: RetryPolicy | None = None, timeout_s: float = _TIMEOUT_S
    ) -> None:
        super().__init__(retry, timeout_s)
        try:
            self._words = shlex.split(command)
        except ValueError as error:
            raise ConfigurationError(f"flags: the command {command!r} cannot be split: {error}") from error
        if not self._words:
            raise ConfigurationError("flags: command: needs a command, for example command:/opt/flags.sh")
        for position, word in enumerate(self._words):
            if Path(word).is_file() or (not position and "/" in word):
                _refuse_relative(word)
        self.name = f"command {shlex.join(self._words)}"
        self.control = self.identity = f"command:{shlex.join(self._words)}"

    async def read(self) -> bytes:
        """Return the output of the command; raises FlagError."""
        return await self._run("read", b"")

    async def put(self, raw: bytes) -> None:
        """Pass *raw* to the command; raises FlagError."""
        await self._run("write", raw)

    async def _run(self, verb: str, given: bytes) -> bytes:
        shown = shlex.join((*self._words, verb))
        process = None
        try:
            async with asyncio.timeout(self._timeout_s):
                process = await self._started(verb, shown)
                out, err = await _talk(process, given, shown)
        except TimeoutError as error:
            raise FlagError(
                f"the command {shown} did not exit within {self._timeout_s:g} s and was killed; make it exit"
            ) from error
        finally:
            if process is not None and process.returncode is None:
                await _kill(process)
        if process.returncode:
            raise FlagError(
                f"the command {shown} failed with exit code {process.returncode}; "
                f"standard error: {_tail(err)}"
            )
        if verb == "read" and not out.strip():
            raise FlagError(
                f"the command {shown} printed nothing; it must print the whole document to standard output "
                f"(standard error: {_tail(err)})"
            )
        return out

    async def _started(self, verb: str, shown: str) -> asyncio.subprocess.Process:
        try:
            return await asyncio.create_subprocess_exec(
                *self._words,
                verb,
                stdin=asyncio.subprocess.PIPE,
                stdout=asyncio.subprocess.PIPE,
                stderr=asyncio.subprocess.PIPE,
                start_new_session=True,  # so that its children can be killed with it
            )
        except OSError as error:
            raise FlagError(
                f"the command {shown} cannot be started: {error.strerror or error}; name a program on the "
                "PATH, or its path"
            ) from error


def _refuse_relative(word: str) -> None:
    """Raise ConfigurationError for a relative path, which means another file in another folder."""
    path = Path(word)
    if not path.is_absolute():
        raise ConfigurationError(
            f"flags: the command has the relative path {word!r}; processes in other folders may have to undo "
            f"a fault, so write {str(path.absolute())!r}"
        )


async def _talk(process: asyncio.subprocess.Process, given: bytes, shown: str) -> tuple[bytes, bytes]:
    """Return the output and the errors once the process has ended; raises FlagError for endless output."""
    reading = [asyncio.ensure_future(_output(stream, shown)) for stream in (process.stdout, process.stderr)]
    try:
        await asyncio.gather(*reading, _input(process, given))
    finally:
        for task in reading:
            task.cancel()
    return reading[0].result(), reading[1].result()


async def _output(stream: asyncio.StreamReader | None, shown: str) -> bytes:
    """Return the whole output; raises FlagError for more than a document may have."""
    assert stream is not None
    output = bytearray()
    while part := await stream.read(_CHUNK_BYTES):
        output += part
        if len(output) > LONGEST_BYTES:
            raise FlagError(
                f"the command {shown} printed more than the supported {LONGEST_BYTES:,} bytes and was "
                "killed; it must print the document alone"
            )
    return bytes(output)


async def _input(process: asyncio.subprocess.Process, given: bytes) -> None:
    assert process.stdin is not None
    with contextlib.suppress(BrokenPipeError, ConnectionResetError):  # it need not read its input
        process.stdin.write(given)
        await process.stdin.drain()
        process.stdin.close()
    await process.wait()


async def _kill(process: asyncio.subprocess.Process) -> None:
    with contextlib.suppress(ProcessLookupError, PermissionError):
        os.killpg(process.pid, signal.SIGKILL)
    with contextlib.suppress(TimeoutError):
        await asyncio.wait_for(process.wait(), _GRACE_S)


def _tail(text: bytes) -> str:
    shown = text.decode("utf-8", errors="replace").strip()
    return repr(shown[-_SHOWN:]) if shown else "empty"


class ObjectSurface(_ReadBackSurface):
    """The document that an object with ``read`` and ``write`` stores; ``timeout_s`` bounds one call.

    A plain method that does not return in time keeps running in its thread, since threads cannot be killed,
    but does not keep the process from ending.
    Raises ConfigurationError for an object that lacks a method.
    """

    def __init__(
        self, held: Any, spec: str, *, retry: RetryPolicy | None = None, timeout_s: float = _TIMEOUT_S
    ) -> None:
        super().__init__(retry, timeout_s)
        missing = [name for name in _METHODS if not callable(getattr(held, name, None))]
        if missing:
            raise ConfigurationError(
                f"flags: {spec} has no method {' and no method '.join(missing)}; it needs read() -> bytes, "
                "which returns the whole document, and write(raw: bytes), plain or async"
            )
        self._held = held
        self._spec = spec
        self.control = f"class:{spec}"
        self.name = str(getattr(held, "name", f"class {spec}"))
        self.identity = f"class:{spec}:{getattr(held, 'identity', '')}"

    async def read(self) -> bytes:
        """Return the result of the object's ``read``, text as UTF-8; raises FlagError."""
        found = await self._call("read")
        if isinstance(found, str):
            return found.encode()
        if not isinstance(found, bytes):
            raise FlagError(
                f"{self._spec}.read() returned {type(found).__name__}; it must return the document as bytes "
                "or str"
            )
        return found

    async def put(self, raw: bytes) -> None:
        """Pass *raw* to the object; raises FlagError."""
        await self._call("write", raw)

    async def _call(self, method: str, *arguments: bytes) -> Any:
        called = getattr(self._held, method)
        try:
            async with asyncio.timeout(self._timeout_s):
                if inspect.iscoroutinefunction(called):
                    return await called(*arguments)
                found = await in_daemon(partial(called, *arguments), "otel-diag flags class")
                return await found if inspect.isawaitable(found) else found
        except FlagError:
            raise
        except TimeoutError as error:
            raise FlagError(
                f"{self._spec}.{method}() did not return within {self._timeout_s:g} s; limit its waits"
            ) from error
        except Exception as error:
            raise FlagError(f"{self._spec}.{method}() raised {type(error).__name__}: {error}") from error


def open_surface(rest: str) -> CommandSurface:
    """Return the surface of ``command:CMD``; raises ConfigurationError for an invalid command line."""
    return CommandSurface(rest)


def open_class(rest: str) -> ObjectSurface:
    """Return the surface of ``class:MODULE:ATTRIBUTE``; raises ConfigurationError if it does not exist."""
    module_name, colon, attribute = rest.partition(":")
    if not colon or not module_name or not attribute:
        raise ConfigurationError(f"flags: class:{rest} is invalid; write class:MODULE:ATTRIBUTE")
    try:
        module = importlib.import_module(module_name)
    except ImportError as error:
        raise ConfigurationError(
            f"flags: the module {module_name!r} of class:{rest} cannot be imported: {error}; "
            "put it on Python's import path (for otel-diag, the working directory is on it)"
        ) from error
    if not hasattr(module, attribute):
        raise ConfigurationError(
            f"flags: the module {module_name!r} has no {attribute!r}{nearest(attribute, dir(module))}"
        )
    held = getattr(module, attribute)
    try:
        made = held() if inspect.isclass(held) else held
    except Exception as error:
        raise ConfigurationError(
            f"flags: {rest}() raised {type(error).__name__}: {error}; it is called without arguments"
        ) from error
    return ObjectSurface(made, rest)
