"""The form of a lab's folder: what must be there, what must agree with lab.toml, and what is too much."""

import ast
import re
import warnings
from collections.abc import Iterator
from pathlib import Path

from runner.complaint import did_you_mean
from runner.errors import LabError
from runner.hints import read_hints
from runner.lab import Lab, Submission, check_submission, files_of
from runner.roadmap import find_topic
from runner.verdict import read_promise

TEXTS = ("README.md", "hints.md", "debrief.md")
SCRIPTS = ("locustfile.py", "test_lab.py")
FOLDERS = ("starter", "solution", "wrong")
HINTS = [1, 2, 3]
BUG_LINE = re.compile(rb"\s*(#|//|--|;)\s*bug: \S")
PLACEHOLDER = b"TODO(author)"
LITTER = ("__pycache__", ".DS_Store", ".pytest_cache", ".ruff_cache", ".mypy_cache")


def check_form(lab: Lab) -> list[str]:
    """Every problem of the folder's form, in the words of an author; empty for a good one."""
    checks = read_checks(lab)
    return [
        *check_place(lab),
        *check_parts(lab),
        *check_hints(lab),
        *check_promises(checks),
        *check_expectations(lab, list(checks)),
        *check_submissions(lab),
        *check_bug_lines(lab),
        *check_strays(lab),
        *check_syntax(lab),
        *check_placeholders(lab),
    ]


def read_checks(lab: Lab) -> dict[str, ast.FunctionDef | ast.AsyncFunctionDef]:
    """The checks of test_lab.py: its `test_*` functions, those of `Test*` classes too; none when it cannot be read."""
    tree = parse(lab.folder / "test_lab.py")
    scopes: list[ast.Module | ast.ClassDef] = [tree] if tree else []
    scopes += [node for scope in scopes for node in scope.body if isinstance(node, ast.ClassDef) and node.name.startswith("Test")]
    functions = [node for scope in scopes for node in scope.body if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)]
    return {function.name: function for function in functions if function.name.startswith("test_")}


def check_place(lab: Lab) -> Iterator[str]:
    """The folder lies under a topic that it covers, and no other lab has its name."""
    if find_topic(lab.topic) is None:
        yield f"it lies under {lab.topic}/, which is no topic of the roadmap"
    elif not any(leaf.startswith(f"{lab.topic}/") for leaf in lab.covers):
        yield f"lab.toml: it lies under {lab.topic}/, but `covers` names no leaf of that topic"
    for other in lab.folder.parent.parent.glob(f"*/{lab.name}/lab.toml"):
        if other.parent != lab.folder:
            yield f"{other.parent.parent.name}/{lab.name} has the same name: names are unique"


def check_parts(lab: Lab) -> Iterator[str]:
    """Every part is there, and the texts say something."""
    for name in (*TEXTS, *SCRIPTS):
        path = lab.folder / name
        if not path.is_file():
            yield f"{name} is missing"
        elif not path.read_bytes().strip():
            yield f"{name} is empty"
    yield from (f"{name}/ is missing" for name in FOLDERS if not (lab.folder / name).is_dir())
    for name, peer in lab.peers.items():
        missing = [file for file in files_of(peer.command) if not (lab.folder / file).is_file()]
        yield from (f"lab.toml: the peer {name} runs {file}, which is missing" for file in missing)


def check_hints(lab: Lab) -> Iterator[str]:
    """Three hints, in order, none of them empty."""
    path = lab.folder / "hints.md"
    if not path.is_file():
        return
    hints = read_hints(path.read_text(encoding="utf-8", errors="replace"))
    if (numbers := [number for number, _ in hints]) != HINTS:
        seen = ", ".join(map(str, numbers)) or "none"
        yield f"hints.md must have three hints headed `## Hint 1` to `## Hint 3`; it has: {seen}"
    yield from (f"hints.md: hint {number} is empty" for number, text in hints if not text)


def check_promises(checks: dict[str, ast.FunctionDef | ast.AsyncFunctionDef]) -> Iterator[str]:
    """Each check says what it promises, and why that breaks."""
    for name, function in checks.items():
        promised, why = read_promise(ast.get_docstring(function))
        where = f"test_lab.py:{function.lineno}: {name}"
        if not promised and not why:
            yield f"{where} has no docstring: its first line is the promise, its `Why:` the mechanism"
        elif not promised:
            yield f"{where}: its docstring does not begin with the promise"
        elif not why:
            yield f"{where}: its docstring has no `Why:`"


def check_expectations(lab: Lab, checks: list[str]) -> Iterator[str]:
    """The starter and each wrong submission fail checks that exist, and each check is what some wrong submission is there to fail."""
    if not checks:
        yield "test_lab.py has no check: a function called test_..."
        return
    for where, table in {"[starter]": lab.starter, **{f"[wrong.{bug}]": wrong for bug, wrong in lab.wrong.items()}}.items():
        if not table.fails:
            yield f"lab.toml: {where} fails no check"
        for key, names in (("fails", table.fails), ("may_fail", table.may_fail)):
            for name in sorted(set(names) - set(checks)):
                yield f"lab.toml: {where} {key}: test_lab.py has no check {name}{did_you_mean(name, checks)}"
    caught = {name for wrong in lab.wrong.values() for name in wrong.fails[:1]}
    uncaught = [name for name in checks if name not in caught]
    yield from (f"no wrong submission has {name} first in its `fails`: nothing shows that it can fail" for name in uncaught)


def check_submissions(lab: Lab) -> Iterator[str]:
    """Each submission holds what the commands run; wrong/ and lab.toml name the same bugs."""
    folders = {path.name for path in (lab.folder / "wrong").glob("*") if path.is_dir() and path.name not in LITTER}
    yield from (f"wrong/{bug} has no table [wrong.{bug}] in lab.toml" for bug in sorted(folders - set(lab.wrong)))
    yield from (f"lab.toml: [wrong.{bug}] has no folder wrong/{bug}" for bug in lab.wrong if bug not in folders)
    present = [name for name in ("starter", "solution") if (lab.folder / name).is_dir()]
    for name in [*present, *(f"wrong/{bug}" for bug in sorted(folders))]:
        try:
            check_submission(lab, Submission(name, lab.folder / name, "path"))
        except LabError as error:
            yield str(error)


def check_bug_lines(lab: Lab) -> Iterator[str]:
    """The file in which a wrong submission goes wrong begins with `# bug: ...`."""
    for bug in lab.wrong:
        folder = lab.folder / "wrong" / bug
        files = [path for path in sources_of(folder) if not is_same(path, lab.folder / "solution" / path.relative_to(folder))]
        if folder.is_dir() and not files:
            yield f"wrong/{bug} does not differ from the solution"
        elif files and not any(BUG_LINE.match(first_line(path)) for path in files):
            main = next((folder / file for file in files_of(lab.app.command) if folder / file in files), files[0])
            yield f"{main.relative_to(lab.folder)}:1: must name the bug: `# bug: {lab.wrong[bug].bug}`"


def check_strays(lab: Lab) -> Iterator[str]:
    """Nothing lies there that is no part of the form."""
    allowed = {"lab.toml", *TEXTS, *SCRIPTS, *FOLDERS}
    peers = {file.split("/", maxsplit=1)[0] for peer in lab.peers.values() for file in files_of(peer.command)}
    allowed |= peers | find_modules(lab.folder, {"locustfile.py", *peers})
    if lab.mysql:
        allowed.add(lab.mysql.schema_file)
    strays = [path for path in lab.folder.glob("*") if path.name not in {*allowed, *LITTER}]
    strays += [path for path in (lab.folder / "wrong").glob("*") if path.is_file() and path.name not in LITTER]
    yield from (f"{path.relative_to(lab.folder)} is no part of a lab: remove it" for path in sorted(strays))


def find_modules(folder: Path, scripts: set[str]) -> set[str]:
    """The files beside these scripts that they import, and what those import in turn."""
    found: set[str] = set()
    to_read = {name for name in scripts if name.endswith(".py")}
    while to_read:
        tree = parse(folder / to_read.pop())
        nodes = list(ast.walk(tree)) if tree else []
        names = {alias.name for node in nodes if isinstance(node, ast.Import) for alias in node.names}
        names |= {node.module for node in nodes if isinstance(node, ast.ImportFrom) and node.module}
        new = {f"{name}.py" for name in names if (folder / f"{name}.py").is_file()} - found - scripts
        found |= new
        to_read |= new
    return found


def check_syntax(lab: Lab) -> Iterator[str]:
    """Every .py file is Python."""
    for path in sources_of(lab.folder):
        if path.suffix == ".py":
            try:
                compile_source(path)
            except (SyntaxError, ValueError) as error:
                line = f":{error.lineno}" if isinstance(error, SyntaxError) and error.lineno else ""
                message = error.msg if isinstance(error, SyntaxError) else error
                yield f"{path.relative_to(lab.folder)}{line}: syntax error: {message}"


def check_placeholders(lab: Lab) -> Iterator[str]:
    """Nothing of the template is left to fill in."""
    for path in sources_of(lab.folder):
        for number, line in enumerate(path.read_bytes().splitlines(), 1):
            if PLACEHOLDER in line:
                yield f"{path.relative_to(lab.folder)}:{number}: {line.strip().decode(errors='replace')[:90]}"


def sources_of(folder: Path) -> list[Path]:
    """Every file below a folder that somebody wrote."""
    return sorted(path for path in folder.rglob("*") if path.is_file() and not set(path.relative_to(folder).parts) & set(LITTER))


def parse(path: Path) -> ast.Module | None:
    """A file of Python as its tree; None when it is missing or no Python."""
    try:
        return compile_source(path)
    except (OSError, SyntaxError, ValueError):
        return None


def compile_source(path: Path) -> ast.Module:
    """Its tree. Raises SyntaxError, or ValueError for a null byte (up to Python 3.11)."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        source = path.read_bytes()
        compile(source, str(path), "exec", dont_inherit=True)  # sees more than the parser: `return` outside a function
        return ast.parse(source)


def is_same(one: Path, other: Path) -> bool:
    """Whether both hold the same."""
    return other.is_file() and one.read_bytes() == other.read_bytes()


def first_line(path: Path) -> bytes:
    """The first line that is no shebang."""
    lines = path.read_bytes().splitlines() or [b""]
    return lines[1] if lines[0].startswith(b"#!") and lines[1:] else lines[0]
