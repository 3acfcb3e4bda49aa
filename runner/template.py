"""`labs new`: writes a new lab that runs at once and cannot verify before its author has filled it in."""

import os
import shutil
import string
from pathlib import Path

from runner.complaint import did_you_mean
from runner.errors import LabError, MachineError
from runner.lab import all_lab_folders, shown_path
from runner.roadmap import Topic, find_topic, read_roadmap
from runner.tables import KEBAB

FOLDER = Path(__file__).with_name("template")
SUFFIX = ".tmpl"  # they are no Python yet: neither pytest nor a linter shall take them for it


def create(root: Path, path: str) -> str:
    """Write labs/<topic>/<name>/ and say what to do next. Raises LabError for a bad or taken name; nothing is overwritten."""
    topic, name = read_name(root, path)
    target = root / "labs" / topic.id / name
    words = {"topic": topic.id, "name": name, "leaf": topic.leaves[0], "title": name.replace("-", " ").capitalize()}
    write_template(target, words)
    shown = shown_path(target)
    return "\n".join(
        [
            f"{shown}/ is a lab that runs: an example to replace, file by file.",
            "",
            f"next: make lab NAME={name} SUBMISSION=starter    to see it fail",
            f"      make verify NAME={name}                    to see what is left to do: first every TODO(author)",
        ]
    )


def read_name(root: Path, path: str) -> tuple[Topic, str]:
    """The topic and the new lab's name. Raises LabError."""
    topic_id, _, name = path.strip("/").removeprefix("labs/").partition("/")
    if not name:
        raise LabError(f"{path!r} is no topic/name", "such as: make new NAME=middleware/cache-warming")
    topic = find_topic(topic_id)
    if topic is None:
        known = [topic.id for topic in read_roadmap()]
        raise LabError(f"the roadmap has no topic {topic_id!r}{did_you_mean(topic_id, known)}", f"topics: {', '.join(known)}")
    if not KEBAB.fullmatch(name):
        raise LabError(f"the name {name!r} is not kebab-case", "lower-case words, hyphens between them, such as cache-warming")
    places = [*all_lab_folders(root), root / "labs" / topic_id / name]
    if taken := [folder for folder in places if folder.name == name and folder.exists()]:
        hint = "names are unique over all topics: choose another"
        raise LabError(f"{shown_path(taken[0])} exists already; nothing was written", hint)
    return topic, name


def write_template(target: Path, words: dict[str, str]) -> None:
    """Fill in the template and put it in place whole. Raises MachineError when the disk refuses."""
    temporary = target.with_name(f".{target.name}.{os.getpid()}")
    try:
        for source in sorted(FOLDER.rglob(f"*{SUFFIX}")):
            file = temporary / source.relative_to(FOLDER).with_suffix("")
            file.parent.mkdir(parents=True, exist_ok=True)
            file.write_text(string.Template(source.read_text(encoding="utf-8")).substitute(words), encoding="utf-8")
        temporary.rename(target)
    except OSError as error:
        raise MachineError(f"{shown_path(target)} cannot be written: {error}", "is the disk full, or read-only?") from error
    finally:
        shutil.rmtree(temporary, ignore_errors=True)
