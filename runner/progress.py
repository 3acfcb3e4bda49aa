"""Where a learner stands: `.labs/progress.json`, written whole or not at all."""

import json
import os
import sys
from pathlib import Path
from typing import Any

from runner.lab import find_root

VERSION = 1


def read_progress(root: Path | None = None) -> dict[str, dict[str, Any]]:
    """Lab name -> {"state": "started" | "failed" | "passed", "hints": n}. A broken file is kept as progress.json.broken, and said."""
    path = (root or find_root()) / ".labs" / "progress.json"
    try:
        data = json.loads(path.read_text())
        if data["version"] != VERSION or not all(isinstance(lab, dict) for lab in data["labs"].values()):
            raise ValueError(f"version {data['version']}")  # noqa: TRY301
    except FileNotFoundError:
        return {}
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        backup = path.with_suffix(".json.broken")
        path.replace(backup)
        print(f"your progress file was broken ({error}); it is kept as {backup}, and a new one begins", file=sys.stderr)
        return {}
    labs: dict[str, dict[str, Any]] = data["labs"]
    return labs


def update_progress(lab: str, **values: Any) -> None:
    """Set values of one lab."""
    path = find_root() / ".labs" / "progress.json"
    labs = read_progress()
    labs[lab] = {**labs.get(lab, {}), **values}
    path.parent.mkdir(exist_ok=True)
    temporary = path.with_name(f"{path.name}.{os.getpid()}")
    temporary.write_text(json.dumps({"version": VERSION, "labs": labs}, indent=1) + "\n")
    temporary.replace(path)


def record_state(lab: str, state: str) -> None:
    """Note what a run of the learner's own came to; once passed stays passed."""
    if read_progress().get(lab, {}).get("state") != "passed":
        update_progress(lab, state=state)
