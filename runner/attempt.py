"""A learner's own try at a lab: begin it anew, and compare it with the solution when that gives nothing away any more."""

import difflib
import os
import shutil
import time
from collections.abc import Iterator
from pathlib import Path

from runner.checkout import find_root, shown_path
from runner.errors import LabError, MachineError
from runner.lab import Lab, copy_starter, my_folder
from runner.progress import Standing, read_progress
from runner.stack.cargo import LEFT_OUT


def reset(lab: Lab) -> str:
    """Put the starter in the place of the learner's version, which is kept under .labs/attic/. Raises MachineError."""
    mine = my_folder(lab)
    kept = ""
    if mine.exists():
        attic = find_root() / ".labs" / "attic" / f"{lab.name}-{time.strftime('%Y%m%d-%H%M%S')}"
        try:
            attic.parent.mkdir(parents=True, exist_ok=True)
            shutil.move(mine, attic)
        except OSError as error:
            raise MachineError(f"{shown_path(mine)} cannot be moved to {shown_path(attic)}: {error}", "nothing was changed") from error
        kept = f"Your version is kept as {shown_path(attic)}/. "
    try:
        copy_starter(lab)
    except MachineError as error:
        raise MachineError(f"{error}\n{kept}".rstrip(), error.hint) from error
    return f"{kept}{shown_path(mine)}/ is the starter again."


def show_solution(lab: Lab, *, anyway: bool) -> str:
    """What the solution does otherwise than the learner's version, as a diff. Raises LabError before a pass, unless `anyway`."""
    require_pass(lab, "solution", anyway=anyway)
    mine, solution = my_folder(lab), lab.folder / "solution"
    base = mine if mine.is_dir() else lab.folder / "starter"
    lines = [line for name in sorted(text_files(base) | text_files(solution)) for line in diff_file(base, solution, name)]
    head = f"From {shown_path(base)}/ (-) to {shown_path(solution)}/ (+), which is one right design of many.\n"
    return "\n".join([head, *lines]) if lines else f"{shown_path(base)}/ is the solution, letter for letter."


def show_debrief(lab: Lab, *, anyway: bool) -> str:
    """Why it works, and what it costs. Raises LabError before a pass, unless `anyway`, and when there is none."""
    require_pass(lab, "debrief", anyway=anyway)
    if not (text := lab.text_of("debrief.md").rstrip()):
        raise LabError(f"{shown_path(lab.folder)} has no debrief.md")
    return text


def require_pass(lab: Lab, what: str, *, anyway: bool) -> None:
    """Raises LabError when it would spoil the lab."""
    if not anyway and read_progress().get(lab.name, Standing()).state != "passed":
        hint = f"`make hint NAME={lab.name}` helps a step at a time; `labs {what} {lab.name} --show-anyway` shows it all the same"
        raise LabError(f"you have not passed {lab.name} yet, and its {what} would spoil it", hint)


def text_files(folder: Path) -> set[str]:
    """The files below a folder that are somebody's work, by their relative names. What goes while we look is left out."""
    found: set[str] = set()
    for where, folders, names in os.walk(folder):
        folders[:] = [name for name in folders if name not in LEFT_OUT]
        paths = (Path(where, name) for name in names if name not in LEFT_OUT)
        found |= {path.relative_to(folder).as_posix() for path in paths if path.is_file()}
    return found


def diff_file(old: Path, new: Path, name: str) -> Iterator[str]:
    """A unified diff of one file, which either side may lack; of one that is no text only that it differs."""
    before, after = (content_of(folder / name) for folder in (old, new))
    was, now = (f"{shown_path(folder)}/{name}" for folder in (old, new))
    if b"\0" not in before + after:
        yield from difflib.unified_diff(lines_of(before), lines_of(after), was, now, lineterm="")
    elif before != after:
        yield f"{was} and {now} differ, and are no text"


def content_of(path: Path) -> bytes:
    """What a file holds; nothing when there is no such file."""
    return path.read_bytes() if path.is_file() else b""


def lines_of(content: bytes) -> list[str]:
    """The lines of a text."""
    return content.decode(errors="replace").splitlines()
