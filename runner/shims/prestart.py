"""Begins a Python program in two steps: its libraries first, the program at a word. Standard library only: it also runs in the app's container.

    python prestart.py GO FOLDER IMPORTS PROGRAM [ARGUMENT...]

Imports what IMPORTS names (with commas between), waits until the file GO is there, and becomes PROGRAM in FOLDER: the same `__main__`,
`sys.argv` and `sys.path` as if it had been started now. Where that cannot be had, it executes PROGRAM anew.
"""

import builtins
import contextlib
import importlib
import os
import shutil
import sys
import time
import types

POLL_S = 0.005


def main(go: str, folder: str, imports: str, *program: str) -> None:
    """Import, wait, become the program."""
    del sys.path[0]  # our own folder
    for name in filter(None, imports.split(",")):
        with contextlib.suppress(ImportError):  # the program may do without, or will say what it lacks
            importlib.import_module(name)
    while not os.path.exists(go):  # noqa: PTH110 - pathlib would cost its import
        time.sleep(POLL_S)  # the file comes by the engine's copy into a volume: nothing tells of it
    os.chdir(folder)
    script = find_script(program)
    if script is None or hides_a_module(folder):
        start_anew(program)
    else:
        run(script, program)


def find_script(program: tuple[str, ...]) -> str | None:
    """The Python file behind `python file.py ...` or behind a console script; None when there is none."""
    if program[0] == "python":
        return program[1] if os.path.isfile(program[1]) else None  # noqa: PTH113
    found = shutil.which(program[0])
    if found is None:
        return None
    with open(found, "rb") as file:  # noqa: PTH123
        first = file.readline()
    return found if first.startswith(b"#!") and b"python" in first else None


def hides_a_module(folder: str) -> bool:
    """Whether a file of the program's own has the name of something that is imported already, and would be taken in its place."""
    taken = {name.partition(".")[0] for name in sys.modules}
    return any(entry.partition(".")[0] in taken for entry in os.listdir(folder))  # noqa: PTH208


def start_anew(program: tuple[str, ...]) -> None:
    """Become the program by `exec`, with the environment that we had."""
    fifo = getattr(sys.modules.get("sitecustomize"), "fifo_path", None)
    if fifo is not None:
        os.environ["CLOCK_SKEW_FIFO"] = fifo  # the clock's shim hides it from the program
    try:
        os.execvp(program[0], program)  # noqa: S606 - that is what we are for
    except OSError as error:
        sys.exit(f"{program[0]}: {error.strerror}")


def run(script: str, program: tuple[str, ...]) -> None:
    """Run the file as `__main__`; what it raises is shown as Python shows it, without us."""
    is_file = program[0] == "python"
    sys.argv[:] = program[1:] if is_file else [script, *program[1:]]
    path = os.path.abspath(script)  # noqa: PTH100
    sys.path.insert(0, os.path.dirname(path))  # noqa: PTH120
    module = types.ModuleType("__main__")
    module.__dict__.update(__file__=path, __builtins__=builtins, __spec__=None)
    sys.modules["__main__"] = module
    try:
        with open(path, "rb") as file:  # noqa: PTH123
            code = compile(file.read(), path, "exec")
        exec(code, module.__dict__)  # noqa: S102 - the program itself
    except Exception as error:  # noqa: BLE001 - whatever a program may raise
        ours = error.__traceback__
        error.__traceback__ = ours and ours.tb_next
        sys.excepthook(type(error), error, error.__traceback__)
        sys.exit(1)


if __name__ == "__main__":
    main(*sys.argv[1:])
