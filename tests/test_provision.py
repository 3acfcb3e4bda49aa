"""The cache folder: whole or not there, one maker at a time, and errors that say what to do."""

import errno
import hashlib
import os
import subprocess
import sys
import threading
import zipfile
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path

import pytest

from runner.errors import MachineError
from runner.stack.download import explain_failure, fitting_tag, jar_name, platform_tags, unpack, verify
from runner.stack.provision import Cache, NoBuildError, default_root, read_pin

BROKEN = "0" * 64


@pytest.fixture
def cache(tmp_path: Path) -> Cache:
    return Cache(tmp_path / "cache")


@pytest.fixture
def index(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder of wheels that is all pip knows, as the settings of a user without network would say."""
    folder = tmp_path / "index"
    folder.mkdir()
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setenv("PIP_FIND_LINKS", str(folder))
    return folder


@pytest.fixture
def repository(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The user's own Maven repository, and no network."""
    folder = tmp_path / "m2"
    monkeypatch.setenv("M2_REPO", str(folder))
    for name in ("http_proxy", "https_proxy", "HTTP_PROXY", "HTTPS_PROXY"):
        monkeypatch.setenv(name, "http://127.0.0.1:9")  # discard: nothing listens
    return folder


def make_wheel(folder: Path, tag: str) -> str:
    """A wheel `tiny` 1.0 that carries one program; returns its SHA-256."""
    wheel = folder / f"tiny-1.0-py3-none-{tag}.whl"
    with zipfile.ZipFile(wheel, "w") as opened:
        program = zipfile.ZipInfo("tiny/bin/server")
        program.external_attr = 0o100755 << 16
        opened.writestr(program, "#!/bin/sh\n")
        opened.writestr("tiny-1.0.dist-info/METADATA", "Metadata-Version: 2.1\nName: tiny\nVersion: 1.0\n")
        opened.writestr("tiny-1.0.dist-info/WHEEL", f"Wheel-Version: 1.0\nRoot-Is-Purelib: false\nTag: py3-none-{tag}\n")
        opened.writestr("tiny-1.0.dist-info/RECORD", "")
    return hashlib.sha256(wheel.read_bytes()).hexdigest()


def make_jar(repository: Path, content: bytes) -> None:
    folder = repository / "org/tiny/tiny/1.0"
    folder.mkdir(parents=True)
    (folder / "tiny-1.0.jar").write_bytes(content)


def finished(cache: Cache) -> list[str]:
    return sorted(path.name for path in cache.root.iterdir() if path.name != ".making")


def unfinished(cache: Cache) -> list[str]:
    return [path.name for path in (cache.root / ".making").iterdir() if path.is_dir()]


# Building


def test_a_folder_is_made_once(cache: Cache) -> None:
    made = []

    def make(folder: Path) -> None:
        made.append(folder)
        (folder / "file").write_text("content")

    assert cache.build("thing-1", make) == cache.build("thing-1", make) == cache.root / "thing-1"
    assert len(made) == 1
    assert (cache.root / "thing-1" / "file").read_text() == "content"


def test_a_failed_build_leaves_nothing(cache: Cache) -> None:
    def fail(folder: Path) -> None:
        (folder / "half").touch()
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        cache.build("thing-1", fail)
    assert finished(cache) == unfinished(cache) == []


@pytest.mark.parametrize("key", ["", "../x", "a/b", ".making", "a b", "a~b"])
def test_a_key_is_a_plain_file_name(cache: Cache, key: str) -> None:
    with pytest.raises(ValueError, match="not a file name"):
        cache.build(key, lambda _: None)


BUILDER = """
import os, sys
from pathlib import Path
from runner.stack.provision import Cache
def make(folder):
    (folder / "maker").write_text(str(os.getpid()))
    print("making", flush=True)
    sys.stdin.read(1)
    (folder / "end").touch()
print((Cache(Path(sys.argv[1])).build("thing-1", make) / "maker").read_text())
"""


def start_builder(cache: Cache) -> "subprocess.Popen[str]":
    """A process that makes `thing-1` and ends at a byte, or at the end, of its input."""
    command = [sys.executable, "-c", BUILDER, str(cache.root)]
    pipe = subprocess.PIPE
    return subprocess.Popen(command, stdin=pipe, stdout=pipe, stderr=pipe, text=True, cwd=Path(__file__).parent.parent)


def await_making(builder: "subprocess.Popen[str]") -> None:
    assert builder.stdout
    assert builder.stdout.readline() == "making\n"


def test_of_two_processes_one_makes_and_the_other_waits(cache: Cache) -> None:
    with start_builder(cache) as first:
        await_making(first)
        with start_builder(cache) as second:
            assert second.stderr
            assert "waiting for another run" in second.stderr.readline()
            first_says, _ = first.communicate("x", timeout=20)
            second_says, _ = second.communicate("", timeout=20)
    assert first_says == second_says == f"{first.pid}\n"
    assert (cache.root / "thing-1/end").exists()
    assert unfinished(cache) == []


def test_what_a_killed_process_left_is_not_used_and_goes_with_the_next_build(cache: Cache) -> None:
    with start_builder(cache) as builder:
        await_making(builder)
        builder.kill()
    assert finished(cache) == []
    assert len(unfinished(cache)) == 1
    cache.build("another-1", lambda folder: (folder / "file").touch())
    assert unfinished(cache) == []
    assert finished(cache) == ["another-1"]


def test_a_build_leaves_alone_what_others_are_making(cache: Cache) -> None:
    with start_builder(cache) as builder:
        await_making(builder)
        cache.build("another-1", lambda folder: (folder / "file").touch())
        said, _ = builder.communicate("x", timeout=20)
    assert said == f"{builder.pid}\n"
    assert finished(cache) == ["another-1", "thing-1"]


# Errors of the machine


def test_a_full_disk_is_told(cache: Cache) -> None:
    def fill(_: Path) -> None:
        with Path("/dev/full").open("wb", buffering=0) as full:
            full.write(b"x")

    if not Path("/dev/full").exists():
        pytest.skip("no /dev/full here")
    with pytest.raises(MachineError, match=r"the disk of the cache folder .* is full") as raised:
        cache.build("thing-1", fill)
    assert "LABS_CACHE_DIR" in raised.value.hint
    assert finished(cache) == unfinished(cache) == []


@pytest.fixture
def locked(tmp_path: Path) -> Iterator[Path]:
    """A folder in which we may not write; root, who may, becomes another user meanwhile."""
    folder = tmp_path / "locked"
    folder.mkdir(mode=0o555)
    is_root = os.geteuid() == 0
    if is_root:
        os.seteuid(65534)
    yield folder
    if is_root:
        os.seteuid(0)


def test_a_read_only_folder_is_told(locked: Path) -> None:
    with pytest.raises(MachineError, match=r"the cache folder .*/locked/cache cannot be used \(Permission denied") as raised:
        Cache(locked / "cache").build("thing-1", lambda _: None)
    assert "LABS_CACHE_DIR" in raised.value.hint


def test_a_finished_folder_needs_no_right_to_write(cache: Cache) -> None:
    (cache.root / "thing-1").mkdir(parents=True)
    (cache.root / ".making").touch()  # where a lock would be impossible
    assert cache.build("thing-1", lambda _: None) == cache.root / "thing-1"
    with pytest.raises(MachineError, match="cannot be used"):
        cache.build("thing-2", lambda _: None)


def test_a_downloader_out_of_disk_is_told_as_a_full_disk() -> None:
    full = explain_failure("tiny", f"ERROR: Could not install: [Errno 28] {os.strerror(errno.ENOSPC)}\n", "hint")
    assert isinstance(full, OSError)
    assert full.errno == errno.ENOSPC
    assert str(explain_failure("tiny", "WARNING: x\nERROR: No network\n", "hint")) == "tiny could not be fetched: No network"
    assert "no reason" in str(explain_failure("tiny", "", "hint"))


# Wheels


def test_a_wheel_is_unpacked_with_its_run_bits(cache: Cache, index: Path, capsys: pytest.CaptureFixture[str]) -> None:
    tag = platform_tags()[0]
    pin = make_wheel(index, tag) + " 1500000"
    folder = cache.wheel("tiny", "1.0", {tag: pin})
    assert os.access(folder / "tiny/bin/server", os.X_OK)
    assert f"fetching tiny 1.0 (1.5 MB) once into {cache.root}\n" in capsys.readouterr().err
    assert cache.wheel("tiny", "1.0", {tag: pin}) == folder
    assert capsys.readouterr().err == ""
    assert finished(cache) == [folder.name]


@pytest.mark.parametrize("setting", ["PIP_CONSTRAINT", "PIP_REQUIREMENT"])
def test_a_users_settings_choose_no_other_wheel(cache: Cache, index: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, setting: str) -> None:
    (tmp_path / "wanted.txt").write_text("tiny==2\n")
    monkeypatch.setenv(setting, str(tmp_path / "wanted.txt"))
    tag = platform_tags()[0]
    assert cache.wheel("tiny", "1.0", {tag: make_wheel(index, tag)}).is_dir()


def test_a_wheel_with_another_sum_is_refused_and_removed(cache: Cache, index: Path) -> None:
    tag = platform_tags()[0]
    seen = make_wheel(index, tag)
    with pytest.raises(MachineError, match=r"tiny-1\.0-py3-none-.*\.whl") as raised:
        cache.wheel("tiny", "1.0", {tag: BROKEN})
    assert BROKEN in str(raised.value)
    assert seen in str(raised.value)
    assert raised.value.hint
    assert finished(cache) == unfinished(cache) == []


def test_a_wheel_that_pip_cannot_find_is_told(cache: Cache, index: Path) -> None:
    with pytest.raises(MachineError, match=r"tiny==1\.0 could not be fetched: No matching distribution") as raised:
        cache.wheel("tiny", "1.0", {platform_tags()[0]: BROKEN})
    assert "offline" in raised.value.hint
    assert finished(cache) == unfinished(cache) == []


def test_a_platform_without_a_wheel_is_told(cache: Cache) -> None:
    with pytest.raises(NoBuildError, match=r"tiny 1\.0 has no wheel for"):
        cache.wheel("tiny", "1.0", {"win_amd64": BROKEN})


def test_the_best_tag_is_taken() -> None:
    tags = platform_tags()
    assert fitting_tag(["win_amd64", tags[1], tags[0]]) == tags[0]
    assert fitting_tag([f"win_amd64.{tags[0]}", "any"]) == f"win_amd64.{tags[0]}"
    assert fitting_tag(["win_amd64", "any"]) == "any"
    assert fitting_tag(["win_amd64"]) is None


# Jars


def test_an_intact_jar_of_the_user_is_copied(cache: Cache, repository: Path) -> None:
    make_jar(repository, b"jar")
    folder = cache.maven(["org.tiny:tiny:1.0"], {"tiny-1.0.jar": hashlib.sha256(b"jar").hexdigest()})
    assert [path.name for path in folder.iterdir()] == ["tiny-1.0.jar"]
    assert (repository / "org/tiny/tiny/1.0/tiny-1.0.jar").read_bytes() == b"jar"


def test_a_broken_jar_of_the_user_is_neither_used_nor_removed(cache: Cache, repository: Path) -> None:
    make_jar(repository, b"cut off")
    with pytest.raises(MachineError, match=r"org\.tiny:tiny:1\.0 could not be fetched") as raised:
        cache.maven(["org.tiny:tiny:1.0"], {"tiny-1.0.jar": BROKEN})
    assert "offline" in raised.value.hint
    assert (repository / "org/tiny/tiny/1.0/tiny-1.0.jar").exists()
    assert finished(cache) == unfinished(cache) == []


@pytest.fixture
def mirror(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, repository: Path) -> Iterator[HTTPServer]:
    """A Maven mirror in the user's jgo settings, that promises 1000 bytes and cuts the connection after 3."""

    class Cut(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(200)
            self.send_header("Content-Length", "1000" if self.path.endswith("/cut-1.0.jar") else "3")
            self.end_headers()
            self.wfile.write(b"jar")

        def log_message(self, format: str, *args: object) -> None:  # noqa: A002 - http.server's name
            pass

    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    with HTTPServer(("127.0.0.1", 0), Cut) as server:
        monkeypatch.setenv("HOME", str(tmp_path))
        settings = tmp_path / ".config/jgo.conf"
        settings.parent.mkdir()
        settings.write_text(f"[repositories]\ncentral = http://127.0.0.1:{server.server_port}\n")
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        yield server
        server.shutdown()
        thread.join()


def test_a_jar_comes_from_the_users_mirror(cache: Cache, mirror: HTTPServer) -> None:
    folder = cache.maven(["org.tiny:tiny:1.0"], {"tiny-1.0.jar": hashlib.sha256(b"jar").hexdigest()})
    assert (folder / "tiny-1.0.jar").read_bytes() == b"jar"


def test_several_jars_come_together_or_not_at_all(cache: Cache, mirror: HTTPServer) -> None:
    good = hashlib.sha256(b"jar").hexdigest()
    artifacts = ["org.tiny:one:1.0", "org.tiny:two:1.0"]
    with pytest.raises(MachineError, match=r"two-1\.0\.jar is not the file"):
        cache.maven(artifacts, {"one-1.0.jar": good, "two-1.0.jar": BROKEN})
    assert finished(cache) == unfinished(cache) == []
    folder = cache.maven(artifacts, {"one-1.0.jar": good, "two-1.0.jar": good})
    assert sorted(path.name for path in folder.iterdir()) == ["one-1.0.jar", "two-1.0.jar"]


def test_a_download_that_is_cut_off_is_told(cache: Cache, mirror: HTTPServer) -> None:
    with pytest.raises(MachineError, match=r"org\.tiny:cut:1\.0 could not be fetched: .*3 bytes read"):
        cache.maven(["org.tiny:cut:1.0"], {"cut-1.0.jar": BROKEN})
    assert finished(cache) == unfinished(cache) == []


def test_jars_have_mavens_names() -> None:
    assert jar_name("g:a:1.0") == "a-1.0.jar"
    assert jar_name("g:a:1.0:natives") == "a-1.0-natives.jar"


# The small parts


def test_a_file_with_another_sum_is_deleted(tmp_path: Path) -> None:
    file = tmp_path / "file"
    file.write_bytes(b"content")
    verify(file, hashlib.sha256(b"content").hexdigest())
    with pytest.raises(MachineError, match="expected sha256 000"):
        verify(file, BROKEN)
    assert not file.exists()


def test_unpacking_stays_inside_the_folder_and_takes_what_is_wanted(tmp_path: Path) -> None:
    archive = tmp_path / "archive.zip"
    with zipfile.ZipFile(archive, "w") as opened:
        opened.writestr("deep/keep/file", "1")
        opened.writestr("deep/drop/file", "2")
        opened.writestr("deep/../../evil", "3")
        opened.writestr("other/keep/file", "4")
    unpack(archive, tmp_path / "out", "deep/", lambda name: not name.startswith("drop"))
    found = {str(path.relative_to(tmp_path)) for path in tmp_path.rglob("*") if path.is_file()}
    assert found == {"archive.zip", "out/keep/file", "out/evil"}


def test_a_pin_may_tell_the_size() -> None:
    assert read_pin("abc") == ("abc", 0)
    assert read_pin("abc 12") == ("abc", 12)


def test_the_cache_is_where_the_user_or_the_platform_says(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("LABS_CACHE_DIR", "~/labs")
    assert default_root() == tmp_path / "labs"
    monkeypatch.setenv("LABS_CACHE_DIR", "")
    monkeypatch.setattr(sys, "platform", "darwin")
    assert default_root() == tmp_path / "Library/Caches/backend-labs"
    monkeypatch.setattr(sys, "platform", "linux")
    monkeypatch.setenv("XDG_CACHE_HOME", "/var/x")
    assert default_root() == Path("/var/x/backend-labs")
    monkeypatch.setenv("XDG_CACHE_HOME", "relative")
    assert default_root() == tmp_path / ".cache/backend-labs"
