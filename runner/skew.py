"""How a replica's Python gets a wall clock that can be shifted: the shim that it loads at its start (`runner/shims/sitecustomize.py`)."""

from pathlib import Path

from runner.shims.shift import FIFO

SHIMS = Path(__file__).parent / "shims"
WITHIN_S = 5.0


def skew_env(shims: str) -> dict[str, str]:
    """What makes a Python load the shim; `shims` is where it finds the folder."""
    return {"PYTHONPATH": shims, "CLOCK_SKEW_FIFO": FIFO}
