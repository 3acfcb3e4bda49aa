"""A lab's three hints, one more each time it is asked."""

import re

from runner.errors import LabError
from runner.lab import Lab, shown_path
from runner.progress import Standing, read_progress, record_hints


def read_hints(text: str) -> list[tuple[int, str]]:
    """The hints of a hints.md as (number, text): what stands under `## Hint 1` and so on."""
    parts = re.split(r"^## Hint (\d+)[^\n]*$", text, flags=re.MULTILINE)
    return [(int(number), body.strip()) for number, body in zip(parts[1::2], parts[2::2], strict=True)]


def next_hint(lab: Lab, *, reset: bool = False) -> str:
    """The next hint, remembered; the last one again when none is left. `reset` forgets which were shown. Raises LabError."""
    hints = read_hints(lab.text_of("hints.md"))
    if not hints:
        raise LabError(f"{shown_path(lab.folder)}/hints.md holds no hints", "hints are headed `## Hint 1`, `## Hint 2`, `## Hint 3`")
    if reset:
        record_hints(lab.name, 0)
        return f"The hints of {lab.name} begin anew."
    shown = read_progress().get(lab.name, Standing()).hints
    number = min(shown + 1, len(hints))
    record_hints(lab.name, number)
    if number < len(hints):
        after = f"next: make hint NAME={lab.name}, for a plainer one"
    elif shown >= len(hints):
        after = "That was the last hint, again: there is no other."
    else:
        after = "That was the last hint."
    return f"Hint {number} of {len(hints)} for {lab.name}\n\n{hints[number - 1][1]}\n\n{after}"
