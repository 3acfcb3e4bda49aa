"""The kit as a whole: what must stay true whatever is added."""

import ast
import re
import subprocess
import sys
from pathlib import Path

import pytest

from runner.checkout import all_lab_folders
from runner.cli import DESCRIPTION, build_parser
from runner.form import check_form
from runner.lab import read_lab

ROOT = Path(__file__).parent.parent
LABS = all_lab_folders(ROOT)


def targets() -> set[str]:
    """The targets of the Makefile that a person may call."""
    return set(re.findall(r"^([a-z]+):.*## ", (ROOT / "Makefile").read_text(), re.MULTILINE))


def test_every_lab_has_its_row_and_its_line() -> None:
    readme, changelog = (ROOT / "README.md").read_text(), (ROOT / "CHANGELOG.md").read_text()
    for folder in LABS:
        assert f"[{folder.name}]({folder.relative_to(ROOT)}/README.md)" in readme
        assert f"`{folder.name}`" in changelog


def test_the_kit_knows_no_lab_by_name() -> None:
    """A longer text may show one as an example; no value is one."""
    names = {folder.name for folder in LABS}
    assert len(names) >= 4
    known = names | {f"{folder.parent.name}/{folder.name}" for folder in LABS}
    for path in (ROOT / "runner").rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.Constant) and isinstance(node.value, str):
                assert node.value not in known, f"{path.name}:{node.lineno} knows {node.value}"
                assert not {name for name in known if f"labs/{name}" in node.value}, f"{path.name}:{node.lineno} knows {node.value}"
            elif isinstance(node, ast.Name | ast.Attribute | ast.FunctionDef):
                word = node.id if isinstance(node, ast.Name) else node.attr if isinstance(node, ast.Attribute) else node.name
                assert not {name for name in names if name.replace("-", "_") in word.lower()}, f"{path.name}:{node.lineno}: {word}"


def test_no_module_of_the_kit_imports_a_lab_or_a_monkey_patch() -> None:
    for path in (ROOT / "runner").rglob("*.py"):
        text = path.read_text()
        assert not re.search(r"^\s*(from|import) labs\b", text, re.MULTILINE)
        if path.name not in ("recorder.py", "pacing.py"):
            assert not re.search(r"^\s*(from|import) (locust|gevent)\b", text, re.MULTILINE), f"{path.name}: Locust patches the process"


@pytest.mark.parametrize("module", ["runner.run", "runner.judge", "runner.plugin", "runner.verify", "runner.app"])
def test_locust_is_never_imported_into_the_runners_process(module: str) -> None:
    code = f"import sys, {module}; sys.exit(any(name in sys.modules for name in ('locust', 'gevent')))"
    assert subprocess.run([sys.executable, "-c", code], cwd=ROOT, check=False).returncode == 0


@pytest.mark.parametrize("folder", LABS, ids=lambda folder: folder.name)
def test_every_lab_is_in_good_form(folder: Path) -> None:
    assert check_form(read_lab(folder)) == []


@pytest.mark.parametrize("folder", LABS, ids=lambda folder: folder.name)
def test_every_lab_imports_nothing_of_the_kit_into_its_app(folder: Path) -> None:
    """Learners read lab code alone: only peers, the locustfile and the checks may use the kit."""
    for path in [*folder.glob("starter/**/*.py"), *folder.glob("solution/**/*.py"), *folder.glob("wrong/**/*.py")]:
        assert not re.search(r"^\s*(from|import) runner\b", path.read_text(), re.MULTILINE), path


def test_lab_names_are_unique() -> None:
    names = [folder.name for folder in LABS]
    assert sorted(set(names)) == sorted(names)


def test_every_command_that_the_kit_names_exists() -> None:
    """In help, hints, messages, labs and docs: `make x` is a target, `labs x` is a command."""
    parser = build_parser()
    assert parser._subparsers is not None
    commands = set(parser._subparsers._group_actions[0].choices or ())
    texts = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", ROOT / "Makefile", *(ROOT / "docs").glob("*.md")]
    texts += [*(ROOT / "runner").rglob("*.py"), *(ROOT / "runner").rglob("*.tmpl"), *(path for lab in LABS for path in lab.glob("*.md"))]
    named = 0
    for path in texts:
        text = path.read_text()
        for target in re.findall(r"`make ([a-z]+)\b", text) + re.findall(r"^ *(?:\$ )?make ([a-z]+)\b(?= *$| +[A-Z]+=)", text, re.MULTILINE):
            assert target in targets(), f"{path.relative_to(ROOT)}: make {target}"
            named += 1
        for command in re.findall(r"`(?:\.venv/bin/)?labs ([a-z]+)\b", text) + re.findall(r"^ *(?:\$ )?labs ([a-z]+) [a-z-]+$", text, re.MULTILINE):
            assert command in commands, f"{path.relative_to(ROOT)}: labs {command}"
            named += 1
    assert named > 20, "the test itself is broken"


def test_every_command_of_the_description_and_every_command_has_its_target() -> None:
    parser = build_parser()
    assert parser._subparsers is not None
    commands = set(parser._subparsers._group_actions[0].choices or ())
    assert set(re.findall(r"^  labs ([a-z]+)", DESCRIPTION, re.MULTILINE)) <= commands
    assert {"lab" if command == "run" else command for command in commands} <= targets()


def test_examples_name_labs_that_exist() -> None:
    names = {folder.name for folder in LABS}
    for path in [ROOT / "README.md", ROOT / "Makefile", ROOT / "runner" / "cli.py"]:
        for name in re.findall(r"(?:NAME=|labs (?:run|hint|verify|load) )([a-z][a-z-]+[a-z])\b", path.read_text()):
            assert name in names | {"topic"}, f"{path.name}: {name}"


@pytest.mark.parametrize("line", ["", "b.log linearizable"])
def test_a_line_that_answers_for_no_recorded_history_is_named(tmp_path: Path, line: str) -> None:
    (tmp_path / "expected.tsv").write_text(f"a.log\tlinearizable\n{line}\n")
    command = [sys.executable, "-m", "pytest", "-p", "no:cacheprovider", "tests/conformance", f"--vectors={tmp_path}"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == pytest.ExitCode.USAGE_ERROR, done.stdout
    assert f"expected.tsv, line 2: {line!r}" in done.stderr
