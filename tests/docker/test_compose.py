"""infra/docker-compose.yml as a person uses it, without the kit."""

import json
import os
import subprocess
from pathlib import Path

import pytest

from runner.images import image_env
from runner.stack.engine import compose_command

FILE = Path(__file__).parent.parent.parent / "infra" / "docker-compose.yml"
SERVICES = ("redis", "mysql", "kafka")
WITHIN_S = 120


def compose(*arguments: str) -> str:
    """Run Compose on the file as a project of its own, with the kit's images: no registry need be in reach."""
    profiles = [part for service in SERVICES for part in ("--profile", service)]
    command = [*compose_command(), "-f", str(FILE), "-p", "labs-by-hand", *profiles, *arguments]
    done = subprocess.run(command, env={**os.environ, **image_env(SERVICES)}, capture_output=True, text=True, timeout=WITHIN_S, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.mark.usefixtures("images", "untouched")
def test_the_servers_get_healthy_at_ports_that_the_engine_chooses() -> None:
    try:
        compose("up", "--detach", "--wait")
        found = {one["Service"]: one for one in map(json.loads, compose("ps", "--format", "json").splitlines())}
        assert {name: one["Health"] for name, one in found.items()} == dict.fromkeys(SERVICES, "healthy")
        published = [publisher for one in found.values() for publisher in one["Publishers"]]
        assert {publisher["URL"] for publisher in published} == {"127.0.0.1"}
        assert compose("exec", "-T", "redis", "redis-cli", "PING") == "PONG\n"
    finally:
        compose("down", "--volumes")
