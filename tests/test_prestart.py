"""Programs that begin with their libraries and become themselves at a word: what they print must be what they print when started plainly."""

import os
import subprocess
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest

from runner.children import clean_environment
from runner.prestart import can_prestart, imports_of, prestart_argv
from runner.skew import SHIMS, skew_env

WITHIN_S = 30.0
HELPER = "WORD = 'helper'\n"
PROGRAMS = {
    "place": "import os, sys; print(__name__, __file__, sys.argv, sys.path, os.getcwd(), __builtins__.__name__)",
    "neighbour": "import helper; print(helper.WORD)",
    "error": "def fail():\n    raise ValueError('wrong')\n\n\nfail()\n",
    "nested-error": "try:\n    int('x')\nexcept ValueError as error:\n    raise KeyError('y') from error\n",
    "syntax-error": "def broken(:\n",
    "exit-code": "import sys; sys.exit(7)",
    "last-words": "import sys; sys.exit('no more')",
    "thread-that-stays": (
        "import threading, time\ndef late():\n    time.sleep(0.2)\n    print(NAME)\nNAME = 'late'\nthreading.Thread(target=late).start()\n"
    ),
    "at-exit": "import atexit\nclass Kept: pass\natexit.register(lambda: print(Kept.__name__))\n",
    "main-by-name": "import pickle\nclass Order: pass\nprint(type(pickle.loads(pickle.dumps(Order()))).__module__)\n",
    "spawned": (
        "import multiprocessing\ndef work(queue):\n    queue.put('spawned')\n"
        "if __name__ == '__main__':\n    context = multiprocessing.get_context('spawn')\n    queue = context.SimpleQueue()\n"
        "    child = context.Process(target=work, args=(queue,))\n    child.start()\n    print(queue.get())\n    child.join()\n"
    ),
    "hash-seed": "print(len({hash(str(n)) for n in range(100)}))",
}


def begin(folder: Path, argv: Sequence[str], env: dict[str, str]) -> "subprocess.Popen[str]":
    """A process with nothing of ours in its environment."""
    return subprocess.Popen(argv, cwd=folder, env=env, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)


def ahead(folder: Path, go: Path, argv: Sequence[str], imports: Sequence[str] = (), **env: str) -> "subprocess.Popen[str]":
    """The program, begun elsewhere and waiting for `go`."""
    home = go.parent / "home"
    home.mkdir(exist_ok=True)
    return begin(home, prestart_argv(str(SHIMS), str(go), str(folder), imports, argv), {**clean_environment(home), **env})


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    made = tmp_path / "submission"
    made.mkdir()
    (made / "helper.py").write_text(HELPER)
    return made


@pytest.mark.parametrize("code", PROGRAMS.values(), ids=PROGRAMS)
def test_it_is_the_program_as_if_started_plainly(folder: Path, tmp_path: Path, code: str) -> None:
    (folder / "app.py").write_text(code)
    argv = ["python", "app.py", "one", "--two"]
    go = tmp_path / "go"
    process = ahead(folder, go, argv, ["redis", "no_such_library"])
    go.touch()
    said, _ = process.communicate(timeout=WITHIN_S)
    plain = begin(folder, argv, clean_environment(tmp_path / "home"))
    expected, _ = plain.communicate(timeout=WITHIN_S)
    assert said == expected
    assert process.returncode == plain.returncode


def test_it_imports_and_waits(folder: Path, tmp_path: Path, eventually: Callable[..., Any]) -> None:
    (folder / "slow.py").write_text("open('imported', 'w').close()")
    (folder / "app.py").write_text("import sys; print('slow' in sys.modules)")
    go = tmp_path / "go"
    process = ahead(folder, go, ["python", "app.py"], ["slow"], PYTHONPATH=str(folder))
    eventually((tmp_path / "home" / "imported").exists, "the library's import")
    assert process.poll() is None
    (folder / "app.py").write_text("print('as it is at the word')")
    (folder / "slow.py").unlink()
    go.touch()
    assert process.communicate(timeout=WITHIN_S)[0] == "as it is at the word\n"


def test_a_console_script(folder: Path, tmp_path: Path) -> None:
    """Such as uvicorn: it serves nothing here, but must be found and told its arguments."""
    go = tmp_path / "go"
    go.touch()
    argv = ["uvicorn", "helper:WORD.missing", "--port", "0"]
    process = ahead(folder, go, argv, imports_of(folder, argv))
    said, _ = process.communicate(timeout=WITHIN_S)
    plain = begin(folder, argv, clean_environment(tmp_path / "home"))
    assert said == plain.communicate(timeout=WITHIN_S)[0]
    assert 'Attribute "WORD.missing" not found in module "helper"' in said
    assert process.returncode == plain.returncode


def test_a_program_that_is_no_python_is_executed(folder: Path, tmp_path: Path) -> None:
    go = tmp_path / "go"
    go.touch()
    process = ahead(folder, go, ["sh", "-c", "echo here; pwd"])
    assert process.communicate(timeout=WITHIN_S)[0] == f"here\n{folder}\n"
    process = ahead(folder, go, ["no-such-program"])
    assert process.communicate(timeout=WITHIN_S)[0] == "no-such-program: No such file or directory\n"
    assert process.returncode == 1


@pytest.mark.parametrize("own", ["redis.py", "redis"])
def test_a_file_of_its_own_comes_before_a_library_of_that_name(folder: Path, tmp_path: Path, own: str) -> None:
    file = folder / own if own.endswith(".py") else folder / own / "__init__.py"
    file.parent.mkdir(exist_ok=True)
    file.write_text("WHOSE = 'mine'")
    (folder / "app.py").write_text("import redis; print(redis.WHOSE)")
    go = tmp_path / "go"
    go.touch()
    process = ahead(folder, go, ["python", "app.py"], ["redis"])
    assert process.communicate(timeout=WITHIN_S)[0] == "mine\n"


def test_a_clock_can_be_shifted_in_one_that_is_executed_anew(folder: Path, tmp_path: Path) -> None:
    (folder / "redis.py").write_text("")
    (folder / "app.py").write_text("import os, sitecustomize; print(os.path.basename(sitecustomize.fifo_path), 'CLOCK_SKEW_FIFO' in os.environ)")
    go = tmp_path / "go"
    go.touch()
    process = ahead(folder, go, ["python", "app.py"], ["redis"], **skew_env(str(SHIMS)))
    assert process.communicate(timeout=WITHIN_S)[0] == "clock-skew.fifo False\n"


def test_two_have_hash_seeds_of_their_own(folder: Path, tmp_path: Path) -> None:
    (folder / "app.py").write_text("print(hash('a word'))")
    go = tmp_path / "go"
    go.touch()
    said = {ahead(folder, go, ["python", "app.py"]).communicate(timeout=WITHIN_S)[0] for _ in range(3)}
    assert len(said) == 3


@pytest.mark.parametrize(
    ("command", "can"),
    [
        (["python", "app.py", "--x"], True),
        (["uvicorn", "app:app"], True),
        (["python", "-m", "app"], False),
        (["python", "-X", "dev", "app.py"], False),
        (["python"], False),
        (["python3.12", "app.py"], False),
        (["./app"], False),
        (["nginx"], False),
    ],
)
def test_which_commands_can_be_begun(command: list[str], can: bool) -> None:
    assert can_prestart(command) == can


def test_the_imports_are_those_that_the_files_name(folder: Path) -> None:
    (folder / "app.py").write_text("import redis.asyncio as redis\nfrom fastapi import FastAPI\nimport secrets\ndef late():\n    import pymysql\n")
    assert imports_of(folder, ["python"]) == ["fastapi", "pymysql", "redis"]
    assert imports_of(folder, ["uvicorn"])[-4:] == ["uvicorn.protocols.websockets.auto", "fastapi", "pymysql", "redis"]
    os.mkfifo(folder / "pipe.py")
    (folder / "endless.py").symlink_to("/dev/zero")
    assert imports_of(folder, ["python"]) == ["fastapi", "pymysql", "redis"], "neither of the two is read"
    (folder / "patched.py").write_text("from gevent import monkey; monkey.patch_all()")
    assert imports_of(folder, ["uvicorn"]) == [], "which must be the first import"


def test_this_python_is_the_one_that_runs(folder: Path, tmp_path: Path) -> None:
    (folder / "app.py").write_text("import sys; print(sys.prefix)")
    go = tmp_path / "go"
    go.touch()
    assert ahead(folder, go, ["python", "app.py"]).communicate(timeout=WITHIN_S)[0] == f"{sys.prefix}\n"
