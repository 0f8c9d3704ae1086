"""The lock between processes is exclusive, transactional, and released by a kill."""

import subprocess
import sys

import pytest

from pytest_otel_diag.errors import RecordingError
from pytest_otel_diag.recordings.lock import exclusive


def test_writes_are_seen_after_the_block_and_only_if_it_succeeds(tmp_path):
    path = tmp_path / "deep" / "x.lock"
    with exclusive(path) as ledger:
        ledger.execute("CREATE TABLE t (n INTEGER)")
        ledger.execute("INSERT INTO t VALUES (1)")
    with pytest.raises(KeyboardInterrupt), exclusive(path) as ledger:
        ledger.execute("INSERT INTO t VALUES (2)")
        raise KeyboardInterrupt
    with exclusive(path) as ledger:
        assert ledger.execute("SELECT n FROM t").fetchall() == [(1,)]


def test_a_lock_timeout_is_an_error_with_a_remedy(tmp_path):
    path = tmp_path / "x.lock"
    with (
        exclusive(path),
        pytest.raises(RecordingError, match=r"locked for more than 0 s.*another folder"),
        exclusive(path, wait_s=0.05),
    ):
        pass


def test_a_killed_holder_releases_the_lock_and_its_writes_are_rolled_back(tmp_path):
    path = tmp_path / "x.lock"
    script = (
        "import os, sys; from pathlib import Path; from pytest_otel_diag.recordings.lock import exclusive\n"
        "with exclusive(Path(sys.argv[1])) as ledger:\n"
        "    ledger.execute('CREATE TABLE t (n INTEGER)')\n"
        "    print('held', flush=True)\n"
        "    sys.stdin.read()\n"
    )
    with subprocess.Popen(
        [sys.executable, "-c", script, path], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as holder:
        assert holder.stdout.readline() == "held\n"
        holder.kill()
    with exclusive(path, wait_s=5) as ledger:
        assert ledger.execute("SELECT name FROM sqlite_master").fetchall() == []


def test_a_damaged_or_unreachable_lock_file_is_named(tmp_path):
    path = tmp_path / "x.lock"
    path.write_bytes(b"not a database" * 100)
    with pytest.raises(RecordingError, match=r"x.lock is damaged.*remove this cache file"), exclusive(path):
        pass
    (tmp_path / "folder").mkdir()
    with pytest.raises(RecordingError, match="folder cannot be opened"), exclusive(tmp_path / "folder"):
        pass


@pytest.mark.parametrize("below", ["", "recordings"])
def test_a_cache_path_that_is_not_a_folder_is_named_with_the_option(tmp_path, below):
    (tmp_path / "file").write_text("in the way")
    folder = tmp_path / "file" / below
    with (
        pytest.raises(RecordingError, match=f"folder {folder} cannot be created.*--otel-diag-cache"),
        exclusive(folder / "x.lock"),
    ):
        pass
