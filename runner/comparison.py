"""`labs compare`: two runs on one page."""

import tomllib
from collections.abc import Sequence
from pathlib import Path

from runner.checkout import all_lab_folders, find_root, shown_path
from runner.errors import LabError, MachineError
from runner.page import compare as write_comparison


def compare(names: Sequence[str]) -> str:
    """Write the page of two runs, the last two unless they are named, and say where it is. Raises LabError, MachineError."""
    runs = find_root() / ".labs" / "runs"
    if len(names) not in (0, 2):
        raise LabError(f"{len(names)} run{'s' * (len(names) != 1)} named", "name two, or none for the last two")
    folders = [find_run(runs, name) for name in names] or last_two(runs)
    page = find_root() / ".labs" / "compare.html"
    try:
        page.parent.mkdir(exist_ok=True)
        write_comparison(folders[0], folders[1], read_titles(), page)
    except OSError as error:
        raise MachineError(f"{shown_path(page)} cannot be made: {error}", "is the disk full, or read-only?") from error
    return f"{folders[0].name} and {folders[1].name}: {shown_path(page)}, for a browser"


def find_run(runs: Path, name: str) -> Path:
    """A run's folder by its path, or by its name below .labs/runs/."""
    return Path(name) if (Path(name) / "report.json").exists() else runs / name


def last_two(runs: Path) -> list[Path]:
    """The two latest runs that came to a verdict. Raises LabError when there are fewer."""
    found = sorted(runs.glob("*/report.json"), key=lambda file: file.stat().st_mtime)[-2:]
    if len(found) < 2:
        raise LabError(f"there are {len(found)} runs in {shown_path(runs)}, and it takes two to compare", "run a lab first")
    return [file.parent for file in found]


def read_titles() -> dict[str, str]:
    """What each lab is called. A broken lab.toml has no title here: its old runs can be looked at all the same."""
    titles = {}
    for folder in all_lab_folders(find_root()):
        try:
            titles[folder.name] = str(tomllib.loads((folder / "lab.toml").read_text(encoding="utf-8")).get("title", ""))
        except (OSError, ValueError):
            titles[folder.name] = ""
    return titles
