"""Writes to its home until it is full, says how much that was, and then counts hits as it should."""

from pathlib import Path

written = 0
try:
    with Path.home().joinpath("fill").open("wb", buffering=0) as file:
        while written < 4 << 30:
            written += file.write(b"x" * (1 << 20))
except OSError as error:
    print(f"FULL after {written >> 20} MiB: {error.strerror}", flush=True)
exec(Path(__file__).with_name("hits.py").read_text())
