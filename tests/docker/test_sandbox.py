"""What a stranger's submission can do in Docker: use its processor and memory for a while, print, and fail."""

import json
import socket
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import docker
import psutil
import pytest

from runner.stack.sweep import RUN_LABEL

if TYPE_CHECKING:
    from conftest import Kit


def found_by(kit: "Kit") -> dict[str, Any]:
    """What the exploring app says that it found."""
    log = (kit.run_folder() / "app-1.log").read_text()
    return dict(json.loads(next(line.removeprefix("FOUND ") for line in log.splitlines() if line.startswith("FOUND "))))


def explore(kit: "Kit", targets: dict[str, tuple[str, int]]) -> dict[str, Any]:
    """Let the app look around; its run passes all the same."""
    (kit.root / "labs" / "apps" / "explores" / "targets.json").write_text(json.dumps(targets))
    done = kit.labs("run", "hits", kit.submission("explores"))
    assert done.returncode == 0, done.stdout + done.stderr
    return found_by(kit)


def test_it_runs_in_a_container_without_rights(in_docker: "Kit") -> None:
    found = explore(in_docker, {})
    assert found["uid"] == 10001
    assert int(found["capabilities"], 16) == 0
    assert found["no_new_privileges"].strip() == "1"
    assert found["processes"] <= 2, "it sees the processes of nobody else"
    assert found["socket"] is False
    assert found["environment"] == sorted(
        ["HOME", "LANG", "PATH", "PORT", "PYTHONDONTWRITEBYTECODE", "PYTHONUNBUFFERED", "REPLICA", "TMPDIR", "HOSTNAME"]
    )


def test_it_has_its_own_files_and_may_write_only_its_home(in_docker: "Kit") -> None:
    found = explore(in_docker, {})
    assert found["files"] == ["app.py", "hits.py", "targets.json"]
    assert found["neighbours"] == ["shims", "submission"], "neither the lab's tests nor its solution"
    assert found["writes"].pop("/tmp") == "written"  # noqa: S108 - in the container
    assert set(found["writes"].values()) <= {"Read-only file system", "Permission denied"}
    assert found["writes"]["/srv/app"] == "Read-only file system"


def test_it_reaches_neither_the_host_nor_another_run(in_docker: "Kit", engine: docker.DockerClient, eventually: Callable[..., Any]) -> None:
    """Listeners of our own only: one on all addresses of this machine, and the servers of another run."""
    other = in_docker.start("run", "bench", "--submission=solution", "--keep", f"--run-folder={in_docker.root / 'other'}")

    def containers() -> dict[str, Any]:
        found = engine.containers.list(filters={"label": RUN_LABEL})
        return {c.labels["com.docker.compose.service"]: c for c in found if c.labels[RUN_LABEL].startswith("labs-")}

    eventually(lambda: {"redis", "worker-1"} <= set(containers()), "the other run", 60)
    theirs = containers()
    (their_network,) = theirs["redis"].attrs["NetworkSettings"]["Networks"].values()
    (gate_network,) = theirs["gate"].attrs["NetworkSettings"]["Networks"].values()
    (published,) = theirs["redis"].attrs["NetworkSettings"]["Ports"]["6379/tcp"]
    with socket.create_server(("0.0.0.0", 0)) as listener:  # noqa: S104 - it stands for a careless service of the host
        port = listener.getsockname()[1]
        gateways = [c["Gateway"] for n in engine.networks.list() for c in n.attrs["IPAM"]["Config"] or [] if "Gateway" in c]
        own = {a.address for addresses in psutil.net_if_addrs().values() for a in addresses if a.family == socket.AF_INET}
        hosts = sorted({*own, *gateways, their_network["Gateway"]} - {"127.0.0.1"})
        targets = {f"the host at {host}": (host, port) for host in hosts}
        targets["redis of the other run"] = (their_network["IPAddress"], 6379)
        targets["the gate of the other run"] = (gate_network["IPAddress"], 6379)
        targets["the published port of the other run"] = ("127.0.0.1", int(published["HostPort"]))
        for host in hosts:  # they would answer, were there a way
            socket.create_connection((host, port), timeout=2).close()
        (in_docker.root / "labs" / "apps" / "explores" / "targets.json").write_text(json.dumps(targets))
        done = in_docker.labs("run", "hits", in_docker.submission("explores"))
    assert done.returncode == 0, done.stdout + done.stderr
    found = found_by(in_docker)
    assert set(found["reached"]) == set(targets)
    assert "connected" not in found["reached"].values(), found["reached"]
    assert not any(name.startswith(("1", "2")) for name in found["names"].values()), "a name look-up would be a way out"
    assert found["interfaces"] == ["eth0", "lo"]
    other.terminate()
    other.wait(60)


@pytest.mark.parametrize(
    ("app", "code", "words"),
    [
        ("forks", 1, "did not answer GET /healthz within 3 s"),
        ("hoards", 1, "app-1 ended before it answered GET /healthz (exit code -9)"),
        ("floods", 0, "PASS"),
        ("idles", 1, "FAIL"),
        ("crashes", 1, "a_module_that_is_not_there"),
        ("leaves-children", None, ""),
        ("ignores-sigterm", None, ""),
        ("other-port", 1, "did not answer"),
    ],
)
def test_who_misbehaves_ends_with_the_run(in_docker: "Kit", app: str, code: int | None, words: str) -> None:
    if app == "idles":
        in_docker.edit("microservices/hits/locustfile.py", "network_timeout = 10.0", "network_timeout = 0.5")
    before = psutil.virtual_memory().available
    done = in_docker.labs("run", "hits", in_docker.submission(app))
    assert done.returncode in ((0, 1) if code is None else (code,)), done.stdout + done.stderr
    assert words in done.stdout
    assert before - psutil.virtual_memory().available < 1 << 30
    logs = sum(file.stat().st_size for file in in_docker.run_folder().iterdir())
    assert logs < 40 << 20


def test_a_full_home_is_its_own_affair(in_docker: "Kit") -> None:
    done = in_docker.labs("run", "hits", in_docker.submission("fills"))
    assert done.returncode == 0, done.stdout + done.stderr
    log = (in_docker.run_folder() / "app-1.log").read_text()
    assert "FULL after 64 MiB: No space left on device" in log or "FULL after 63 MiB: No space left on device" in log
    assert json.loads((in_docker.run_folder() / "report.json").read_text())["backend"] == "docker"


def test_a_submission_that_is_too_large_is_said_so(in_docker: "Kit") -> None:
    with (in_docker.root / "labs" / "apps" / "idles" / "large").open("wb") as file:
        file.truncate(100 << 20)
    done = in_docker.labs("run", "hits", in_docker.submission("idles"))
    assert done.returncode == 1
    assert "is larger than 64 MiB" in done.stdout
