"""What a verification is to judge: which labs, which submissions, which part of them."""

import subprocess
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

from runner.cell import Cell, Expectation
from runner.checkout import find_root
from runner.errors import LabError
from runner.lab import Lab, all_labs, find_lab, my_folder

KIT = ("runner/", "infra/", "requirements", "pyproject.toml")


@dataclass(frozen=True)
class Plan:
    """What to prove, and under which strain."""

    names: Sequence[str] = ()
    only: Sequence[str] = ()
    repeat: int = 1
    is_busy: bool = False
    sample: int = 0  # how many wrong answers of each lab; 0 is all
    is_mine: bool = False
    shard: tuple[int, int] = (1, 1)
    changed: str | None = None
    jobs: int = 1
    seed: int | None = None
    output: Path | None = None
    backend: str = "auto"


def read_shard(text: str) -> tuple[int, int]:
    """`2/3` as (2, 3). Raises ValueError."""
    number, slash, count = text.partition("/")
    if not slash or not 1 <= int(number) <= int(count):
        raise ValueError(text)
    return int(number), int(count)


def choose_labs(plan: Plan) -> list[Lab]:
    """The labs that are named, or all; of these the changed ones, or those that the learner has begun. Raises LabError."""
    labs = list({lab.name: lab for lab in map(find_lab, plan.names)}.values()) or all_labs(find_root())
    if plan.changed is not None:
        changed = changed_files(plan.changed)
        if not any(file.startswith(KIT) for file in changed):
            labs = [lab for lab in labs if any(file.startswith(places_of(lab)) for file in changed)]
    return [lab for lab in labs if my_folder(lab).is_dir()] if plan.is_mine else labs


def places_of(lab: Lab) -> tuple[str, str]:
    """Where a lab lies, and the learner's version of it, from the root."""
    return f"labs/{lab.topic}/{lab.name}/", f"my/{lab.name}/"


def changed_files(revision: str) -> list[str]:
    """What differs from a revision of git, new files included, relative to the root. Raises LabError."""
    # -z: names as they are, where git would quote what is no ASCII.
    commands = (["diff", "-z", "--name-only", "--relative", revision, "--"], ["ls-files", "-z", "--others", "--exclude-standard"])
    found: list[str] = []
    for command in commands:
        try:
            done = subprocess.run(["git", *command], cwd=find_root(), capture_output=True, text=True, errors="replace", check=False)
        except OSError as error:
            raise LabError(f"git cannot be run: {error}", "--changed asks it what differs") from error
        if done.returncode:
            first = (done.stderr.strip().splitlines() or ["it said nothing"])[0]
            raise LabError(f"git does not know what has changed since {revision!r}: {first}", "is it a commit, and fetched? CI often has one only")
        found += filter(None, done.stdout.split("\0"))
    return found


def choose_cells(labs: Sequence[Lab], plan: Plan) -> list[Cell]:
    """Every submission as often as asked, of these the shard's. Raises LabError when that is nothing, unless nothing has changed."""
    cells = [Cell(lab, e, attempt) for attempt in range(1, plan.repeat + 1) for lab in labs for e in expectations(lab, plan)]
    if not cells and plan.changed is None:
        hint = "`make lab NAME=...` begins one" if plan.is_mine else "see `labs list`, and the folders under wrong/ for --only"
        raise LabError(f"there is nothing to verify{' under my/' if plan.is_mine else ''}", hint)
    number, count = plan.shard
    return cells[number - 1 :: count]


def expectations(lab: Lab, plan: Plan) -> list[Expectation]:
    """The starter, the solution and each wrong submission, as lab.toml declares them; of a sample's wrong ones those whose day it is.

    With `is_mine` only the learner's, which must pass.
    """
    if plan.is_mine:
        return [Expectation("mine", frozenset(), frozenset())]
    found = [Expectation("starter", frozenset(lab.starter.fails), frozenset(lab.starter.may_fail))]
    found.append(Expectation("solution", frozenset(), frozenset()))
    wrong = [Expectation(f"wrong/{bug}", frozenset(w.fails), frozenset(w.may_fail)) for bug, w in lab.wrong.items()]
    if 0 < plan.sample < len(wrong):
        first = datetime.now(UTC).toordinal() * plan.sample
        wrong = [wrong[(first + number) % len(wrong)] for number in range(plan.sample)]
    return [e for e in found + wrong if not plan.only or e.submission in plan.only]
