"""A submission in a language that is not compiled, in the image that has its interpreter."""

import shutil
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from conftest import Kit

NODE = Path(__file__).parent.parent / "submissions" / "hits-node"


def test_a_lab_for_python_is_solved_in_node_here_too(in_docker: "Kit") -> None:
    done = in_docker.labs("run", "hits", f"--submission={NODE}")
    assert done.returncode == 0, done.stdout + done.stderr


def test_what_node_refuses_is_the_learners(in_docker: "Kit") -> None:
    broken = in_docker.root / "broken"
    shutil.copytree(NODE, broken)
    (broken / "server.js").write_text("const x = ;")
    done = in_docker.labs("run", "hits", f"--submission={broken}")
    assert done.returncode == 1, done.stdout + done.stderr
    assert "does not pass `node --check server.js`" in done.stdout
    assert "SyntaxError: Unexpected token ';'" in done.stdout
