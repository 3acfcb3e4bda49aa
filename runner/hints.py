"""A lab's three hints, one more each time."""

import re

from runner.errors import LabError
from runner.lab import Lab
from runner.progress import read_progress, update_progress


def read_hints(text: str) -> list[str]:
    """The hints of a hints.md: what stands under `## Hint 1` and so on."""
    return [part.strip() for part in re.split(r"^## Hint \d+.*$", text, flags=re.MULTILINE)[1:]]


def next_hint(lab: Lab, *, reset: bool = False) -> str:
    """The next hint as text, remembered; after the last it stays there. `reset` forgets which were shown. Raises LabError when there are none."""
    path = lab.folder / "hints.md"
    hints = read_hints(path.read_text()) if path.exists() else []
    if not hints:
        raise LabError(f"{path} holds no hint", hint="hints are headed `## Hint 1`, `## Hint 2`, `## Hint 3`")
    if reset:
        update_progress(lab.name, hints=0)
        return f"the hints of {lab.name} begin anew"
    number = min(read_progress().get(lab.name, {}).get("hints", 0) + 1, len(hints))
    update_progress(lab.name, hints=number)
    after = f"next: `make hint NAME={lab.name}` for a plainer one" if number < len(hints) else "that was the last one"
    return f"Hint {number} of {len(hints)} for {lab.name}\n\n{hints[number - 1]}\n\n{after}"
