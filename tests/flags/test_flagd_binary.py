"""The flagd for tests is built once; without it, tests skip with a reason, or fail in CI."""

import json
import stat
import threading

import pytest

from tests.flagd_binary import build
from tests.support import flagd

GO = """#!/bin/sh
echo "$@" >> {calls}
case "$1" in
  install) {install} ;;
  mod) {mod} ;;
  build) {build} ;;
esac
"""


@pytest.fixture
def go(tmp_path, monkeypatch):
    """Put a program ``go`` on an otherwise empty PATH; return a function that says what its commands do."""
    monkeypatch.setattr(build, "CACHE", tmp_path / "cache")
    folder, calls = tmp_path / "bin", tmp_path / "calls"
    folder.mkdir()
    calls.touch()
    monkeypatch.setenv("PATH", str(folder))

    def does(*, install="exit 1", mod="exit 1", make="exit 1"):
        script = folder / "go"
        script.write_text(GO.format(calls=calls, install=install, mod=mod, build=make))
        script.chmod(0o755)
        return lambda: [line.split()[0] for line in calls.read_text().splitlines()]

    return does


def test_what_is_published_is_taken_as_it_is_and_only_once(go):
    calls = go(install=': > "$GOBIN/flagd"')
    assert build.ensure() == build.ensure() == build.cached()
    assert build.cached().is_file()
    assert calls() == ["install"]
    assert sorted(path.name for path in build.cached().parent.iterdir()) == ["flagd", "lock"]


def test_where_that_does_not_resolve_the_module_beside_it_is_built(go, tmp_path):
    renamed = tmp_path / "apis"
    (renamed / "core" / "v1").mkdir(parents=True)
    (renamed / "core" / "v1" / "types.go").write_text(f'import "{build.RENAMED}/core"\n')
    (renamed / "core" / "v1" / "types_webhook.go").write_text("package v1\n")
    (renamed / "go.mod").write_text(f"module {build.RENAMED}\n")
    for path in renamed.rglob("*"):
        path.chmod(path.stat().st_mode & ~stat.S_IWUSR)  # as go's module cache is
    looked = tmp_path / "looked"
    go(
        mod=f"echo '{json.dumps({'Dir': str(renamed)})}'",
        make=f'[ -f go.mod ] && [ -f tools.go ] && /bin/cp -r apistub {looked} && : > "$4"',
    )
    assert build.ensure().is_file()
    assert sorted(path.name for path in looked.rglob("*") if path.is_file()) == ["go.mod", "types.go"]
    assert build.RENAMED not in (looked / "core" / "v1" / "types.go").read_text()
    assert (looked / "go.mod").read_text() == "module github.com/open-feature/open-feature-operator/api\n"


@pytest.mark.parametrize(
    ("commands", "match"),
    [
        ({"mod": "echo no such module >&2; exit 1"}, r"go mod download failed: no such module"),
        (
            {"mod": """echo '{"Dir": "/nowhere"}'""", "make": "echo does not compile; exit 2"},
            "does not compile",
        ),
    ],
)
def test_a_build_that_fails_says_what_go_said_and_leaves_nothing(go, commands, match):
    go(**commands)
    with pytest.raises(build.BuildFailed, match=match):
        build.ensure()
    assert [path.name for path in build.cached().parent.iterdir()] == ["lock"]


def test_a_go_that_hangs_is_given_up(go, monkeypatch):
    go(install="exec /bin/sleep 60")
    monkeypatch.setattr(build, "BUILD_TIMEOUT_S", 0.2)
    with pytest.raises(build.BuildFailed, match=r"go install did not end within 0\.2 s"):
        build.ensure()


def test_a_second_call_waits_for_the_first_one(go):
    calls = go(install='/bin/sleep 0.3; : > "$GOBIN/flagd"')
    found = []
    threads = [threading.Thread(target=lambda: found.append(build.ensure())) for _ in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert found == [build.cached()] * 3
    assert calls() == ["install"]


def test_another_build_is_waited_for_a_bounded_time(go, monkeypatch):
    go()
    monkeypatch.setattr(build, "BUILD_TIMEOUT_S", 0.2)
    build.cached().parent.mkdir(parents=True)
    lock = build.cached().parent / "lock"
    with build._locked(lock), pytest.raises(build.BuildFailed, match=r"did not end within 0\.2 s"):
        build.ensure()


@pytest.fixture
def nothing_found_yet():
    flagd._found.cache_clear()
    yield
    flagd._found.cache_clear()


def test_without_flagd_and_go_tests_skip_loudly_and_fail_in_ci(go, nothing_found_yet, monkeypatch):
    monkeypatch.delenv("OTEL_DIAG_TEST_FLAGD", raising=False)
    monkeypatch.delenv("OTEL_DIAG_REQUIRE_FLAGD", raising=False)
    with pytest.raises(pytest.skip.Exception, match=r"NOT TESTED AGAINST THE REAL FLAGD.*no go on PATH"):
        flagd.binary()
    monkeypatch.setenv("OTEL_DIAG_REQUIRE_FLAGD", "1")
    with pytest.raises(pytest.fail.Exception, match="Put flagd on PATH"):
        flagd.binary()


def test_a_flagd_that_is_named_comes_before_one_on_the_path(go, nothing_found_yet, monkeypatch, tmp_path):
    go(install=': > "$GOBIN/flagd"')
    monkeypatch.delenv("OTEL_DIAG_TEST_FLAGD", raising=False)
    assert flagd.binary() == build.cached()
    flagd._found.cache_clear()
    on_path = tmp_path / "bin" / "flagd"
    on_path.write_text("#!/bin/sh\n")
    on_path.chmod(0o755)
    assert flagd.binary() == on_path
    flagd._found.cache_clear()
    monkeypatch.setenv("OTEL_DIAG_TEST_FLAGD", str(tmp_path / "calls"))
    assert flagd.binary() == tmp_path / "calls"
    flagd._found.cache_clear()
    monkeypatch.setenv("OTEL_DIAG_TEST_FLAGD", str(tmp_path / "missing"))
    monkeypatch.setenv("OTEL_DIAG_REQUIRE_FLAGD", "1")
    with pytest.raises(pytest.fail.Exception, match="is no file"):
        flagd.binary()


def test_a_flagd_that_does_not_start_shows_its_log(nothing_found_yet, monkeypatch, tmp_path):
    false = tmp_path / "flagd"
    false.write_text("#!/bin/sh\necho broken on purpose\nexit 3\n")
    false.chmod(0o755)
    monkeypatch.setenv("OTEL_DIAG_TEST_FLAGD", str(false))
    with (
        pytest.raises(AssertionError, match=r"flagd ended: .*broken on purpose"),
        flagd.Flagd(tmp_path / "x.json", tmp_path / "log"),
    ):
        pytest.fail("never reached")
    assert (tmp_path / "log").stat().st_size
