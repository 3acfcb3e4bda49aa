"""Reads lab.toml into a frozen model, and finds labs and submissions; every complaint names the file, the line and the key."""

import difflib
import os
import re
import shutil
import tomllib
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from runner.errors import LabError
from runner.roadmap import all_leaves, read_roadmap

KEBAB = r"^[a-z0-9]+(-[a-z0-9]+)*$"
SERVICES = ("redis", "mysql", "kafka")
Check = Annotated[str, Field(pattern=r"^test_[a-z0-9_]+$")]
Ready = Annotated[str, Field(pattern=r"^(GET|HEAD) /\S*$")]
Command = Annotated[tuple[str, ...], Field(min_length=1)]


class Model(BaseModel):
    """A table of lab.toml: frozen, and without keys that we do not know."""

    model_config = ConfigDict(extra="forbid", frozen=True)


class Extra(Model):
    """Further processes of the app, such as consumers; one without `ready` serves no HTTP."""

    command: Command
    replicas: Annotated[int, Field(ge=1, le=10)] = 1
    ready: Ready | None = None


class AppTable(Model):
    """How a submission runs."""

    command: Command
    replicas: Annotated[int, Field(ge=1, le=10)] = 1
    ready: Ready = "GET /healthz"
    ready_within_s: Annotated[float, Field(gt=0, le=120)] = 20.0
    skewable: bool = False
    extra: dict[Annotated[str, Field(pattern=KEBAB)], Extra] = {}


class PeerTable(Model):
    """A process that the lab ships."""

    command: Command


class Starter(Model):
    """The checks that the starter fails."""

    fails: Annotated[tuple[Check, ...], Field(min_length=1)]
    may_fail: tuple[Check, ...] = ()


class Wrong(Starter):
    """A wrong submission: its bug in words, the checks that must catch it, the first of them by design."""

    bug: str


class Mysql(Model):
    """The database that the app finds."""

    schema_: str = Field(alias="schema")


class Kafka(Model):
    """The topics that the app finds: `name partitions [key=value ...]`."""

    topics: tuple[str, ...]


class LabTable(Model):
    """The whole of lab.toml."""

    title: str
    covers: Annotated[tuple[str, ...], Field(min_length=1)]
    difficulty: Annotated[int, Field(ge=1, le=5)]
    minutes: Annotated[int, Field(ge=1, le=480)]
    services: tuple[str, ...] = ()
    app: AppTable
    mysql: Mysql | None = None
    kafka: Kafka | None = None
    peers: dict[Annotated[str, Field(pattern=KEBAB)], PeerTable] = {}
    starter: Starter
    wrong: dict[Annotated[str, Field(pattern=KEBAB)], Wrong] = {}

    @model_validator(mode="after")
    def check_names(self) -> "LabTable":
        """Leaves and services must exist; a service's table needs the service."""
        for leaf in self.covers:
            if leaf not in all_leaves():
                raise ValueError(f"`covers`: the roadmap has no leaf {leaf!r}{did_you_mean(leaf, all_leaves())}")
        for service in self.services:
            if service not in SERVICES:
                raise ValueError(f"`services`: there is no {service!r}; there are {', '.join(SERVICES)}")
        for table in ("mysql", "kafka"):
            if getattr(self, table) is not None and table not in self.services:
                raise ValueError(f"`{table}`: this table needs {table!r} among `services`")
        return self


@dataclass(frozen=True)
class Lab:
    """A lab: its folder and what lab.toml says of it."""

    folder: Path
    table: LabTable

    @property
    def name(self) -> str:
        """The folder's name."""
        return self.folder.name

    @property
    def topic(self) -> str:
        """The topic that it lies under."""
        return self.folder.parent.name

    def schema_of(self, service: str) -> str:
        """What the app finds in a service: SQL text for mysql, a topic a line for kafka, nothing else."""
        if service == "mysql" and self.table.mysql:
            return (self.folder / self.table.mysql.schema_).read_text()
        if service == "kafka" and self.table.kafka:
            return "\n".join(self.table.kafka.topics)
        return ""

    def __getattr__(self, name: str) -> Any:
        return getattr(self.table, name)


@dataclass(frozen=True)
class Submission:
    """A folder with the app's code. `kind` is starter, solution, wrong, mine or path."""

    name: str
    path: Path
    kind: str


def find_root() -> Path:
    """The checkout that this package runs from; LABS_ROOT overrides it. Raises LabError when that is no checkout."""
    root = Path(os.environ.get("LABS_ROOT") or Path(__file__).parent.parent).resolve()
    if not (root / "labs").is_dir() or not (root / "pyproject.toml").is_file():
        raise LabError(f"{root} is no checkout of backend-labs: it has no labs/ beside a pyproject.toml", hint="unset LABS_ROOT, or set it to one")
    return root


def lab_folders(root: Path) -> list[Path]:
    """Every folder under labs/<topic>/ that has a lab.toml."""
    return sorted(path.parent for path in root.glob("labs/*/*/lab.toml"))


def all_labs(root: Path) -> list[Lab]:
    """Every lab, in the roadmap's order of topics."""
    order = [topic.id for topic in read_roadmap()]
    labs = [read_lab(folder) for folder in lab_folders(root)]
    return sorted(labs, key=lambda lab: (order.index(lab.topic) if lab.topic in order else len(order), lab.name))


def find_lab(name: str) -> Lab:
    """The lab called `name` (or `topic/name`). Raises LabError with the nearest names."""
    folders = lab_folders(find_root())
    for folder in folders:
        if name in (folder.name, f"{folder.parent.name}/{folder.name}"):
            return read_lab(folder)
    names = [folder.name for folder in folders]
    raise LabError(f"no lab is called {name!r}{did_you_mean(name, names)}", hint="`make list` shows all labs")


def read_lab(folder: Path) -> Lab:
    """Read and check lab.toml. Raises LabError that lists every problem with its line."""
    path = folder / "lab.toml"
    try:
        text = path.read_text()
        data = tomllib.loads(text)
    except OSError as error:
        raise LabError(f"{path} cannot be read: {error.strerror}") from error
    except tomllib.TOMLDecodeError as error:
        raise LabError(f"{path} is no TOML: {error}") from error
    problems = []
    try:
        table = LabTable.model_validate(data)
    except ValidationError as error:
        problems = [describe(text, problem) for problem in error.errors()]
    if not re.match(KEBAB, folder.name):
        problems.append(f"the folder's name {folder.name!r} is not kebab-case")
    if problems:
        raise LabError(f"{path} has {len(problems)} problem(s)\n" + "\n".join(f"  {p}" for p in problems), hint="docs/design.md shows the form")
    return Lab(folder, table)


def describe(text: str, problem: Any) -> str:
    """One pydantic error as `line 7: [app] replica: unknown key; did you mean replicas?`."""
    *tables, key = [str(part) for part in problem["loc"]] or ["", ""]
    if not problem["loc"]:
        message = problem["msg"].removeprefix("Value error, ")
        key = message.split("`")[1] if "`" in message else ""
        return f"line {line_of(text, [], key)}: {message}"
    if key.isdigit() and tables:
        key = tables.pop()
    where = f"[{'.'.join(tables)}] " if tables else ""
    if problem["type"] == "extra_forbidden":
        message = f"unknown key{did_you_mean(key, known_keys(tables))}"
    elif problem["type"] == "missing":
        return f"{where or 'top level: '}{key} is missing"
    else:
        message = f"{problem['msg']} (seen: {problem['input']!r})"
    return f"line {line_of(text, tables, key)}: {where}{key}: {message}"


def known_keys(tables: list[str]) -> list[str]:
    """The keys that a table may have."""
    models: dict[str, type[Model]] = {
        "": LabTable, "app": AppTable, "mysql": Mysql, "kafka": Kafka, "peers": PeerTable, "starter": Starter, "wrong": Wrong
    }  # fmt: skip
    model = Extra if tables[:2] == ["app", "extra"] else models.get(tables[0] if tables else "", LabTable)
    return [field.alias or name for name, field in model.model_fields.items()]


def line_of(text: str, tables: list[str], key: str) -> int:
    """The line where a key is set, or else where its table begins; 1 when neither is found."""
    table_line, current = 1, ""
    for number, line in enumerate(text.splitlines(), 1):
        if header := re.match(r"\s*\[([^\[\]]+)\]", line):
            current = header[1]
            if current in (".".join(tables), ".".join([*tables, key])):
                table_line = number
        elif re.match(rf'\s*"?{re.escape(key)}"?\s*=', line) and current == ".".join(tables):
            return number
    return table_line


def did_you_mean(word: str, known: Iterable[str]) -> str:
    """`; did you mean a or b?`, or nothing."""
    near = difflib.get_close_matches(word, list(known), n=3, cutoff=0.5)
    return f"; did you mean {' or '.join(near)}?" if near else ""


def resolve_submission(lab: Lab, text: str | None) -> Submission:
    """`starter`, `solution`, `wrong/<bug>`, `mine` or a path. Raises LabError when nothing runnable is there."""
    text = (text or "mine").rstrip("/")
    if text == "mine":
        submission = Submission("mine", find_root() / "my" / lab.name, "mine")
    elif text in ("starter", "solution") or re.match(r"wrong/[^/]+$", text):
        submission = Submission(text, lab.folder / text, text.split("/", maxsplit=1)[0])
    else:
        submission = Submission(text, Path(text).expanduser().resolve(), "path")
    if not submission.path.is_dir():
        known = ["starter", "solution", *(f"wrong/{bug}" for bug in lab.wrong), "mine"]
        raise LabError(
            f"the submission {text!r} is no folder: {submission.path}{did_you_mean(text, known)}", hint=f"there are {', '.join(known)}, or a path"
        )
    check_app_file(lab, submission.path)
    return submission


def check_app_file(lab: Lab, path: Path) -> None:
    """Raises LabError when the file that the app's command names is not in the folder."""
    if not any(path.iterdir()):
        raise LabError(f"the submission {path} is empty", hint=f"start from {lab.folder / 'starter'}")
    for command in [lab.app.command, *(extra.command for extra in lab.app.extra.values())]:
        for word in command[1:]:
            file = f"{word.partition(':')[0]}.py" if re.match(r"^\w+:\w+$", word) else word if re.match(r"^[\w/]+\.py$", word) else None
            if file and not (path / file).is_file():
                raise LabError(f"the submission {path} has no {file}, which `{' '.join(command)}` runs", hint="is this the right folder?")


def copy_starter(lab: Lab) -> bool:
    """Copy the starter to my/<lab> unless something is there already; True when it did."""
    target = find_root() / "my" / lab.name
    if target.exists():
        return False
    target.parent.mkdir(exist_ok=True)
    temporary = target.with_name(f".{lab.name}.{os.getpid()}")
    shutil.copytree(lab.folder / "starter", temporary, ignore=shutil.ignore_patterns("__pycache__"))
    try:
        temporary.rename(target)
    except OSError:  # another run was faster
        shutil.rmtree(temporary)
        return False
    return True
