"""Finds labs and submissions, and reads lab.toml and a submission's app.toml."""

import os
import re
import shutil
import tomllib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase
from functools import partial
from pathlib import Path
from typing import Literal, TypeVar

from pydantic import ValidationError

from runner.checkout import all_lab_folders, find_root, shown_path
from runner.complaint import describe, describe_syntax, did_you_mean
from runner.errors import LabError, MachineError
from runner.tables import KEBAB, OWN_TABLES, TABLES, AppTable, LabTable, OwnTable, Table

OWN_FILE = "app.toml"
OUT = "{out}"  # in a command: the folder that a build fills
HOME = "{home}"  # in a command: the folder in which a process may write
FILLED = "{filled}"  # in a command: the submission, with its templates filled in

AnyTable = TypeVar("AnyTable", bound=Table)

__all__ = [
    "Lab",
    "Submission",
    "all_lab_folders",
    "all_labs",
    "app_of",
    "check_submission",
    "copy_starter",
    "files_of",
    "find_lab",
    "find_root",
    "my_folder",
    "read_lab",
    "resolve_submission",
    "shown_path",
]


class Lab(LabTable):
    """A lab: its folder and what lab.toml says of it."""

    folder: Path

    @property
    def name(self) -> str:
        """The folder's name."""
        return self.folder.name

    @property
    def topic(self) -> str:
        """The topic that it lies under."""
        return self.folder.parent.name

    @property
    def programs(self) -> list[str]:
        """What the app's commands run."""
        return [self.app.command[0], *(extra.command[0] for extra in self.app.extra.values())]

    def schema_of(self, service: str) -> str:
        """What the app finds in a service: SQL for mysql, a topic a line for kafka, nothing else."""
        if service == "mysql" and self.mysql:
            return (self.folder / self.mysql.schema_file).read_text(encoding="utf-8")
        return "\n".join(self.kafka.topics) if service == "kafka" and self.kafka else ""

    def text_of(self, name: str) -> str:
        """One of its texts, such as hints.md; "" when it has none. Raises LabError when it cannot be read."""
        path = self.folder / name
        try:
            return path.read_text(encoding="utf-8") if path.is_file() else ""
        except (OSError, UnicodeDecodeError) as error:
            raise LabError(f"{shown_path(path)} cannot be read: {error}") from error


def known_keys(models: Mapping[str, type[Table]], tables: Sequence[str]) -> list[str]:
    """The keys that a table of such a file may have; none for one that we do not know."""
    model = next((m for pattern, m in models.items() if fnmatchcase(".".join(tables), pattern)), None)
    return [field.alias or name for name, field in model.model_fields.items()] if model else []


def read_table(path: Path, whole: type[AnyTable], models: Mapping[str, type[Table]], problems: Sequence[str], context: object, hint: str) -> AnyTable:
    """Read and check a file. Raises LabError that lists every problem with its line, after those known before."""
    found = list(problems)
    table = None
    try:
        text = path.read_text(encoding="utf-8")
        table = whole.model_validate(tomllib.loads(text), context=context)
    except (OSError, UnicodeDecodeError) as error:
        raise LabError(f"{shown_path(path)} cannot be read: {error}") from error
    except tomllib.TOMLDecodeError as error:
        found.append(describe_syntax(text, error))
    except ValidationError as error:
        found += [describe(text, problem, partial(known_keys, models)) for problem in error.errors()]
    if table is None or found:
        count = f"{len(found)} problem{'s' * (len(found) > 1)}"
        lines = "\n".join(f"  {problem}" for problem in found)
        raise LabError(f"{shown_path(path)} has {count}\n{lines}", hint)
    return table


def read_lab(folder: Path) -> Lab:
    """Read and check lab.toml. Raises LabError that lists every problem with its line."""
    problems = [] if KEBAB.fullmatch(folder.name) else [f"the folder's name {folder.name!r} is not kebab-case"]
    table = read_table(folder / "lab.toml", LabTable, TABLES, problems, folder, "docs/design.md shows what a lab.toml holds")
    return Lab.model_construct(folder=folder, **dict(table))


def all_labs(root: Path) -> list[Lab]:
    """Every lab, in the roadmap's order. Raises LabError when one is broken."""
    return [read_lab(folder) for folder in all_lab_folders(root)]


def find_lab(name: str) -> Lab:
    """The lab called `name`, `topic/name` or `labs/topic/name`. Raises LabError with the nearest names."""
    wanted = name.strip("/").removeprefix("labs/")
    folders = all_lab_folders(find_root())
    found = [folder for folder in folders if wanted in (folder.name, f"{folder.parent.name}/{folder.name}")]
    if len(found) > 1:
        raise LabError(f"{name!r} is the name of {', '.join(map(shown_path, found))}", "names must be unique: rename all but one")
    if found:
        return read_lab(found[0])
    names = [folder.name for folder in folders]
    raise LabError(f"no lab is called {name!r}{did_you_mean(wanted.rpartition('/')[2], names)}", "`make list` shows all labs")


@dataclass(frozen=True)
class Submission:
    """A folder with the app's code."""

    name: str
    path: Path
    kind: Literal["starter", "solution", "wrong", "mine", "path"]


def my_folder(lab: Lab) -> Path:
    """Where the learner's own submission lies."""
    return find_root() / "my" / lab.name


def resolve_submission(lab: Lab, text: str | None = None) -> Submission:
    """`starter`, `solution`, `wrong/<bug>`, `mine` (the default) or a path. Raises LabError when nothing there could run."""
    text = (text or "mine").rstrip("/") or "/"
    submission = name_submission(lab, text)
    known = ["starter", "solution", *(f"wrong/{bug}" for bug in lab.wrong), "mine"]
    hint = f"a submission is {', '.join(known)} or the path of a folder"
    if submission.path.is_file():
        raise LabError(f"the submission {text!r} is a file", f"give its folder: {shown_path(submission.path.parent)}")
    if not submission.path.is_dir():
        if submission.kind == "mine":
            hint = f"`make lab NAME={lab.name}` copies the starter there"
        near = did_you_mean(text, known)
        raise LabError(f"the submission {text!r} does not exist: there is no folder {shown_path(submission.path)}{near}", hint)
    check_submission(lab, submission)
    return submission


def name_submission(lab: Lab, text: str) -> Submission:
    """What `text` means; a path into the lab or my/ counts as what lies there. The folder need not exist."""
    path, base = real_path(text), real_path(lab.folder)
    if text == "mine" or path == real_path(my_folder(lab)):
        return Submission("mine", my_folder(lab), "mine")
    inside = path.relative_to(base).as_posix() if path.is_relative_to(base) else text
    if inside in ("starter", "solution"):
        return Submission(inside, lab.folder / inside, "starter" if inside == "starter" else "solution")
    if inside.startswith("wrong/") and inside.count("/") == 1:
        return Submission(inside, lab.folder / inside, "wrong")
    return Submission(text, path, "path")


def real_path(path: str | Path) -> Path:
    """Where a path leads, as far as it leads anywhere. (For a link to itself, or ~nobody, what pathlib has raises RuntimeError.)"""
    return Path(os.path.realpath(os.path.expanduser(path)))  # noqa: PTH111


def check_submission(lab: Lab, submission: Submission) -> None:
    """Raises LabError when the folder is empty, its app.toml is wrong, or it has not the files that the commands run."""
    path = submission.path
    if not any(path.iterdir()):
        raise LabError(f"the submission {shown_path(path)} is empty", f"start from {shown_path(lab.folder / 'starter')}")
    app = app_of(lab, path)
    # What a build leaves is not there yet.
    for command in [app.build] if app.build else [app.command, *(extra.command for extra in app.extra.values())]:
        for file in files_of(command):
            if not any((path / one).exists() for one in (file, f"{file}.template", f"{file.removesuffix('.py')}/__init__.py")):
                seen = ", ".join(sorted(p.name for p in path.iterdir())[:10])
                message = f"the submission {shown_path(path)} has no {file}, which `{' '.join(command)}` runs; it has {seen}"
                raise LabError(message, "is it the right folder?")


def app_of(lab: Lab, folder: Path) -> AppTable:
    """How a submission is built and runs: as lab.toml says, but for what its own app.toml says. Raises LabError that lists every problem of that."""
    app, path = lab.app, folder / OWN_FILE
    if path.is_file():
        own = read_table(path, OwnTable, OWN_TABLES, [], tuple(app.extra), "docs/any-language.md shows what an app.toml holds")
        extra = {name: table.model_copy(update=dict(own.extra.get(name, ()))) for name, table in app.extra.items()}
        build = own.build if own.command else own.build or app.build  # the lab's build is for the lab's command
        check = own.check if own.command else own.check or app.check
        app = app.model_copy(update={"command": own.command or app.command, "build": build, "check": check, "extra": extra})
    for command in (app.command, *([app.check] if app.check else ()), *(one.command for one in app.extra.values())):
        if not app.build and any(OUT in word for word in command):
            shown = shown_path(path if path.is_file() else lab.folder / "lab.toml")
            raise LabError(f"{shown}: `{' '.join(command)}` runs what a build leaves in {OUT}, and there is no `build`", "say how it is built")
    return app


def files_of(command: Sequence[str]) -> Iterator[str]:
    """The files of its own folder that a command names: app.py for `uvicorn app:app`, worker.py for `python worker.py`."""
    for place, word in enumerate(command):
        if module := re.fullmatch(r"([A-Za-z_]\w*(?:\.\w+)*):[A-Za-z_]\w*", word):
            yield module[1].replace(".", "/") + ".py"
        elif word.startswith(f"{FILLED}/"):
            yield word.removeprefix(f"{FILLED}/")
        elif re.fullmatch(r"(\./)?[\w-]+(/[\w-]+)*\.(py|js|mjs|sh|rb|jar)", word) or (place == 0 and word.startswith("./")):
            yield word.removeprefix("./")


def copy_starter(lab: Lab) -> bool:
    """Copy the starter to my/<lab> unless something is there already; True when it did."""
    target = my_folder(lab)
    if target.exists():
        return False
    temporary = target.with_name(f".{lab.name}.{os.getpid()}")
    try:
        temporary.parent.mkdir(exist_ok=True)
        shutil.copytree(lab.folder / "starter", temporary, ignore=shutil.ignore_patterns("__pycache__"))
        temporary.rename(target)
    except OSError as error:
        if target.exists():  # another run was faster
            return False
        message = f"the starter cannot be copied to {shown_path(target)}: {error}"
        raise MachineError(message, "is the disk full, or read-only?") from error
    finally:
        shutil.rmtree(temporary, ignore_errors=True)
    return True
