"""Replicas that know each other: every directed pair can be cut, healed and hurt by itself, and a folder outlives its replica."""

import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from runner.errors import LabError
from runner.lab import Submission, read_lab
from runner.run import Run

FOLDER = Path(__file__).parent / "mesh"
EVERYBODY = {1: [2, 3], 2: [1, 3], 3: [1, 2]}


@pytest.fixture(scope="module")
def shared(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Run]:
    """Three replicas are up."""
    folder = tmp_path_factory.mktemp("mesh")
    temporary = folder / "t"
    temporary.mkdir()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(tempfile, "tempdir", str(temporary))
        one = Run(read_lab(FOLDER), Submission("solution", FOLDER / "solution", "solution"), folder, seed=1)
        try:
            one.start(with_load=False)
            yield one
        finally:
            one.stop()
    assert list(temporary.iterdir()) == []


@pytest.fixture
def run(shared: Run) -> Iterator[Run]:
    """The run, whose links are whole before and after each test."""
    yield shared
    shared.mesh.heal()
    assert heard(shared) == EVERYBODY


def heard(run: Run) -> dict[int, list[int | str]]:
    """Whom each replica hears when it asks the others, in the order of PEERS."""
    return {n: run.call("GET", "/ask", replica=n).json()["heard"] for n in (1, 2, 3)}


def test_peers_are_the_others_in_the_order_of_their_numbers(run: Run) -> None:
    assert heard(run) == EVERYBODY
    assert run.mesh.link(2, 3).requests("GET") >= 1


def test_a_partition_silences_every_pair_across_it_and_no_other(run: Run) -> None:
    cut = run.mesh.partition({1, 3}, {2})
    assert heard(run) == {1: ["TimeoutError", 3], 2: ["TimeoutError", "TimeoutError"], 3: [1, "TimeoutError"]}
    assert cut.fired() >= 4
    cut.heal()
    assert heard(run) == EVERYBODY
    assert cut.healed_ns is not None
    assert cut.healed_ns > cut.at_ns


def test_who_is_in_no_group_is_alone(run: Run) -> None:
    run.mesh.partition({2, 3})
    assert heard(run) == {1: ["TimeoutError", "TimeoutError"], 2: ["TimeoutError", 3], 3: ["TimeoutError", 2]}
    assert run.events[-1]["what"] == "partition: app-2 app-3 | app-1"


def test_a_cut_one_way_leaves_the_other(run: Run) -> None:
    run.mesh.cut(1, 3, one_way=True)
    assert heard(run) == {**EVERYBODY, 1: [2, "TimeoutError"]}


def test_a_cut_that_refuses_is_told_at_once(run: Run) -> None:
    run.mesh.cut(1, 3, refuse=True)
    assert heard(run) == {**EVERYBODY, 1: [2, "ConnectionRefusedError"], 3: ["ConnectionRefusedError", 2]}


def test_cuts_overlap_and_each_has_its_own_end(run: Run) -> None:
    one, other = run.mesh.isolate(1), run.mesh.cut(1, 2)
    one.heal()
    assert heard(run) == {1: ["TimeoutError", 3], 2: ["TimeoutError", 3], 3: [1, 2]}
    other.heal()
    other.heal()


def test_a_link_takes_any_fault_of_a_wire(run: Run) -> None:
    link = run.mesh.link(3, 1)
    lost = link.lose_reply(when="^GET /who")
    assert heard(run)[3][0] in ("BadStatusLine", "RemoteDisconnected", "ConnectionResetError")
    assert lost.fired() == 1


def test_no_link_leads_nowhere(run: Run) -> None:
    for pair in ((1, 1), (1, 4), (0, 2)):
        with pytest.raises(LabError, match=f"no link leads from replica {pair[0]} to replica {pair[1]}"):
            run.mesh.cut(*pair)
    with pytest.raises(LabError, match="app-2 would be in two groups"):
        run.mesh.partition({1, 2}, {2, 3})


def test_a_killed_replica_comes_back_to_its_addresses_and_its_files(run: Run) -> None:
    for n in (1, 2, 3):
        run.call("PUT", "/word", f"word of {n}", replica=n)
    for n in (1, 2):
        run.kill(f"app-{n}")
    for n in (1, 2):
        run.restart(f"app-{n}")
    assert heard(run) == EVERYBODY
    for n in (1, 2, 3):
        kept = run.call("GET", "/word", replica=n).json()
        assert kept["word"] == f'"word of {n}"'
        assert len(kept["seen"]) == 1, "the folder of nobody else"


def test_a_lab_without_them_says_so(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(run.app, "links", {})
    with pytest.raises(LabError, match="the replicas of this lab have no links"):
        _ = run.mesh
    monkeypatch.undo()
