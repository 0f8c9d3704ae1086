"""Builds the flagd that the tests run against, once: ``python tests/flagd_binary/build.py`` prints its path.

Needs ``go`` and its module proxy. flagd is installed as published. Where its module does not resolve (proxies
that lack some of its dependencies), it is built from the Go module in this folder: the same flagd, except
that one dependency, with types of Kubernetes objects that no test uses, comes from the release before it was
renamed. The binary is stored in ``.cache/flagd/<hash of the versions>``, which git ignores; concurrent calls
wait for the build.
"""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

HERE = Path(__file__).parent
CACHE = HERE.parents[1] / ".cache" / "flagd"
PROGRAM = "github.com/open-feature/flagd/flagd"
RENAMED = "github.com/open-feature/open-feature-operator/apis"
RENAMED_VERSION = "v0.2.45"
_PREFIX = "build-"
BUILD_TIMEOUT_S = 720.0 * float(os.environ.get("OTEL_DIAG_TEST_SLOWNESS", "4"))


class BuildFailed(Exception):
    """flagd could not be built; the message holds the end of what go said."""


def cached() -> Path:
    """Return where the binary is, or will be."""
    digest = hashlib.sha256(f"{RENAMED}@{RENAMED_VERSION}".encode())
    for name in ("go.mod", "tools.go"):
        digest.update((HERE / name).read_bytes())
    return CACHE / digest.hexdigest()[:16] / "flagd"


def ensure() -> Path:
    """Return the binary, built if it has to be; raises BuildFailed. Waits for another build."""
    target = cached()
    if target.exists():
        return target
    if shutil.which("go") is None:
        raise BuildFailed("there is no go on PATH")
    target.parent.mkdir(parents=True, exist_ok=True)
    with _locked(target.parent / "lock"):
        if not target.exists():
            for left in target.parent.glob(f"{_PREFIX}*"):  # killed builds; this one holds the lock
                shutil.rmtree(left, ignore_errors=True)
            with tempfile.TemporaryDirectory(prefix=_PREFIX, dir=target.parent) as folder:
                built = _published(Path(folder)) or _from_module(Path(folder))
                built.replace(target)
    return target


def version() -> str:
    """Return the release that is built, as ``v1.2.3``."""
    lines = (HERE / "go.mod").read_text(encoding="utf-8").splitlines()
    return next(line.split()[1] for line in lines if line.strip().startswith(f"{PROGRAM} "))


@contextlib.contextmanager
def _locked(path: Path) -> Iterator[None]:
    deadline = time.monotonic() + BUILD_TIMEOUT_S
    with path.open("w") as lock:
        while True:
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
                break
            except BlockingIOError:
                if time.monotonic() > deadline:
                    raise BuildFailed(f"another build did not end within {BUILD_TIMEOUT_S:g} s") from None
                time.sleep(0.2)
        yield


def _published(folder: Path) -> Path | None:
    done = _go(folder, ["install", f"{PROGRAM}@{version()}"], GOBIN=str(folder))
    return folder / "flagd" if done.returncode == 0 else None


def _from_module(folder: Path) -> Path:
    module = folder / "module"
    module.mkdir()
    for name in ("go.mod", "tools.go"):
        shutil.copyfile(HERE / name, module / name)
    downloaded = _checked(module, ["mod", "download", "-json", f"{RENAMED}@{RENAMED_VERSION}"])
    _rename(Path(json.loads(downloaded)["Dir"]), module / "apistub")
    _checked(module, ["build", "-trimpath", "-o", str(folder / "flagd"), PROGRAM])
    return folder / "flagd"


def _rename(source: Path, target: Path) -> None:
    """Copy the module under its later name, without the web hooks that need releases of its time."""
    for path in source.rglob("*"):
        if not path.is_file() or "webhook" in path.name:
            continue
        copy = target / path.relative_to(source)
        copy.parent.mkdir(parents=True, exist_ok=True)
        copy.write_bytes(path.read_bytes().replace(RENAMED.encode(), RENAMED.removesuffix("s").encode()))


def _checked(folder: Path, arguments: list[str]) -> str:
    done = _go(folder, arguments)
    if done.returncode:
        raise BuildFailed(f"go {' '.join(arguments[:2])} failed: {(done.stderr or done.stdout)[-2000:]}")
    return done.stdout


def _go(folder: Path, arguments: list[str], **environment: str) -> subprocess.CompletedProcess[str]:
    settings = {"GOFLAGS": "-mod=mod", "GONOSUMDB": "github.com/open-feature/*", "GOWORK": "off"}
    settings["GOTMPDIR"] = str(folder)  # go's own folders go with this one, however the build ends
    with subprocess.Popen(
        ["go", *arguments],
        cwd=folder,
        env={**os.environ, **settings, **environment},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,  # so that its compilers can be ended with it
    ) as process:
        try:
            out, err = process.communicate(timeout=BUILD_TIMEOUT_S)
        except BaseException as error:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
            if isinstance(error, subprocess.TimeoutExpired):
                raise BuildFailed(f"go {arguments[0]} did not end within {BUILD_TIMEOUT_S:g} s") from error
            raise
    return subprocess.CompletedProcess(arguments, process.returncode, out, err)


if __name__ == "__main__":
    try:
        print(ensure())
    except BuildFailed as failure:
        sys.exit(f"flagd was not built: {failure}")
