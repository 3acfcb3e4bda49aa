"""What a Docker stack makes of an engine's answers and refusals. None is needed: tests/docker has a real one."""

import os
import threading
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any, NoReturn

import pytest
from docker.errors import APIError

from runner.errors import MachineError
from runner.stack.docker import DockerStack
from runner.stack.sweep import sweep

CONTAINER = "3f" * 32


def hang(*_: object, **__: object) -> NoReturn:
    raise TimeoutError("read timed out")


def refuse(*_: object, **__: object) -> NoReturn:
    raise APIError("409 Client Error", explanation="that cannot be done now")


@pytest.fixture
def api() -> Any:
    """As much of an engine as is asked for; it refuses, and what it has it does not tell in time."""
    return SimpleNamespace(pause=refuse, unpause=refuse, exec_create=refuse, containers=hang, remove_network=refuse)


@pytest.fixture
def ended() -> list[object]:
    """What `stop` has ended, and whether the guard need not sweep."""
    return []


@pytest.fixture
def stack(api: Any, ended: list[object], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[DockerStack]:
    """A stack with one container."""
    monkeypatch.delenv("LABS_ENGINE_ADDRESS", raising=False)
    children: Any = SimpleNamespace(guard_pid=os.getpid(), close=lambda *, is_swept: ended.append(is_swept))
    client: Any = SimpleNamespace(api=api, close=lambda: ended.append("client"))
    one = DockerStack(client, children, tmp_path)
    one._ids["app-1"] = CONTAINER
    yield one
    one._pool.shutdown()


def end(stack: DockerStack) -> None:
    """The engine tells that the container has ended."""
    with stack._changed:
        stack._exit_codes["app-1"] = 1
        stack._changed.notify_all()


def test_a_fault_on_what_has_ended_is_none(stack: DockerStack, monkeypatch: pytest.MonkeyPatch) -> None:
    """As it is embedded: whether an end was a crash is not for the fault to say. The engine refuses first, and tells of the end then."""
    monkeypatch.setattr("runner.stack.docker.TOLD_WITHIN_S", 10.0)
    telling = threading.Timer(0.05, end, [stack])
    telling.start()
    stack.pause("app-1")
    assert stack.exit_code("app-1") == 1
    telling.join()
    stack.resume("app-1")
    assert stack.skew("app-1", 60, 1) is False


def test_what_ended_while_it_was_paused_need_not_be_resumed(stack: DockerStack) -> None:
    stack._paused.add("app-1")
    end(stack)
    stack.resume("app-1")
    assert not stack._paused


def test_what_was_not_paused_need_not_be_resumed(stack: DockerStack) -> None:
    stack.resume("app-1")


def test_a_fault_that_the_engine_refuses_is_told_in_its_words(stack: DockerStack) -> None:
    with pytest.raises(MachineError, match="app-1 could not be paused: that cannot be done now"):
        stack.pause("app-1")
    with pytest.raises(MachineError, match="the clock of app-1 could not be shifted: that cannot be done now"):
        stack.skew("app-1", 60, 1)
    stack._paused.add("app-1")
    with pytest.raises(MachineError, match="app-1 could not be resumed: that cannot be done now"):
        stack.resume("app-1")


@pytest.mark.parametrize(
    ("cgroup", "is_here"),
    [
        (f"0::/system.slice/docker-{CONTAINER}.scope\n", True),
        (f"0::/user.slice/user-1000.slice/user@1000.service/user.slice/docker-{CONTAINER}.scope\n", True),
        (f"0::/docker/{CONTAINER}\n", True),
        (f"12:pids:/docker/{CONTAINER}\n1:name=systemd:/docker/{CONTAINER}\n0::/\n", True),
        ("0::/user.slice/user-1000.slice/session-3.scope\n", False),
        (f"0::/system.slice/docker-{'4e' * 32}.scope\n", False),
        ("", False),
    ],
)
def test_a_pid_of_the_engines_machine_is_none_of_ours(
    stack: DockerStack, api: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, cgroup: str, is_here: bool
) -> None:
    """A remote engine counts its own; here that number is nobody's, or somebody else's."""
    monkeypatch.setattr("runner.stack.docker.PROC", tmp_path)
    api.inspect_container = lambda _: {"State": {"Pid": 4242}}
    if cgroup:
        (tmp_path / "4242").mkdir()
        (tmp_path / "4242" / "cgroup").write_text(cgroup)
    assert stack.pid("app-1") == (4242 if is_here else 0)


def test_what_the_engine_does_not_remove_in_time_is_left_to_the_guard(stack: DockerStack, ended: list[object]) -> None:
    stack.stop()
    assert ended == [False, "client"]


def test_events_that_cannot_be_closed_keep_nothing_from_its_end(stack: DockerStack, ended: list[object]) -> None:
    """As over ssh://, where the SDK looks for a socket that is none."""

    def fail() -> NoReturn:
        raise UnboundLocalError("sock")

    stack._events = SimpleNamespace(close=fail)
    stack.stop()
    assert ended == [False, "client"]


def test_a_removal_that_takes_longer_than_an_answer_may_is_looked_after() -> None:
    there = [{"Id": CONTAINER}]
    tries: list[str] = []

    def remove(name: str, **_: object) -> None:
        tries.append(name)
        if len(tries) == 1:
            hang()
        there.clear()

    nothing: Any = {"networks": lambda **_: [], "volumes": lambda **_: {"Volumes": None}, "remove_network": refuse, "remove_volume": refuse}
    client: Any = SimpleNamespace(api=SimpleNamespace(containers=lambda **_: list(there), remove_container=remove, **nothing))
    assert sweep(client, "labs-1") == 1
    assert tries == [CONTAINER, CONTAINER]
