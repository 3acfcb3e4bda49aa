"""Fills in a submission's templates: for a server that reads no environment, the kit writes the values into its configuration."""

import re
import stat
from collections.abc import Mapping
from pathlib import Path

from runner.build import read_files
from runner.complaint import did_you_mean
from runner.errors import AppError

SUFFIX = ".template"
NAME = re.compile(rb"\$\{([A-Z][A-Z0-9_]*)\}")  # a server's own variables, such as nginx's ${uri}, are lower case: they stay

Files = Mapping[str, tuple[int, bytes]]


def fill_in(submission: Path, values: Mapping[str, str]) -> Files:
    """A submission's files by path, each with its mode; `x.template` stands as `x`, with the value in place of each `${NAME}`.

    The lines of both have the same numbers. Raises AppError for a name that has no value.
    """
    files: dict[str, tuple[int, bytes]] = {}
    for name, (mode, content) in read_files(submission).items():
        if name.endswith(SUFFIX) and stat.S_ISREG(mode):
            files[name.removesuffix(SUFFIX)] = mode, fill_text(name, content, values)
        else:
            files.setdefault(name, (mode, content))
    return files


def fill_text(name: str, content: bytes, values: Mapping[str, str]) -> bytes:
    """One template. Raises AppError that names the place of the first name without a value."""
    for number, line in enumerate(content.split(b"\n"), 1):
        for found in NAME.findall(line):
            if found.decode() not in values:
                wrong = f"{name}:{number}: there is no ${{{found.decode()}}}{did_you_mean(found.decode(), list(values))}"
                raise AppError(wrong, hint=f"there are {', '.join(f'${{{key}}}' for key in sorted(values))}")
    return NAME.sub(lambda match: values[match[1].decode()].encode(), content)
