"""The document in a file: replaced atomically, with newer time and same permissions, losing no write."""

import asyncio
import contextlib
import os
import stat
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pytest_otel_diag.errors import ConfigurationError, FlagError, LostUpdate
from pytest_otel_diag.flags.controller import SurfaceFlags
from pytest_otel_diag.flags.surfaces import file_replacement
from pytest_otel_diag.flags.surfaces.file import FileSurface, open_surface
from pytest_otel_diag.model.flags import FlagChange
from pytest_otel_diag.testing.flag_contract import (
    FlagControllerContract,
    FlagDocumentContract,
    FlagRulesContract,
    SurfaceContract,
)
from tests.flags.documents import RAW, TARGETED, edited
from tests.flags.file_flags import FileReader, file_flags, folder_of, put

FUTURE_NS = 4_000_000_000_123_456_789


@pytest.fixture
def path(tmp_path):
    file = tmp_path / "demo.flagd.json"
    file.write_bytes(RAW)
    return file


@pytest.fixture
def controller(path):
    return file_flags(path)


class TestFile(FlagControllerContract, FlagRulesContract, FlagDocumentContract, SurfaceContract):
    @pytest.fixture
    def flag(self):
        return "paymentFailure"

    @pytest.fixture
    def targeted(self):
        return TARGETED

    @pytest.fixture
    def shared(self):
        return "dealtOut"

    @pytest.fixture
    def surface(self, path):
        return FileSurface(path)

    @pytest.fixture
    def rewrite(self, path):
        async def rewrite(raw):
            path.write_bytes(raw)

        return rewrite


@pytest.mark.parametrize("mtime_ns", [1, 1_600_000_000_000_000_000, FUTURE_NS, None], ids=str)
async def test_the_file_is_always_newer_than_the_one_it_replaces(path, mtime_ns):
    if mtime_ns is not None:
        os.utime(path, ns=(mtime_ns, mtime_ns))
    for variant in ("on", "off") * 3:
        before_ns = path.stat().st_mtime_ns
        await put(path, edited(adFailure={"defaultVariant": variant}))
        assert path.stat().st_mtime_ns > before_ns
    assert folder_of(path) == ["demo.flagd.json"]


async def test_a_file_system_that_keeps_whole_seconds_gets_the_next_one(path, monkeypatch):
    real_utime = os.utime

    def coarse(name, ns):
        real_utime(name, ns=tuple(moment // 2_000_000_000 * 2_000_000_000 for moment in ns))

    os.utime(path, ns=(FUTURE_NS, FUTURE_NS))
    coarse(path, (FUTURE_NS, FUTURE_NS))
    before_ns = path.stat().st_mtime_ns
    monkeypatch.setattr(file_replacement.os, "utime", coarse)
    await put(path, edited(adFailure={"defaultVariant": "on"}))
    assert 0 < path.stat().st_mtime_ns - before_ns <= 4_000_000_000


@pytest.mark.parametrize("mode", [0o600, 0o640, 0o644, 0o664, 0o777])
async def test_permissions_stay(path, mode):
    path.chmod(mode)
    await put(path, edited(adFailure={"defaultVariant": "on"}))
    assert stat.S_IMODE(path.stat().st_mode) == mode


async def test_extended_attributes_stay(path):
    try:
        os.setxattr(path, "user.note", b"kept")
    except OSError:
        pytest.skip("this file system has no extended attributes")
    await put(path, edited(adFailure={"defaultVariant": "on"}))
    assert os.getxattr(path, "user.note") == b"kept"


@pytest.mark.skipif(os.geteuid() != 0, reason="only root may give files away")
async def test_the_owner_stays(path):
    os.chown(path, 1234, 4321)
    await put(path, edited(adFailure={"defaultVariant": "on"}))
    assert (path.stat().st_uid, path.stat().st_gid) == (1234, 4321)


@contextlib.contextmanager
def as_ordinary_user():
    """Act as an ordinary user in a new folder; requires root."""
    if os.geteuid() != 0:
        pytest.skip("only root can act as another user")
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        folder.chmod(0o777)
        file = folder / "demo.flagd.json"
        file.write_bytes(RAW)
        os.setegid(65534)
        os.seteuid(65534)
        try:
            yield file
        finally:
            os.seteuid(0)
            os.setegid(0)


async def test_a_file_of_another_user_is_replaced_when_everyone_may_read_it():
    with as_ordinary_user() as file:
        assert file.stat().st_uid == 0
        await put(file, edited(adFailure={"defaultVariant": "on"}))
        assert file.stat().st_uid == 65534
        assert stat.S_IMODE(file.stat().st_mode) == 0o644


async def test_a_file_of_another_user_that_flagd_could_not_read_is_left_alone():
    with as_ordinary_user() as file:
        os.seteuid(0)
        file.chmod(0o640)
        os.chown(file, 0, 65534)
        os.seteuid(65534)
        with pytest.raises(
            FlagError, match=r"belongs to user 0.*cannot set.*\(mode -rw-r-----\).*chmod o\+r"
        ):
            await put(file, edited(adFailure={"defaultVariant": "on"}))
        assert file.read_bytes() == RAW
        assert folder_of(file) == ["demo.flagd.json"]
        os.seteuid(0)
        file.chmod(0o600)
        os.seteuid(65534)
        with pytest.raises(FlagError, match=r"cannot be read.*give user 65534"):
            await FileSurface(file).read()


async def test_a_folder_that_cannot_be_written_is_reported_with_the_remedy():
    with as_ordinary_user() as file:
        os.seteuid(0)
        file.parent.chmod(0o755)
        os.seteuid(65534)
        with pytest.raises(
            FlagError, match=r"demo\.flagd\.json cannot be replaced \(Permission denied\): give user"
        ):
            await put(file, edited(adFailure={"defaultVariant": "on"}))
        with pytest.raises(FlagError, match=r"runs on other hosts cannot be kept out"):
            await FileSurface(file).lease().acquire("me", seconds=1)
        assert file.read_bytes() == RAW


async def test_links_are_followed_to_the_real_file(tmp_path):
    real = tmp_path / "real" / "flags.json"
    real.parent.mkdir()
    real.write_bytes(RAW)
    link = tmp_path / "demo.flagd.json"
    link.symlink_to("real/flags.json")
    await put(link, edited(adFailure={"defaultVariant": "on"}))
    assert link.is_symlink()
    assert real.read_bytes() == edited(adFailure={"defaultVariant": "on"})
    assert FileSurface(link).identity == FileSurface(real).identity == str(real)


async def test_the_links_of_a_config_map_are_followed_wherever_they_point_now(tmp_path):
    for version in ("..2026_01", "..2026_02"):
        (tmp_path / version).mkdir()
        (tmp_path / version / "demo.flagd.json").write_bytes(RAW)
    (tmp_path / "..data").symlink_to("..2026_01")
    file = tmp_path / "demo.flagd.json"
    file.symlink_to("..data/demo.flagd.json")
    surface = FileSurface(file)
    first = await surface.read()
    (tmp_path / "..new").symlink_to("..2026_02")
    (tmp_path / "..new").rename(tmp_path / "..data")
    await surface.write(edited(adFailure={"defaultVariant": "on"}), expected=first)
    assert (tmp_path / "..2026_01" / "demo.flagd.json").read_bytes() == RAW
    assert (tmp_path / "..2026_02" / "demo.flagd.json").read_bytes() != RAW
    assert (file.is_symlink(), (tmp_path / "..data").is_symlink()) == (True, True)


MOUNTS = """
import asyncio, sys
from pathlib import Path
from pytest_otel_diag.errors import FlagError
from pytest_otel_diag.flags.surfaces.file import FileSurface
surface = FileSurface(Path(sys.argv[1]))
try:
    raw = asyncio.run(surface.read())
    asyncio.run(surface.write(raw, expected=raw))
    print("written")
except FlagError as error:
    print(error)
"""


def in_a_mount(python, script, *arguments):
    """Run a shell script and then the surface in a new mount namespace; skip where that is not allowed."""
    command = ["unshare", "--mount", "sh", "-ec", f'{script}; exec "$PY" -c "$CODE" "$1"', "sh", *arguments]
    environment = {**os.environ, "PY": python, "CODE": MOUNTS}
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=60, check=False)
    if done.returncode and "Traceback" not in done.stderr:
        pytest.skip(f"mounts cannot be made here: {done.stderr.strip()[:200]}")
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_a_read_only_folder_is_refused_with_where_to_write(path, executable):
    said = in_a_mount(
        executable, 'mount --bind "$2" "$2"; mount -o remount,ro,bind "$2"', str(path), str(path.parent)
    )
    assert "mounted read-only, like a ConfigMap" in said
    assert "configmap:NAMESPACE/NAME" in said


def test_a_file_that_is_mounted_by_itself_is_refused(path, tmp_path, executable):
    other = tmp_path / "other folder"
    other.mkdir()
    (other / "inside.json").touch()
    inside = str(other / "inside.json")
    said = in_a_mount(executable, 'mount --bind "$2" "$1"', inside, str(path))
    assert "is a mount point" in said
    assert "Mount its folder" in said
    assert path.read_bytes() == RAW


@pytest.fixture
def executable():
    return sys.executable


async def test_without_a_list_of_mounts_files_are_written_all_the_same(path, tmp_path, monkeypatch):
    monkeypatch.setattr(file_replacement, "_MOUNTS", tmp_path / "missing")
    await put(path, edited(adFailure={"defaultVariant": "on"}))
    assert path.read_bytes() != RAW


async def test_mount_points_are_read_as_the_system_writes_them(tmp_path, monkeypatch):
    folder = tmp_path / "a folder"
    folder.mkdir()
    file = folder / "demo.flagd.json"
    file.write_bytes(RAW)
    mounts = tmp_path / "mountinfo"
    escaped = str(file).replace(" ", "\\040")
    mounts.write_text(f"36 35 98:0 /mnt1 {escaped} rw,noatime master:1 - ext3 /dev/root rw\n")
    monkeypatch.setattr(file_replacement, "_MOUNTS", mounts)
    with pytest.raises(FlagError, match="is a mount point"):
        await put(file, edited(adFailure={"defaultVariant": "on"}))
    mounts.write_text(f"36 35 98:0 /mnt1 {escaped}2 rw,noatime master:1 - ext3 /dev/root rw\n")
    await put(file, edited(adFailure={"defaultVariant": "on"}))


async def test_what_flagd_would_refuse_is_never_written(path):
    surface = FileSurface(path)
    for raw, culprit in (
        (edited(adFailure={"defaultVariant": "maybe"}), "adFailure"),
        (b"", "empty"),
        (RAW[:-20], "not JSON"),
    ):
        with pytest.raises(FlagError, match=culprit):
            await surface.write(raw, expected=RAW)
        with pytest.raises(FlagError, match=culprit):
            await surface.overwrite(raw)
    assert path.read_bytes() == RAW
    assert folder_of(path) == ["demo.flagd.json"]


async def test_an_invalid_default_of_another_flag_refuses_the_change_by_its_name(path, controller):
    theirs = edited(adFailure={"defaultVariant": "maybe"})
    path.write_bytes(theirs)
    with pytest.raises(FlagError, match=r"'adFailure' has the default variant 'maybe'.*refuses the whole"):
        await controller.apply(FlagChange(key="paymentFailure", variant="50%"))
    with pytest.raises(FlagError, match="adFailure"):
        await controller.document()
    assert path.read_bytes() == theirs


async def test_a_document_that_was_damaged_meanwhile_is_put_back(path, controller):
    before = await controller.document()
    await controller.apply(FlagChange(key="paymentFailure", variant="50%"))
    for damage in (b"", b'{"flags": {', edited(adFailure={"defaultVariant": "maybe"})):
        path.write_bytes(damage)
        await controller.restore(before)
        assert path.read_bytes() == RAW
    path.unlink()
    await controller.restore(before)
    assert path.read_bytes() == RAW


async def test_a_deleted_file_comes_back_with_its_permissions(path):
    path.chmod(0o604)
    surface = FileSurface(path)
    await surface.read()
    path.unlink()
    await surface.overwrite(RAW)
    assert stat.S_IMODE(path.stat().st_mode) == 0o604
    path.unlink()
    with pytest.raises(LostUpdate):
        await surface.write(RAW, expected=RAW)
    await FileSurface(path).overwrite(RAW)
    assert stat.S_IMODE(path.stat().st_mode) == 0o644


async def test_a_file_that_is_being_written_is_waited_for(path):
    surface = FileSurface(path, settle_s=10)
    path.write_bytes(b"")
    later = threading.Timer(0.2, path.write_bytes, [RAW])
    path.write_bytes(RAW[: len(RAW) // 2])
    later.start()
    assert await surface.read() == RAW


@pytest.mark.parametrize("left", [b"", b" \n", RAW[:100], b"flags: {}", b"\xff\xfe"], ids=repr)
async def test_half_a_file_is_an_error_in_the_end(path, left):
    path.write_bytes(left)
    with pytest.raises(
        FlagError, match=r"demo\.flagd\.json is (empty|not JSON).*still was after 0.1 s.*heal"
    ):
        await FileSurface(path, settle_s=0.1).read()


async def test_a_path_that_is_no_file_says_what_to_give(tmp_path):
    with pytest.raises(FlagError, match=r"missing\.json cannot be read.*not the one in the container"):
        await FileSurface(tmp_path / "missing.json").read()
    with pytest.raises(FlagError, match=r"name the document, not its folder"):
        await FileSurface(tmp_path).read()
    with pytest.raises(FlagError, match=r"cannot be replaced.*check that it is the path on this machine"):
        await FileSurface(tmp_path / "no" / "such.json").overwrite(RAW)


@pytest.mark.parametrize("name", ["demo.flagd.yaml", "demo.YML"])
def test_yaml_is_refused_with_the_reason(name):
    with pytest.raises(ConfigurationError, match=r"YAML.*lose its comments.*JSON"):
        open_surface(name)


def test_relative_paths_and_homes_are_absolute_from_the_start(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    surface = open_surface("a/../demo.flagd.json")
    assert surface.control == f"file:{tmp_path}/demo.flagd.json"
    assert open_surface("~/x.json").name == f"{tmp_path}/home/x.json"


async def test_what_killed_writers_left_is_removed_once_it_is_old(path):
    old, young = (
        path.with_name(".demo.flagd.json.otel-diag-old.tmp"),
        path.with_name(".demo.flagd.json.otel-diag-young.tmp"),
    )
    for left in (old, young):
        left.write_bytes(b"{")
    await put(path, edited(adFailure={"defaultVariant": "on"}))
    assert young.exists()
    file_replacement.remove_stale(path, stale_s=-1.0)
    assert folder_of(path) == ["demo.flagd.json"]


@settings(max_examples=25, deadline=None)
@given(
    st.lists(st.sampled_from(["on", "off"]), min_size=1, max_size=6),
    st.integers(0, 4_000_000_000_000_000_000),
)
def test_any_course_of_changes_and_restores_ends_with_the_same_bytes(variants, mtime_ns):
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "demo.flagd.json"
        path.write_bytes(RAW)
        os.utime(path, ns=(mtime_ns, mtime_ns))

        async def course():
            flags = SurfaceFlags(FileSurface(path), FileReader(path), now=time.time_ns)
            before = await flags.document()
            last_ns = path.stat().st_mtime_ns
            for variant in variants:
                await flags.apply(FlagChange(key="adFailure", variant=variant))
                assert (await flags.served("adFailure", {})).variant == variant
                assert path.stat().st_mtime_ns > last_ns
                last_ns = path.stat().st_mtime_ns
            await flags.restore(before)
            assert path.stat().st_mtime_ns > last_ns

        asyncio.run(course())
        assert path.read_bytes() == RAW
