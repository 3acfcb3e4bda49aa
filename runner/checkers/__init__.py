"""Judges of a history: pure functions that return violations, and never blame a right one: what is unknown may have happened."""

from collections.abc import Sequence


def describe_violations(violations: Sequence[object], most: int = 3) -> str:
    """The first few violations and how many more there are: one line for a failed check's `seen`."""
    shown = "; ".join(str(violation) for violation in violations[:most])
    hidden = len(violations) - most
    return f"{shown}; and {hidden} more" if hidden > 0 else shown
