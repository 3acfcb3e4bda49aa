"""Says what is wrong with a TOML file in a person's words: the line, the key, what was seen, and what was perhaps meant."""

import difflib
import re
import tomllib
from collections.abc import Callable, Iterable, Sequence
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pydantic_core import ErrorDetails

Location = Sequence[str | int]

PLAIN = {
    "tuple_type": "should be a list",
    "dict_type": "should be a table",
    "model_type": "should be a table",
    "string_type": "should be a string",
    "int_type": "should be a whole number",
    "float_type": "should be a number",
    "bool_type": "should be true or false",
    "too_short": "should not be empty",
    "string_too_short": "should not be empty",
}
LONGEST_VALUE = 60


def did_you_mean(word: str, known: Iterable[str]) -> str:
    """`; did you mean a or b?`, or nothing when no known word is near."""
    near = difflib.get_close_matches(word, list(known), n=3)
    return f"; did you mean {' or '.join(near)}?" if near else ""


def describe_syntax(text: str, error: tomllib.TOMLDecodeError) -> str:
    """A syntax error as `line 3: Invalid value: difficulty = three`."""
    lines = text.splitlines() or [""]
    found = re.search(r" \(at line (\d+), column \d+\)", str(error))
    number = min(int(found[1]) if found else len(lines), len(lines))  # else it is at the end of the document
    message = re.sub(r" \(at .*\)$", "", str(error))
    return f"line {number}: {message}: {lines[number - 1].strip() or 'end of the file'}"


def describe(text: str, error: "ErrorDetails", known_keys: Callable[[Sequence[str]], Iterable[str]]) -> str:
    """One error of pydantic as `line 7: [app] replica: unknown key; did you mean replicas?`. `known_keys` of a table."""
    is_key = error["loc"][-1] == "[key]"
    location = error["loc"][:-1] if is_key else error["loc"]
    names = [part for part in location if isinstance(part, str)]
    value = location[-1] if is_key else error["input"]
    line = line_of(text, location, value)
    where = f"[{'.'.join(names[:-1])}] {names[-1]}" if names[1:] else names[0]
    if error["type"] == "missing":
        return f"line {line}: {where} is missing"
    return f"line {line}: {where}: {say(error, names, value, known_keys)}"


def say(error: "ErrorDetails", names: Sequence[str], value: object, known_keys: Callable[[Sequence[str]], Iterable[str]]) -> str:
    """What is wrong with one value."""
    if error["type"] == "extra_forbidden":
        return f"unknown key{did_you_mean(names[-1], known_keys(names[:-1]))}"
    if error["type"] == "value_error":
        return error["msg"].removeprefix("Value error, ")
    seen = repr(value)
    seen = seen if len(seen) <= LONGEST_VALUE else f"{seen[:LONGEST_VALUE]}..."
    return f"{PLAIN.get(error['type'], error['msg'].removeprefix('Input '))}, is {seen}"


def line_of(text: str, location: Location, value: object = None) -> int:
    """The line of a key, or of the item `value` of its list; else that of the innermost table around it; else 1."""
    names = [part for part in location if isinstance(part, str)]
    table: list[str] = []
    best, best_depth = 1, 0
    lines = text.splitlines()
    for number, line in enumerate(lines, 1):
        if header := re.match(r"\s*\[+([^\[\]]+)\]", line):
            path = table = split_key(header[1])
        elif assignment := re.match(r"""\s*((?:[\w.-]|"[^"]*"|'[^']*'|\s)+?)\s*=""", line):
            path = table + split_key(assignment[1])
        else:
            continue
        depth = len(path) if path == names[: len(path)] else len(names) if path[: len(names)] == names else 0
        if depth > best_depth:
            best, best_depth = number, depth
    if isinstance(location[-1], int) and isinstance(value, str):
        for number in range(best, len(lines) + 1):
            if f'"{value}"' in lines[number - 1] or f"'{value}'" in lines[number - 1]:
                return number
    return best


def split_key(dotted: str) -> list[str]:
    """`wrong."a-b".fails` as its parts."""
    return [part.strip().strip("\"'") for part in dotted.split(".")]
