"""The servers' own counters, read all through a scenario, for the report. No check asks them: what a check needs it reads itself."""

import contextlib
import json
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from typing import Any

from runner.services import connect_kafka, connect_mysql, connect_redis, load_kafka
from runner.stack import Address

EVERY_S = 0.25
END_WITHIN_S = 0.5
FILE = "counters.json"
Read = Callable[[], Mapping[str, float]]

REDIS_TOTALS = {
    "total_commands_processed": "commands",
    "keyspace_hits": "keys found",
    "keyspace_misses": "keys not found",
    "expired_keys": "keys expired",
}
REDIS_LEVELS = {"connected_clients": "clients", "blocked_clients": "clients that wait"}
MYSQL_TOTALS = {
    "Com_commit": "commits",
    "Com_rollback": "rollbacks",
    "Innodb_row_lock_waits": "waits for a row lock",
    "Com_update": "updates",
}
MYSQL_LEVELS = {"Innodb_row_lock_current_waits": "waiting for a row lock", "Threads_running": "threads that run"}


@contextmanager
def open_redis(address: Address) -> Iterator[Read]:
    """INFO (https://redis.io/docs/latest/commands/info/)."""
    with connect_redis(address) as client:

        def read() -> dict[str, float]:
            info = client.info()
            return {name: float(info.get(key, 0)) for key, name in (REDIS_TOTALS | REDIS_LEVELS).items()}

        yield read


@contextmanager
def open_mysql(address: Address) -> Iterator[Read]:
    """SHOW GLOBAL STATUS, and the deadlocks of InnoDB's own metrics (MySQL 8.4 manual, 17.15.6)."""
    names = ", ".join(f"'{name}'" for name in MYSQL_TOTALS | MYSQL_LEVELS)
    with connect_mysql(address, database=None) as connection, connection.cursor() as cursor:

        def read() -> dict[str, float]:
            cursor.execute(f"SHOW GLOBAL STATUS WHERE Variable_name IN ({names})")
            status = {row["Variable_name"]: float(row["Value"]) for row in cursor.fetchall()}
            cursor.execute("SELECT count AS n FROM information_schema.innodb_metrics WHERE name = 'lock_deadlocks'")
            metric = cursor.fetchone()
            values = {name: status.get(key, 0.0) for key, name in (MYSQL_TOTALS | MYSQL_LEVELS).items()}
            return {**values, "deadlocks": float(metric["n"]) if metric else 0.0}

        yield read


@contextmanager
def open_kafka(address: Address) -> Iterator[Read]:
    """Records in the topics, and how many of them each group has not committed (its lag)."""
    kafka = load_kafka()
    with connect_kafka(address) as admin:

        def read() -> dict[str, float]:
            topics = [topic for topic in admin.list_topics() if not topic.startswith("__")]
            partitions = [kafka.TopicPartition(t["name"], p["partition_index"]) for t in admin.describe_topics(topics) for p in t["partitions"]]
            ends = {at: seen.offset for at, seen in admin.list_partition_offsets(dict.fromkeys(partitions, kafka.OffsetSpec.LATEST)).items()}
            values = {"records": float(sum(ends.values()))}
            groups = [group["group_id"] for group in admin.list_groups()]
            for group, offsets in (admin.list_group_offsets(dict.fromkeys(groups)) if groups else {}).items():
                read_by_group = {at.topic for at in offsets}
                committed = {at: max(seen.offset, 0) for at, seen in offsets.items()}
                values[f"lag of {group}"] = float(sum(end - committed.get(at, 0) for at, end in ends.items() if at.topic in read_by_group))
            return values

        yield read


OPENERS: dict[str, Callable[[Address], AbstractContextManager[Read]]] = {"redis": open_redis, "mysql": open_mysql, "kafka": open_kafka}
TOTALS = {*REDIS_TOTALS.values(), *MYSQL_TOTALS.values(), "deadlocks", "records"}


class Sampler:
    """Reads one service's counters in a thread of its own until it is told to end; a server that does not answer leaves a gap."""

    def __init__(self, service: str, address: Callable[[], Address]) -> None:
        self.service = service
        self.samples: list[dict[str, float]] = []
        self._address = address
        self._is_over = threading.Event()
        self._thread = threading.Thread(target=self._run, name=f"counters of {service}", daemon=True)
        self._thread.start()

    def _run(self) -> None:
        while not self._is_over.is_set():
            with contextlib.suppress(Exception), OPENERS[self.service](self._address()) as read:  # each driver raises its own, and a fault is no news
                while not self._is_over.is_set():
                    begin_ns = time.monotonic_ns()
                    values = read()
                    if time.monotonic_ns() - begin_ns < EVERY_S * 1e9:  # later it belongs to no moment
                        self.samples.append({"at_ns": begin_ns, **values})
                    self._is_over.wait(EVERY_S)
            self._is_over.wait(EVERY_S)

    def end(self) -> None:
        """Read no more; one that hangs at a server without an answer is left to itself."""
        self._is_over.set()

    def join(self) -> None:
        """Return when it has ended, or soon."""
        self._thread.join(END_WITHIN_S)


def write_counters(folder: Path, samplers: Sequence[Sampler]) -> None:
    """Write what was read to `counters.json`: service -> its samples."""
    for sampler in samplers:
        sampler.end()
    for sampler in samplers:
        sampler.join()
    if samplers:
        (folder / FILE).write_text(json.dumps({sampler.service: list(sampler.samples) for sampler in samplers}))


def read_counters(folder: Path, start_ns: int) -> list[dict[str, Any]]:
    """Charts for the page: per service what grows as a rate a second, and what goes up and down as it was; [] when nothing was read."""
    try:
        found: dict[str, list[dict[str, float]]] = json.loads((folder / FILE).read_text())
    except (OSError, ValueError):
        return []
    charts = []
    for service, samples in found.items():
        names = dict.fromkeys(name for sample in samples for name in sample if name != "at_ns")
        times = [round((sample["at_ns"] - start_ns) / 1e9, 3) for sample in samples]
        totals = {name: rates(times, [sample.get(name) for sample in samples]) for name in names if name in TOTALS}
        levels = {name: [sample.get(name) for sample in samples] for name in names if name not in TOTALS}
        for unit, series in (("a second", totals), ("at a time", levels)):
            if told := {name: values for name, values in series.items() if any(values)}:
                charts.append({"title": f"{service}, {unit}", "t": times, "series": told})
    return charts


def rates(times: Sequence[float], values: Sequence[float | None]) -> list[float | None]:
    """How fast a total grew up to each sample; None at the first, after a gap, and where the server has begun to count anew."""
    found: list[float | None] = [None]
    for (t0, v0), (t1, v1) in zip(zip(times, values, strict=True), zip(times[1:], values[1:], strict=True), strict=False):
        is_known = v0 is not None and v1 is not None and v1 >= v0 and 0 < t1 - t0 < 4 * EVERY_S
        found.append(round((v1 - v0) / (t1 - t0), 1) if is_known else None)  # type: ignore[operator]
    return found[: len(times)]
