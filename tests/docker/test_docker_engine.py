"""The Docker engine of this machine: it answers, and the script that brings one up leaves it alone."""

import subprocess
from pathlib import Path

from runner.stack.engine import compose_command, connect_engine, is_engine_near

ROOT = Path(__file__).parent.parent.parent


def test_the_engine_answers() -> None:
    assert is_engine_near()
    client = connect_engine()
    assert client.ping()
    client.close()


def test_compose_runs() -> None:
    done = subprocess.run([*compose_command(), "version", "--short"], capture_output=True, text=True, check=True)
    assert int(done.stdout.removeprefix("v").partition(".")[0]) >= 2


def test_the_script_says_what_is_there_and_changes_nothing() -> None:
    done = subprocess.run(["sh", ROOT / "infra" / "engine.sh"], capture_output=True, text=True, check=True)
    assert done.stdout.startswith("engine: Docker ")
    assert len(done.stdout.splitlines()) == 1


def test_the_script_does_not_understand_what_it_does_not_know() -> None:
    done = subprocess.run(["sh", ROOT / "infra" / "engine.sh", "podman"], capture_output=True, text=True, check=False)
    assert done.returncode == 1
    assert "not understood: podman" in done.stderr
