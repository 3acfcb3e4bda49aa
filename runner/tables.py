"""The tables of lab.toml and app.toml as frozen models: what may stand there, and the words for what may not."""

import re
from pathlib import Path
from typing import Annotated

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, ValidationInfo, field_validator

from runner.complaint import did_you_mean
from runner.roadmap import all_leaves

KEBAB = re.compile(r"[a-z][a-z0-9]*(-[a-z0-9]+)*")
SERVICES = ("redis", "mysql", "kafka")
# Of processes, containers, log files and <NAME>_URL in a run.
OUR_NAMES = frozenset({"app", "build", "check", "compose", "gate", "load", "locust", "proxy", "pytest", *SERVICES})


def check_name(name: str) -> str:
    """Kebab-case. Raises ValueError."""
    if not KEBAB.fullmatch(name):
        raise ValueError(f"the name {name!r} is not kebab-case, like `cache-stampede`")
    return name


def check_process_name(name: str) -> str:
    """Kebab-case, and no name of the run's own processes. Raises ValueError."""
    if check_name(name) in OUR_NAMES or re.sub(r"-\d+$", "", name) in OUR_NAMES:
        raise ValueError(f"the kit itself has processes called {', '.join(sorted(OUR_NAMES))}: choose another name than {name!r}")
    return name


def check_check(name: str) -> str:
    """The name of a test function. Raises ValueError."""
    if not re.fullmatch(r"test_[a-z0-9_]+", name):
        raise ValueError(f"{name!r} is no name of a check: those are functions of test_lab.py called test_...")
    return name


def check_leaf(leaf: str) -> str:
    """A leaf of the roadmap. Raises ValueError with the nearest."""
    if leaf not in all_leaves():
        raise ValueError(f"the roadmap has no leaf {leaf!r}{did_you_mean(leaf, all_leaves())}")
    return leaf


def check_service(name: str) -> str:
    """A service that the kit can start. Raises ValueError with all of them."""
    if name not in SERVICES:
        raise ValueError(f"there is no service {name!r}; there are {', '.join(SERVICES)}")
    return name


def check_request(line: str) -> str:
    """`GET /path`. Raises ValueError."""
    if not re.fullmatch(r"(GET|HEAD) /\S*", line):
        raise ValueError(f"{line!r} is no request line like `GET /healthz`")
    return line


def check_topic_line(line: str) -> str:
    """`name partitions [key=value ...]`. Raises ValueError."""
    if not re.fullmatch(r"[a-zA-Z0-9._-]+ [1-9][0-9]*( [a-z.]+=\S+)*", line):
        raise ValueError(f"{line!r} is no topic like `orders 6`: a name, partitions, then key=value settings if any")
    return line


def check_distinct(items: tuple[str, ...]) -> tuple[str, ...]:
    """No item twice. Raises ValueError."""
    if twice := {item for item in items if items.count(item) > 1}:
        raise ValueError(f"named twice: {', '.join(sorted(twice))}")
    return items


Text = Annotated[str, Field(min_length=1)]
Ready = Annotated[str, AfterValidator(check_request)]
Command = Annotated[tuple[Text, ...], Field(min_length=1, strict=False)]
Check = Annotated[str, AfterValidator(check_check)]
Checks = Annotated[tuple[Check, ...], Field(strict=False), AfterValidator(check_distinct)]
Leaf = Annotated[str, AfterValidator(check_leaf)]
Leaves = Annotated[tuple[Leaf, ...], Field(min_length=1, strict=False), AfterValidator(check_distinct)]
Service = Annotated[str, AfterValidator(check_service)]
Services = Annotated[tuple[Service, ...], Field(strict=False), AfterValidator(check_distinct)]
Topics = Annotated[tuple[Annotated[str, AfterValidator(check_topic_line)], ...], Field(min_length=1, strict=False)]
Replicas = Annotated[int, Field(ge=1, le=20)]
ProcessName = Annotated[str, AfterValidator(check_process_name)]


class Table(BaseModel):
    """A table of such a file: frozen, nothing coerced, and without keys that we do not know."""

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True)


class ExtraTable(Table):
    """Further processes of the app, such as consumers; without `ready` they serve no HTTP. With `listens` they have a PORT for another protocol."""

    command: Command
    replicas: Replicas = 1
    ready: Ready | None = None
    listens: bool = False

    @property
    def has_port(self) -> bool:
        """Whether it gets a PORT."""
        return self.listens or self.ready is not None


class AppTable(Table):
    """How a submission is built and checked, if it is, and runs. With `skewable` the scenario can shift a replica's clock.

    With `mesh` the replicas call each other (PEERS), with `data_dir` each has a folder that outlives it (DATA_DIR).
    """

    command: Command
    build: Command | None = None
    check: Command | None = None
    replicas: Replicas = 1
    ready: Ready = "GET /healthz"
    ready_within_s: Annotated[float, Field(gt=0, le=300)] = 20.0
    skewable: bool = False
    mesh: bool = False
    data_dir: bool = False
    extra: dict[ProcessName, ExtraTable] = {}


class OwnExtraTable(Table):
    """How a submission runs one of the lab's further processes."""

    command: Command


class OwnTable(Table):
    """The whole of app.toml, by which a submission is built and runs in another way than lab.toml says."""

    command: Command | None = None
    build: Command | None = None
    check: Command | None = None
    extra: dict[str, OwnExtraTable] = {}

    @field_validator("extra")
    @classmethod
    def check_extra(cls, extra: dict[str, OwnExtraTable], info: ValidationInfo) -> dict[str, OwnExtraTable]:
        """The lab has them: a submission adds no process."""
        known = info.context if isinstance(info.context, tuple) else ()
        for name in extra:
            if name not in known:
                has = f"has {', '.join(known)}" if known else "has none"
                raise ValueError(f"the lab has no further process called {name!r}: it {has}{did_you_mean(name, known)}")
        return extra


class MysqlTable(Table):
    """The database that the app finds: a file of SQL in the lab's folder."""

    schema_file: Text = Field(alias="schema")

    @field_validator("schema_file")
    @classmethod
    def check_file(cls, name: str, info: ValidationInfo) -> str:
        """It must be there."""
        if "/" in name or (isinstance(info.context, Path) and not (info.context / name).is_file()):
            raise ValueError(f"the lab's folder has no file {name!r}")
        return name


class KafkaTable(Table):
    """The topics that the app finds: `name partitions [key=value ...]`."""

    topics: Topics


class PeerTable(Table):
    """A process that the lab ships. One that speaks no HTTP has an address in place of a URL."""

    command: Command
    http: bool = True


class StarterTable(Table):
    """The checks that must fail, and those that may; no other does."""

    fails: Checks
    may_fail: Checks = ()

    @field_validator("may_fail")
    @classmethod
    def check_overlap(cls, may_fail: tuple[str, ...], info: ValidationInfo) -> tuple[str, ...]:
        """What must fail need not be allowed to."""
        if both := sorted({*may_fail} & {*info.data.get("fails", ())}):
            raise ValueError(f"{', '.join(both)} is in `fails` already")
        return may_fail


class WrongTable(StarterTable):
    """A plausible wrong answer, with its bug in words."""

    bug: Text


class LabTable(Table):
    """The whole of lab.toml."""

    title: Text
    covers: Leaves
    difficulty: Annotated[int, Field(ge=1, le=5)]
    minutes: Annotated[int, Field(ge=1, le=600)]
    services: Services = ()
    app: AppTable
    mysql: MysqlTable | None = None
    kafka: KafkaTable | None = None
    peers: dict[ProcessName, PeerTable] = {}
    wires: Annotated[tuple[str, ...], Field(strict=False), AfterValidator(check_distinct)] = ()
    starter: StarterTable
    wrong: dict[Annotated[str, AfterValidator(check_name)], WrongTable] = {}

    @field_validator("peers")
    @classmethod
    def check_peers(cls, peers: dict[str, PeerTable], info: ValidationInfo) -> dict[str, PeerTable]:
        """None is called like a process of the app."""
        extra: dict[str, ExtraTable] = info.data["app"].extra if "app" in info.data else {}
        for taken in (f"{kind}-{number}" for kind, table in extra.items() for number in range(1, table.replicas + 1)):
            if taken in peers:
                raise ValueError(f"the app has a process called {taken!r}: choose another name")
        return peers

    @field_validator("wires")
    @classmethod
    def check_wires(cls, wires: tuple[str, ...], info: ValidationInfo) -> tuple[str, ...]:
        """A wire leads to a service or a peer."""
        ends = (*info.data.get("services", ()), *info.data.get("peers", ()))
        for name in wires:
            if name not in ends:
                raise ValueError(f"no service or peer is called {name!r}{did_you_mean(name, ends)}")
        return wires

    @field_validator("mysql", "kafka")
    @classmethod
    def check_service_is_used(cls, table: MysqlTable | KafkaTable | None, info: ValidationInfo) -> MysqlTable | KafkaTable | None:
        """A service's table needs the service."""
        if table is not None and info.field_name not in info.data.get("services", SERVICES):
            raise ValueError(f"this table needs {info.field_name!r} among `services`")
        return table


TABLES: dict[str, type[Table]] = {
    "": LabTable, "app": AppTable, "app.extra.*": ExtraTable, "mysql": MysqlTable, "kafka": KafkaTable,
    "peers.*": PeerTable, "starter": StarterTable, "wrong.*": WrongTable,
}  # fmt: skip
OWN_TABLES: dict[str, type[Table]] = {"": OwnTable, "extra.*": OwnExtraTable}
