"""The set-up: finding a Python, building .venv step by step, the lock files, and the Makefile in front of the command."""

import ast
import fcntl
import importlib.metadata
import importlib.util
import json
import os
import re
import shutil
import subprocess
import sys
import tomllib
from collections.abc import Callable, Iterator
from pathlib import Path
from types import ModuleType

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

ROOT = Path(__file__).parent.parent
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())
RUNTIME = [Requirement(text) for text in PROJECT["project"]["dependencies"]]
GROUPS = {name: [Requirement(text) for text in texts] for name, texts in PROJECT["dependency-groups"].items()}
LOCKS = ("requirements.lock", "requirements-dev.lock", "requirements-browser.lock", "requirements-docs.lock")
SETTINGS = ("NAME", "SUBMISSION", "SEED", "KEEP", "BACKEND", "REPEAT", "BUSY", "JOBS", "SAMPLE", "LOCAL", "FIX", "PYTHON")

# Runs infra/setup.sh's probe as another Python would see it, and shows what it was asked to run instead of running it.
FAKE_PYTHON = """#!{real}
import sys
sys.version_info = {version} + ("final", 0)
class Hide:
    def find_spec(self, name, path=None, target=None):
        if name in {missing}:
            raise ModuleNotFoundError(f"No module named {{name!r}}")
sys.meta_path.insert(0, Hide())
if sys.argv[1] == "-c":
    exec(sys.argv[2])
else:
    print("started", {name!r}, *sys.argv[1:])
"""

Script = Callable[..., Path]
Make = Callable[..., subprocess.CompletedProcess[str]]


@pytest.fixture
def checkout(tmp_path: Path) -> Path:
    """What infra/setup.sh reads, in a folder of its own whose name has a blank, with a `bin` that has no Python yet."""
    root = tmp_path / "my checkout"
    (root / "infra").mkdir(parents=True)
    for name in ("Makefile", "pyproject.toml", "requirements.lock", "requirements-dev.lock", "infra/setup.sh", "infra/setup.py"):
        shutil.copy(ROOT / name, root / name)
    (root / "bin").mkdir()
    for tool in ("sh", "cat", "cksum", "dirname", "sed"):
        found = shutil.which(tool)
        assert found, tool
        (root / "bin" / tool).symlink_to(found)
    return root


@pytest.fixture
def fake_python(checkout: Path) -> Script:
    """Puts a Python of a wanted version on the checkout's PATH."""

    def write(name: str, version: tuple[int, int, int], missing: tuple[str, ...] = ()) -> Path:
        file = checkout / "bin" / name
        file.write_text(FAKE_PYTHON.format(real=sys.executable, name=name, version=version, missing=missing))
        file.chmod(0o755)
        return file

    return write


def run_setup(checkout: Path, *parts: str, **settings: str) -> subprocess.CompletedProcess[str]:
    environment = {"PATH": str(checkout / "bin"), **settings}
    return subprocess.run(["sh", "infra/setup.sh", *parts], cwd=checkout, env=environment, capture_output=True, text=True, check=False)


def test_no_python_at_all_is_said(checkout: Path) -> None:
    done = run_setup(checkout)
    assert done.returncode == 1
    assert "needs 3.11 or newer" in done.stderr
    assert "seen: no python3 on PATH" in done.stderr
    assert "PYTHON=" in done.stderr


def test_a_python_too_old_is_named_with_its_version(checkout: Path, fake_python: Script) -> None:
    fake_python("python3", (3, 9, 2))
    fake_python("python", (2, 7, 18))
    done = run_setup(checkout)
    assert done.returncode == 1
    assert "python3: 3.9.2, too old" in done.stderr
    assert "python: 2.7.18, too old" in done.stderr
    assert "venv" not in done.stderr


def test_a_missing_ensurepip_is_said_with_the_package_that_has_it(checkout: Path, fake_python: Script) -> None:
    fake_python("python3", (3, 12, 3), missing=("ensurepip",))
    done = run_setup(checkout)
    assert done.returncode == 1
    assert "python3: 3.12.3, but it has no module named 'ensurepip'" in done.stderr
    assert "apt-get install python3.12-venv" in done.stderr
    assert "python3-venv" in done.stderr


def test_a_python_that_does_not_start_shows_why_and_the_next_is_tried(checkout: Path, fake_python: Script) -> None:
    broken = checkout / "bin" / "python3.13"
    broken.write_text("#!/bin/sh\necho 'python3.13: command not found' >&2\nexit 127\n")
    broken.chmod(0o755)
    done = run_setup(checkout)
    assert "python3.13: python3.13: command not found" in done.stderr
    fake_python("python3.11", (3, 11, 4))
    assert run_setup(checkout).stdout.startswith("started python3.11 -I infra/setup.py kit")


def test_the_newest_tested_python_is_taken(checkout: Path, fake_python: Script) -> None:
    fake_python("python3", (3, 15, 0))
    fake_python("python3.12", (3, 12, 1))
    fake_python("python3.14", (3, 14, 0), missing=("ensurepip",))
    assert run_setup(checkout).stdout.startswith("started python3.12 ")


def test_a_python_that_was_asked_for_is_taken_or_nothing(checkout: Path, fake_python: Script) -> None:
    fake_python("python3.12", (3, 12, 1))
    old = fake_python("old python", (3, 8, 0))
    assert run_setup(checkout, PYTHON="python3.12").stdout.startswith("started python3.12 ")
    assert f"{old}: 3.8.0, too old" in run_setup(checkout, PYTHON=str(old)).stderr
    assert "seen: nowhere: not found" in run_setup(checkout, PYTHON="nowhere").stderr


def test_the_python_that_the_venv_was_made_with_is_kept(checkout: Path, fake_python: Script) -> None:
    chosen = fake_python("chosen python", (3, 11, 2))
    fake_python("python3.14", (3, 14, 0))
    (checkout / ".venv").mkdir()
    (checkout / ".venv" / "pyvenv.cfg").write_text(f"home = {chosen.parent}\nversion = 3.11.2\nexecutable = {chosen}\n")
    assert run_setup(checkout, "dev").stdout.startswith("started chosen python -I infra/setup.py dev")
    chosen.unlink()
    assert run_setup(checkout, "dev").stdout.startswith("started python3.14 ")


def test_a_part_that_it_does_not_have_is_told(checkout: Path, fake_python: Script) -> None:
    fake_python("python3", (3, 12, 0))
    assert run_setup(checkout, "docs").stdout.startswith("started python3 -I infra/setup.py docs")
    done = run_setup(checkout, "doc")
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr == "set-up: it has no part called doc\n\nhint: sh infra/setup.sh [kit|dev|browser|docs]\n"


def test_a_ready_venv_costs_nothing_until_its_folder_or_lock_changes(checkout: Path, fake_python: Script) -> None:
    fake_python("python3", (3, 12, 0))
    key = run_setup(checkout).stdout.partition(" kit ")[2].rstrip("\n")
    assert str(checkout) in key
    (checkout / ".venv" / "bin").mkdir(parents=True)
    (checkout / ".venv" / "bin" / "python").symlink_to(sys.executable)
    (checkout / ".venv" / ".ready-kit").write_text(key)
    done = run_setup(checkout)
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")

    moved = checkout.rename(checkout.with_name("moved"))
    assert run_setup(moved).stdout.startswith("started")
    checkout = moved.rename(checkout)
    (checkout / ".venv" / "bin" / "python").unlink()
    assert run_setup(checkout).stdout.startswith("started"), "its Python is gone"
    (checkout / ".venv" / "bin" / "python").symlink_to(sys.executable)
    (checkout / "requirements.lock").write_text("")
    assert run_setup(checkout).stdout.startswith("started")


@pytest.fixture
def setup(checkout: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[ModuleType]:
    """infra/setup.py of the checkout, as a module."""
    spec = importlib.util.spec_from_file_location("setup_of_checkout", checkout / "infra" / "setup.py")
    assert spec
    assert spec.loader
    module = importlib.util.module_from_spec(spec)
    monkeypatch.setitem(sys.modules, spec.name, module)
    spec.loader.exec_module(module)
    module.STATE.mkdir()
    return module


class Steps:
    """Stands in for the commands of the steps, and remembers their names."""

    def __init__(self, setup: ModuleType) -> None:
        self.setup = setup
        self.names: list[str] = []
        self.fails_at = ""

    def run(self, step: object, lock: int) -> None:
        name = step.name  # type: ignore[attr-defined]
        self.names.append(name)
        (self.setup.VENV / "bin").mkdir(parents=True, exist_ok=True)
        (self.setup.VENV / "bin" / "python").touch()
        if name == self.fails_at:
            raise self.setup.SetupError(name)

    def build(self, part: str = "kit") -> list[str]:
        self.names = []
        assert self.setup.main(part, "the key") == (1 if self.fails_at else 0)
        return self.names


@pytest.fixture
def steps(setup: ModuleType, monkeypatch: pytest.MonkeyPatch) -> Steps:
    steps = Steps(setup)
    monkeypatch.setattr(setup, "run_step", steps.run)
    return steps


def test_each_step_is_done_once(steps: Steps) -> None:
    assert steps.build() == ["environment", "packages", "the kit itself"]
    assert (steps.setup.VENV / ".ready-kit").read_text() == "the key"
    assert steps.build() == []
    assert steps.build("dev") == ["tools for tests and lint"]
    assert (steps.setup.VENV / ".ready-dev").read_text() == "the key"
    assert steps.build("dev") == []


def test_a_half_made_venv_is_made_anew(steps: Steps) -> None:
    steps.fails_at = "packages"
    assert steps.build() == ["environment", "packages"]
    assert not (steps.setup.VENV / ".ready-kit").exists()
    (steps.setup.VENV / "half a package").touch()
    steps.fails_at = ""
    assert steps.build() == ["environment", "packages", "the kit itself"]
    assert not (steps.setup.VENV / "half a package").exists()


def test_a_venv_whose_python_went_away_is_made_anew(steps: Steps) -> None:
    steps.build()
    python = steps.setup.VENV / "bin" / "python"
    python.unlink()
    python.symlink_to("/nowhere/python")
    (steps.setup.VENV / "bin").rename(steps.setup.VENV / "bin of old")
    assert steps.build() == ["environment", "packages", "the kit itself"]


def test_only_what_changed_is_done_again(steps: Steps, checkout: Path) -> None:
    steps.build("dev")
    with (checkout / "requirements.lock").open("a") as lock:
        lock.write("# a comment\n")
    assert steps.build("dev") == []
    with (checkout / "pyproject.toml").open("a") as project:
        project.write("[tool.x]\n")
    assert steps.build("dev") == ["the kit itself"]
    with (checkout / "requirements-dev.lock").open("a") as lock:
        lock.write("another==1\n")
    assert steps.build("dev") == ["tools for tests and lint"]
    with (checkout / "requirements.lock").open("a") as lock:
        lock.write("another==1\n")
    assert steps.build() == ["environment", "packages", "the kit itself"]
    assert steps.build("dev") == ["tools for tests and lint"]


@pytest.mark.parametrize(
    ("output", "hint"),
    [
        (
            "Retrying after 'NewConnectionError: Failed to establish'\\nERROR: No matching distribution",
            "no package index was reached",
        ),
        ("ERROR: Could not find a version that satisfies gevent", "no wheel for this machine"),
        ("ERROR: THESE PACKAGES DO NOT MATCH THE HASHES", "not the one that was pinned"),
        ("OSError: [Errno 28] No space left on device", "free some disk space"),
        ("Segmentation fault", "read the log"),
    ],
)
def test_a_step_that_fails_shows_its_last_lines_and_a_hint(setup: ModuleType, output: str, hint: str) -> None:
    setup.VENV.mkdir()
    command = [sys.executable, "-c", f"print('first' + chr(10) * 20 + 'last'); print({output!r}); raise SystemExit(7)"]
    with setup.sole_setup() as lock, pytest.raises(setup.SetupError) as caught:
        setup.run_step(setup.Step("packages", command, []), lock)
    message = str(caught.value)
    assert message.startswith("packages: exit code 7\n")
    assert "  | last" in message
    assert "first" not in message
    assert hint in message.partition("hint: ")[2]
    assert "first" in setup.LOG.read_text()


def test_a_users_pip_settings_do_not_lead_packages_elsewhere(setup: ModuleType, monkeypatch: pytest.MonkeyPatch) -> None:
    settings = {"PIP_TARGET": "/elsewhere", "PIP_REQUIREMENT": "/elsewhere", "PYTHONPATH": "/elsewhere", "PIP_USER": "1", "PIP_INDEX_URL": "mine"}
    for name, value in settings.items():
        monkeypatch.setenv(name, value)
    show = f"import os; print({{n: v for n, v in os.environ.items() if n in {list(settings)}}})"
    with setup.sole_setup() as lock:
        setup.run_step(setup.Step("packages", [sys.executable, "-c", show], []), lock)
    assert ast.literal_eval(setup.LOG.read_text()) == {"PIP_USER": "0", "PIP_INDEX_URL": "mine"}


def test_a_second_setup_waits_for_the_first(setup: ModuleType, checkout: Path) -> None:
    code = "import setup\nwith setup.sole_setup(): print('mine', flush=True)"
    with (setup.STATE / "setup.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        environment = {**os.environ, "PYTHONPATH": str(checkout / "infra")}
        with subprocess.Popen([sys.executable, "-c", code], env=environment, stdout=subprocess.PIPE, text=True) as second:
            assert second.stdout
            assert "waiting for it" in second.stdout.readline()
            fcntl.flock(lock, fcntl.LOCK_UN)
            assert second.stdout.read() == "mine\n"
    assert second.returncode == 0


def test_a_checkout_that_cannot_be_written_is_said(setup: ModuleType, capsys: pytest.CaptureFixture[str]) -> None:
    setup.STATE.rmdir()
    setup.STATE.write_text("a file where the folder should be")
    assert setup.main("kit", "key") == 1
    assert ".labs" in capsys.readouterr().err


# The Makefile, in front of a `labs` that only shows what it was given.


@pytest.fixture
def make(checkout: Path) -> Make:
    (checkout / "infra" / "setup.sh").write_text("exit 0\n")
    labs = checkout / ".venv" / "bin" / "labs"
    labs.parent.mkdir(parents=True)
    labs.write_text(f"#!{sys.executable}\nimport json, sys\nprint(json.dumps(sys.argv[1:]))\nraise SystemExit(sys.argv[-1] == 'failing')\n")
    labs.chmod(0o755)
    for name in ("topic/one-lab", "topic/other-lab"):
        (checkout / "labs" / name).mkdir(parents=True)
        (checkout / "labs" / name / "lab.toml").touch()
    environment = {name: value for name, value in os.environ.items() if name not in (*SETTINGS, "MAKEFLAGS", "MAKELEVEL", "MFLAGS")}

    def run(*arguments: str, **settings: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(["make", *arguments], cwd=checkout, env=environment | settings, capture_output=True, text=True, check=False)

    return run


@pytest.mark.parametrize(
    ("arguments", "given"),
    [
        ("list", "list"),
        ("doctor", "doctor"),
        ("doctor FIX=1", "doctor --fix"),
        ("tour NAME=x", "tour x"),
        ("hint NAME=x", "hint x"),
        ("new NAME=topic/x", "new topic/x"),
        ("load NAME=x SUBMISSION=solution", "load --submission=solution x"),
        ("lab NAME=x", "run --demonstrate x"),
        ("lab NAME=x SUBMISSION=wrong/y SEED=7 BACKEND=b", "run --demonstrate --submission=wrong/y --seed=7 --backend=b x"),
        ("lab NAME=x KEEP=1", "run --demonstrate --keep x"),
        ("lab NAME=x KEEP=0", "run --demonstrate x"),
        ("ui BACKEND=embedded", "ui --backend=embedded"),
        ("debug NAME=x SUBMISSION=solution", "run --debug-app --backend=embedded --submission=solution x"),
        ("verify", "verify"),
        ("verify BUSY=no", "verify"),
        ("verify NAME=x REPEAT=3 BUSY=1 JOBS=2 SEED=7", "verify --busy --repeat=3 --jobs=2 --seed=7 x"),
    ],
)  # fmt: skip
def test_make_passes_settings_on_as_options(make: Make, arguments: str, given: str) -> None:
    done = make(*arguments.split())
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout) == given.split()


HOSTILE = (
    "x; touch pwned",
    "$(touch pwned)",
    "`touch pwned`",
    "$(shell touch pwned)",
    "a' ; touch pwned; '",
    'a" ; touch pwned; "',
)


@pytest.mark.parametrize("text", [*HOSTILE, "*", "$HOME", "$$", "a b", "\\", "é"])
def test_whatever_a_setting_holds_is_data(make: Make, checkout: Path, text: str) -> None:
    done = make("lab", f"NAME={text}", f"SUBMISSION={text}")
    assert json.loads(done.stdout) == ["run", "--demonstrate", f"--submission={text}", text]
    make("lab", "verify", *(f"{setting}={text}" for setting in SETTINGS))
    assert not (checkout / "pwned").exists()


def test_a_setting_that_is_misspelled_is_said(make: Make) -> None:
    done = make("lab", "NAME=x", "SUBMISION=solution")
    assert (done.returncode, done.stdout) == (2, "")
    assert "there is no setting SUBMISION; there are NAME SUBMISSION " in done.stderr


def test_make_fails_when_labs_does(make: Make) -> None:
    assert make("lab", "NAME=failing").returncode == 2


@pytest.mark.parametrize("target", ["lab", "hint", "load", "debug"])
def test_a_missing_name_is_said_with_the_names(make: Make, target: str) -> None:
    done = make(target, NAME="what-WSL-exports")
    assert done.returncode == 2
    assert f"make {target} NAME=" in done.stderr
    assert re.findall(r"^  (\S+)$", done.stderr, re.MULTILINE) == ["one-lab", "other-lab"]
    assert done.stdout == ""


def test_a_new_lab_needs_a_name(make: Make) -> None:
    done = make("new")
    assert done.returncode == 2
    assert "make new NAME=topic/name" in done.stderr


def test_help_is_the_default_and_names_every_target_and_setting(make: Make) -> None:
    done = make()
    makefile = (ROOT / "Makefile").read_text()
    targets = set(re.findall(r"^([a-z-]+):(?!=)", makefile, re.MULTILINE))
    targets -= {"setup", "setup-dev", "setup-browser", "setup-docs", "named", "named-new"}
    assert {"help", "tour", "lab", "hint", "load", "verify", "list", "new", "doctor", "test", "lint", "clean"} <= targets
    assert set(re.findall(r"^  make ([\w-]+) +\S", done.stdout, re.MULTILINE)) == targets
    assert set(re.findall(r"^  ([A-Z]+)\b", done.stdout, re.MULTILINE)) == set(SETTINGS)
    phony = re.search(r"^\.PHONY: (.*)$", makefile, re.MULTILINE)
    assert phony
    assert targets <= set(phony[1].split())


def test_clean_keeps_what_is_the_learners(make: Make, checkout: Path) -> None:
    for kept in ("my/x/app.py", ".labs/progress.json"):
        (checkout / kept).parent.mkdir(parents=True)
        (checkout / kept).touch()
    for folder in ("runner", "tests", ".labs/runs/1"):
        (checkout / folder / "__pycache__").mkdir(parents=True)
    assert make("clean").returncode == 0
    assert sorted(str(p.relative_to(checkout)) for p in checkout.rglob("*") if p.name in ("app.py", "progress.json")) == [
        ".labs/progress.json",
        "my/x/app.py",
    ]
    assert not (checkout / ".venv").exists()
    assert not (checkout / ".labs" / "runs").exists()
    assert not list(checkout.rglob("__pycache__"))


# The lock files and what is said of them.


@pytest.mark.parametrize("name", LOCKS)
def test_every_package_is_pinned_with_hashes_and_no_host_is_named(name: str) -> None:
    text = (ROOT / name).read_text()
    assert "://" not in text
    assert not re.search(r"--(index|extra-index|find-links|trusted)", text)
    entries = [entry for entry in re.split(r"\n(?=[a-z])", re.sub(r"^ *#.*\n", "", text, flags=re.MULTILINE)) if entry]
    for entry in entries:
        assert re.match(r"[a-z0-9-]+==[^ ;]+( ; [^\\]+)? \\\n( +--hash=sha256:[0-9a-f]{64}( \\)?\n?)+$", entry), entry


def locked(name: str) -> set[tuple[str, str]]:
    """Names and versions; one name may have two, for different machines."""
    return set(re.findall(r"^(\S+)==(\S+)", (ROOT / name).read_text(), re.MULTILINE))


@pytest.mark.parametrize(
    ("name", "wanted"), list(zip(LOCKS, (RUNTIME + GROUPS["build"], GROUPS["dev"], GROUPS["browser"], GROUPS["docs"]), strict=True))
)
def test_the_lock_holds_what_the_project_asks_for(name: str, wanted: list[Requirement]) -> None:
    for requirement in wanted:
        versions = [version for package, version in locked(name) if package == canonicalize_name(requirement.name)]
        assert any(requirement.specifier.contains(version) for version in versions), requirement


@pytest.mark.parametrize("name", LOCKS[1:])
def test_a_lock_agrees_with_the_one_of_the_kit(name: str) -> None:
    runtime, more = locked(LOCKS[0]), locked(name)
    shared = {package for package, _ in runtime} & {package for package, _ in more}
    assert {pin for pin in more if pin[0] in shared} <= runtime


def test_the_build_backend_is_the_locked_one() -> None:
    assert PROJECT["build-system"]["requires"] == PROJECT["dependency-groups"]["build"]


def test_every_direct_dependency_is_explained() -> None:
    explained = set(re.findall(r"\*\*([\w-]+)\*\*", (ROOT / "docs" / "dependencies.md").read_text()))
    assert {requirement.name for requirement in [*RUNTIME, *(r for group in GROUPS.values() for r in group)]} <= explained


def test_what_is_imported_is_asked_for_and_what_is_asked_for_is_imported() -> None:
    owners = importlib.metadata.packages_distributions()
    files = [f for folder in ("runner", "labs", "tests") for f in (ROOT / folder).rglob("*.py") if "my" not in f.parts]
    trees = [ast.parse(file.read_text()) for file in files]
    nodes = [node for tree in trees for node in ast.walk(tree)]
    names = {alias.name for node in nodes if isinstance(node, ast.Import) for alias in node.names}
    names |= {node.module for node in nodes if isinstance(node, ast.ImportFrom) and node.module and not node.level}
    imported = {canonicalize_name(owner) for name in names for owner in owners.get(name.partition(".")[0], [])} - {
        "backend-labs",
        "pydantic-core",
    }
    asked = {canonicalize_name(requirement.name) for requirement in [*RUNTIME, *GROUPS["dev"]]}
    elsewhere = {canonicalize_name(requirement.name) for requirement in [*GROUPS["browser"], *GROUPS["docs"]]}  # may be installed, or not
    programs = {"debugpy", "httptools", "mypy", "ruff"}  # taken up by uvicorn when it is there; run, not imported
    assert imported - asked - elsewhere == set()
    assert {name for name in asked - imported if not name.startswith("types-")} == programs
