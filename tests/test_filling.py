"""Templates of a submission: what is filled in, and what stays."""

import stat
from pathlib import Path

import pytest

from runner.errors import AppError
from runner.filling import fill_in

VALUES = {"PORT": "8080", "ORIGIN_URL": "http://127.0.0.1:4711/app-1"}


def texts(folder: Path) -> dict[str, str]:
    """The files as they are filled in."""
    return {name: content.decode() for name, (_, content) in fill_in(folder, VALUES).items()}


def test_a_template_stands_without_its_suffix_and_with_the_values(tmp_path: Path) -> None:
    (tmp_path / "nginx.conf.template").write_text("listen ${PORT};\nproxy_pass ${ORIGIN_URL}/;\nlisten ${PORT};\n")
    assert texts(tmp_path) == {"nginx.conf": "listen 8080;\nproxy_pass http://127.0.0.1:4711/app-1/;\nlisten 8080;\n"}


def test_variables_of_the_server_stay(tmp_path: Path) -> None:
    text = "set $a ${uri}; $host $PORT ${Port} $${x} {PORT}"
    (tmp_path / "a.template").write_text(text)
    assert texts(tmp_path) == {"a": text}


def test_other_files_are_there_as_they_are(tmp_path: Path) -> None:
    (tmp_path / "conf.d").mkdir()
    (tmp_path / "conf.d" / "site.conf").write_text("${NOBODY}")
    (tmp_path / "conf.d" / "more.conf.template").write_text("${PORT}")
    (tmp_path / "run.sh").write_bytes(b"\x00\xff")
    (tmp_path / "run.sh").chmod(0o755)
    (tmp_path / "link").symlink_to("run.sh")
    files = fill_in(tmp_path, VALUES)
    assert {name: content for name, (_, content) in files.items()} == {
        "conf.d/site.conf": b"${NOBODY}",
        "conf.d/more.conf": b"8080",
        "run.sh": b"\x00\xff",
        "link": b"run.sh",
    }
    assert files["run.sh"][0] & stat.S_IXUSR
    assert stat.S_ISLNK(files["link"][0])


@pytest.mark.parametrize("names", [("a", "a.template"), ("a.template", "a")])
def test_a_template_wins_over_a_file_of_its_name(tmp_path: Path, names: tuple[str, str]) -> None:
    for name in names:
        (tmp_path / name).write_text("${PORT}" if name.endswith("template") else "left over")
    assert texts(tmp_path) == {"a": "8080"}


def test_a_name_without_a_value_is_named_with_its_place_and_the_nearest(tmp_path: Path) -> None:
    (tmp_path / "nginx.conf.template").write_text("listen ${PORT};\n\nproxy_pass ${ORIGINAL_URL};\n")
    with pytest.raises(AppError, match=r"nginx.conf.template:3: there is no \$\{ORIGINAL_URL\}; did you mean ORIGIN_URL\?") as raised:
        fill_in(tmp_path, VALUES)
    assert raised.value.hint == "there are ${ORIGIN_URL}, ${PORT}"
