"""The checkout that the kit runs from: its root, and where its labs lie. Light, for `labs list` needs no more."""

import os
from pathlib import Path

from runner.errors import LabError
from runner.roadmap import read_roadmap


def find_root() -> Path:
    """The checkout that this package lies in; LABS_ROOT overrides it. Raises LabError when that is no checkout."""
    chosen = os.environ.get("LABS_ROOT")
    root = Path(chosen or Path(__file__).parent.parent).resolve()
    missing = [name for name in ("labs", "pyproject.toml") if not (root / name).exists()]
    if missing:
        hint = "unset LABS_ROOT, or set it to a checkout" if chosen else "install the kit from a checkout: pip install -e ."
        raise LabError(f"{root} is no checkout of backend-labs: it has no {' and no '.join(missing)}", hint)
    return root


def shown_path(path: Path) -> str:
    """A path as one would type it here."""
    return os.path.relpath(path) if path.is_relative_to(Path.cwd()) else str(path)


def all_lab_folders(root: Path) -> list[Path]:
    """Every folder labs/<topic>/<lab>/ that has a lab.toml, by topic in the roadmap's order, then by name."""
    order = {topic.id: place for place, topic in enumerate(read_roadmap())}
    folders = [path.parent for path in root.glob("labs/*/*/lab.toml") if not path.parent.name.startswith(".")]
    return sorted(folders, key=lambda folder: (order.get(folder.parent.name, len(order)), folder.name))
